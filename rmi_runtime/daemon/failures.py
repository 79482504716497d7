"""What was raised, as bytes for the caller: an exception with its remote traceback, or an error."""

from __future__ import annotations

from traceback import format_exception_only
from types import FrameType
from typing import Any, Final, Literal

from Pyro5 import errors as pyro_errors
from Pyro5.core import _ExceptionWrapper
from Pyro5.errors import format_traceback

from rmi_runtime import errors
from rmi_runtime.wire.serializers import Serializer

_OWN: Final = frozenset({"rmi_runtime", "Pyro5", "json", "msgpack", "serpent"})

_GROUPS: Final = "groups of exceptions travel in msgpack only"

Tracebacks = bool | Literal["detailed"]
"""Whether remote tracebacks are sent along; ``detailed``: with the values of local variables."""


def dump_batch_error(serializer: Serializer, error: Exception, tracebacks: Tracebacks) -> bytes:
    """Serialize an error as one result of a batch, in the form stock clients know."""
    if not _travels(serializer, error):
        return _dump_wrapped(serializer, _described(error, _GROUPS, tracebacks))
    try:
        if isinstance(error, errors.RmiError):
            return _dump_wrapped(serializer, errors.to_wire(error))
        error._pyroTraceback = remote_traceback(error, tracebacks)  # type: ignore[attr-defined]
        return _dump_wrapped(serializer, error)
    except Exception as why:
        if isinstance(error, errors.RmiError):  # its fields are no plain values
            return _dump_wrapped(serializer, _without_fields(error))
        return _dump_wrapped(serializer, _described(error, errors.describe(why), tracebacks))


def _dump_wrapped(serializer: Serializer, error: Any) -> bytes:
    if isinstance(error, dict):
        error = {"__class__": "Pyro5.core._ExceptionWrapper", "exception": error}
    else:
        error = _ExceptionWrapper(error)
    return serializer.dump_piece(error)


def dump_error(serializer: Serializer, error: BaseException, *, tracebacks: Tracebacks) -> bytes:
    """Serialize an exception, or a description of it if it cannot be serialized itself.

    Args:
        serializer: the caller's.
        error: what was raised.
        tracebacks: send the remote traceback along, as stock Pyro5 does.

    Returns:
        The payload.
    """
    if not _travels(serializer, error):
        return serializer.dumps(_described(error, _GROUPS, tracebacks))
    try:
        if isinstance(error, errors.RmiError):
            return serializer.dumps(errors.to_wire(error))
        error._pyroTraceback = remote_traceback(error, tracebacks)  # type: ignore[attr-defined]
        return serializer.dumps(serializer.class_to_dict(error))
    except Exception as why:
        if isinstance(error, errors.RmiError):  # its fields are no plain values
            return serializer.dumps(_without_fields(error))
        return serializer.dumps(_described(error, errors.describe(why), tracebacks))


def _without_fields(error: errors.RmiError) -> dict[str, Any]:
    said = errors.describe(error)
    return errors.to_wire(errors.make_error(error.code, error.definite, said, {}))


def _travels(serializer: Serializer, error: BaseException) -> bool:
    """Tell whether clients can read an exception: those in a group come as dictionaries else."""
    return serializer.name == "msgpack" or not isinstance(error, BaseExceptionGroup)


def _described(error: BaseException, why: str, tracebacks: Tracebacks) -> pyro_errors.PyroError:
    plain = pyro_errors.PyroError(
        f"Error serializing exception: {why}. "
        f"Original exception: {type(error)}: {errors.describe(error)}"
    )
    plain._pyroTraceback = _plain_traceback(error, tracebacks)
    return plain


def _plain_traceback(error: BaseException, tracebacks: Tracebacks) -> list[str]:
    """Return the remote traceback as any serializer can write it; nothing if there is none."""
    try:
        lines = remote_traceback(error, tracebacks)
    except Exception:  # it may be what went wrong before
        return []
    return [line.encode("utf-8", "replace").decode("utf-8") for line in lines]


def remote_traceback(error: BaseException, tracebacks: Tracebacks) -> list[str]:
    """Return the lines of an exception's traceback, from the called member's frame on, if wanted.

    What the runtime did before that, such as reading what came, is left out: it would tell
    strangers about this machine, and reading the source lines takes longer than refusing the call.
    """
    if not tracebacks:
        return []
    traceback = before = error.__traceback__
    while traceback is not None and _is_own(traceback.tb_frame):
        traceback, before = traceback.tb_next, traceback
    if traceback is None:
        return format_exception_only(type(error), error)
    detailed = tracebacks == "detailed"  # begins with a frame whose variables are not told
    lines: list[str] = format_traceback(
        type(error), error, before if detailed else traceback, detailed
    )
    return lines


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _OWN

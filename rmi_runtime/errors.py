"""One tree of errors for everything that crosses a wire here.

RmiError
├── Definite                     the operation certainly had no effect
│   ├── InvalidRequest           invalid            ValueError         the caller's words are wrong
│   │   └── MalformedRequest     malformed          ValueError         ... they cannot even be read
│   ├── Unauthenticated          unauthenticated    PermissionError    nobody said who is calling
│   ├── Forbidden                forbidden          PermissionError    the caller may not do this
│   ├── NotFound                 not_found          LookupError        no such name, object or thing
│   ├── Conflict                 conflict           ValueError         the state does not allow it
│   ├── Overloaded               overloaded         RuntimeError       a bounded queue is full
│   ├── Draining                 draining           ConnectionError    the service is leaving
│   ├── Unavailable              unavailable        ConnectionError    nobody could be reached
│   ├── DeadlinePassed           deadline_passed    TimeoutError       dropped before it was begun
│   ├── StoreFull                store_full         OSError            nothing more can be kept
│   └── Misused                  misused            RuntimeError       a client in the wrong place
└── Indefinite                   the operation may have happened
    ├── ConnectionLost           connection_lost    ConnectionError    the reply will not come
    ├── CallTimeout              call_timeout       TimeoutError       no reply within the deadline
    ├── Interrupted              interrupted        TimeoutError       the server stopped half-way
    └── InternalError            internal           RuntimeError       the server failed

Rooms above hang their own errors (rmi_bank.errors, rmi_msg.errors) below one of these.

Only ``definite`` decides what may be retried without a request id. On the wire an error travels as
the builtin exception in the third column, with ``code``, ``definite`` and its fields as attributes,
so that a stock Pyro5 client which has never heard of these classes raises something it can read;
a client of ours gets the class back by its ``code``.

The wire format of exceptions is Pyro5's own (``Pyro5.serializers.SerializerBase.class_to_dict``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, ClassVar

from Pyro5.errors import PyroError

_classes_by_code: dict[str, type[RmiError]] = {}


class RmiError(Exception):
    """Base of the tree. Raise a subclass.

    Args:
        message: what was wrong, what was expected, and what to do, in one sentence or two.
        fields: facts for programs (plain values only); they become attributes of ``fields``.

    Attributes:
        code: stable, machine-readable name of the error.
        definite: True if the operation certainly had no effect.
        http_status: the status the gateway answers with.
        builtin: the exception class a stock Pyro5 client raises instead.
    """

    code: ClassVar[str] = "error"
    definite: ClassVar[bool] = False
    http_status: ClassVar[int] = 500
    builtin: ClassVar[type[Exception]] = RuntimeError

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.fields: dict[str, Any] = fields

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            other = _classes_by_code.setdefault(cls.code, cls)
            if other is not cls and other.__qualname__ != cls.__qualname__:
                raise TypeError(f"error code {cls.code!r} is taken by {other.__qualname__}")

    @property
    def message(self) -> str:
        """The sentence given at construction."""
        return str(self.args[0]) if self.args else ""


class Definite(RmiError):
    """The operation certainly had no effect: it may be tried again without a request id."""

    code = "definite"
    definite = True


class Indefinite(RmiError):
    """The operation may have happened: ask again only with the same request id."""

    code = "indefinite"
    definite = False


class InvalidRequest(Definite):
    """A value is missing, of the wrong type or out of range. ``fields['field']`` names it."""

    code = "invalid"
    http_status = 422
    builtin = ValueError


class MalformedRequest(InvalidRequest):
    """The request cannot be parsed, or has fields nobody knows."""

    code = "malformed"
    http_status = 400


class Unauthenticated(Definite):
    """No token or cluster key was given where one is needed."""

    code = "unauthenticated"
    http_status = 401
    builtin = PermissionError


class Forbidden(Definite):
    """The token is fake, revoked or expired, or its owner may not do this."""

    code = "forbidden"
    http_status = 403
    builtin = PermissionError


class NotFound(Definite):
    """No such name, object, method or thing."""

    code = "not_found"
    http_status = 404
    builtin = LookupError


class Conflict(Definite):
    """The present state does not allow the operation."""

    code = "conflict"
    http_status = 409
    builtin = ValueError


class Overloaded(Definite):
    """A bounded queue is full. Try again after ``fields['retry_after_s']`` seconds, if given."""

    code = "overloaded"
    http_status = 503
    builtin = RuntimeError


class Draining(Definite):
    """The service finishes what is under way and takes nothing new. Ask another one."""

    code = "draining"
    http_status = 503
    builtin = ConnectionError


class Unavailable(Definite):
    """Nobody could be reached before anything was sent."""

    code = "unavailable"
    http_status = 503
    builtin = ConnectionError


class DeadlinePassed(Definite):
    """The caller's deadline passed before the work was begun, so it was dropped."""

    code = "deadline_passed"
    http_status = 503
    builtin = TimeoutError


class StoreFull(Definite):
    """The store has no room: nothing was written. Free some space and try again.

    No other service of the system can help, so that a caller is told at once.
    """

    code = "store_full"
    http_status = 503
    builtin = OSError


class Misused(Definite, PyroError, RuntimeError):  # type: ignore[misc]
    """A client was used where it may not be: in another thread, on another or a running loop.

    It never leaves the process. Stock's proxies raise a plain ``PyroError`` instead.
    """

    code = "misused"
    builtin = RuntimeError


class ConnectionLost(Indefinite):
    """The connection broke after the request was sent and before its reply came."""

    code = "connection_lost"
    http_status = 503
    builtin = ConnectionError


class CallTimeout(Indefinite):
    """No reply came within the deadline."""

    code = "call_timeout"
    http_status = 503
    builtin = TimeoutError


class Interrupted(Indefinite):
    """The server gave the work up half-way, because the deadline passed or it had to stop."""

    code = "interrupted"
    http_status = 503
    builtin = TimeoutError


class InternalError(Indefinite):
    """The server failed in a way nobody foresaw. Its log has the details."""

    code = "internal"
    http_status = 500
    builtin = RuntimeError


def error_class(code: str) -> type[RmiError] | None:
    """Return the class registered for *code*, or None if nobody here knows it."""
    return _classes_by_code.get(code)


def describe(error: BaseException, length_max: int = 1000) -> str:
    """Return what an exception says, as text that any serializer can write.

    Args:
        error: any exception, even one that cannot describe itself.
        length_max: in characters; a longer description is cut off.
    """
    try:
        text = str(error)
    except BaseException:  # whatever it is, who asks is not to end of it
        text = ""
    return (text or type(error).__name__)[:length_max].encode("utf-8", "replace").decode("utf-8")


def shown(value: object, length_max: int = 100) -> str:
    """Return how an error message shows what it refuses.

    Args:
        value: anything; Python does not write integers of more than 4,300 digits.
        length_max: in characters; what is longer is cut off.
    """
    try:
        return repr(value)[:length_max]
    except BaseException:
        if isinstance(value, int):
            return f"a number of {value.bit_length()} bits"
        return f"a {type(value).__name__} that cannot be shown"


def settles(error: Exception) -> bool:
    """Return whether a refusal also tells what came of earlier tries of the same request.

    "Not enough money" does: an earlier try that had been done would have been answered for. "Not
    now" (503) and "not you" do not: an earlier try whose reply was lost may have been done.
    """
    if not isinstance(error, RmiError) or isinstance(error, (Unauthenticated, Forbidden)):
        return False
    return error.definite and error.http_status < 500


def make_error(code: str, definite: bool, message: str, fields: Mapping[str, Any]) -> RmiError:
    """Return the error that *code* names.

    Args:
        code: of a class of this tree; of a room that is not loaded here, it makes a plain
            :class:`Definite` or :class:`Indefinite` with that ``code``.
        definite: used for unknown codes only.
        message: the sentence.
        fields: the facts.
    """
    cls = _classes_by_code.get(code)
    if cls is not None:
        return _made(cls, message, fields)
    error = (Definite if definite else Indefinite)(message, **fields)
    vars(error)["code"] = code
    return error


def _made(cls: type[RmiError], message: str, fields: Mapping[str, Any]) -> RmiError:
    """Make an error; if its class has a constructor of its own that wants other things, without."""
    with contextlib.suppress(Exception):
        error = cls(message, **fields)
        if error.message == message:
            return error
    error = cls.__new__(cls, message)
    error.args, error.fields = (message,), dict(fields)
    return error


def to_wire(error: RmiError) -> dict[str, Any]:
    """Return Pyro5's dictionary form of *error*, as the builtin exception a stock client knows."""
    builtin = error.builtin
    return {
        "__class__": f"builtins.{builtin.__name__}",
        "__exception__": True,
        "args": [error.message],
        "attributes": {"code": error.code, "definite": error.definite, "fields": error.fields},
    }


def from_wire(data: Mapping[str, Any]) -> RmiError | None:
    """Rebuild an error of this tree from Pyro5's dictionary form.

    Args:
        data: the dictionary that stands for an exception on the wire.

    Returns:
        The error, or None if *data* does not carry a code of this tree. A code unknown here becomes
        plain :class:`Definite` or :class:`Indefinite` with that ``code``.
    """
    attributes = data.get("attributes")
    if not isinstance(attributes, Mapping):
        return None
    code, definite, fields = (attributes.get(k) for k in ("code", "definite", "fields"))
    if not isinstance(code, str) or not isinstance(definite, bool):
        return None
    args = data.get("args")
    message = str(args[0]) if isinstance(args, (list, tuple)) and args else ""
    known = dict(fields) if isinstance(fields, Mapping) else {}
    known = {str(name): value for name, value in known.items() if name != "message"}
    return make_error(code, definite, message, known)

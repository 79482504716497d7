"""The handshake of a connection, client side: what the server's answer means."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from rmi_runtime import errors, wire
from rmi_runtime.wire.blob import read_plain
from rmi_runtime.wire.serializers import BY_ID

_MARSHAL_ID: Final = 2  # stock daemons refuse in marshal while they do not know our serializer

_STOCK_REFUSALS: Final[tuple[tuple[str, type[errors.RmiError]], ...]] = (
    ("unknown object", errors.NotFound),
    ("no free workers", errors.Overloaded),
)


def accepted(message: wire.Message) -> dict[str, Any]:
    """Return what a server says when it takes a connection.

    Raises:
        RmiError: it refuses; the class tells why.
        Unavailable: what it says cannot be read, or makes no sense.
    """
    answer = _read(message)
    if message.type == wire.MSG_CONNECTFAIL:
        raise _refusal(message, str(answer))
    if not isinstance(answer, dict):
        raise errors.Unavailable("the answer to the handshake makes no sense")
    return answer


def _read(message: wire.Message) -> Any:
    serializer = BY_ID.get(message.serializer_id)
    try:
        if serializer is not None:
            return serializer.loads(message.payload)
        if message.serializer_id == _MARSHAL_ID and message.type == wire.MSG_CONNECTFAIL:
            return read_plain(message.payload)
    except Exception as error:
        raise errors.Unavailable(f"the handshake's answer cannot be read: {error!r}") from error
    raise errors.Unavailable(
        f"the server answered in serializer {message.serializer_id}, which is refused here"
    )


def _refusal(message: wire.Message, text: str) -> errors.RmiError:
    code = message.annotations.get(wire.ANNOTATION_REFUSAL, b"").decode("ascii", "replace")
    cls = errors.error_class(code)
    if cls is None or not cls.definite:
        cls = next((kind for words, kind in _STOCK_REFUSALS if words in text), errors.Forbidden)
    return cls(f"connection rejected: {text}")


def peer_address(transport: asyncio.BaseTransport | None) -> str:
    """Return where a connection leads, for messages: ``host:port``, or a path."""
    name = transport.get_extra_info("peername") if transport else None
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(name or "a local socket")

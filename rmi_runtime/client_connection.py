"""The client's end of one connection: many calls in flight, matched by sequence number."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from Pyro5.errors import SerializeError

from rmi_runtime import errors, wire
from rmi_runtime.serializers import BY_ID, Serializer

log = logging.getLogger(__name__)

INFLIGHT_MAX: Final = 32_768
ABANDONED_MAX: Final = 16_384
UNSENT_MAX: Final = 32_768
REPLY_SIZE_BYTES_MAX: Final = 256 * 1024 * 1024
_SEQ_MASK: Final = 0xFFFF
_GREETINGS: Final = (wire.MSG_CONNECTOK, wire.MSG_CONNECTFAIL)

Reply = tuple[wire.Message, Any]
"""A reply and its deserialized payload."""


class ClientConnection(asyncio.Protocol):
    """One connection to a daemon. Made by :class:`rmi_runtime.Proxy`.

    Args:
        serializer: how requests are written; replies must come in the same.
        on_stream: makes the result of a call that answered with an item stream, from its id.

    Attributes:
        closed: True as soon as the connection is of no more use.
        pipelining: the server answers out of order, and heeds deadlines.
    """

    def __init__(self, serializer: Serializer, on_stream: Callable[[str], Any]) -> None:
        self.closed = False
        self.pipelining = False
        self._serializer = serializer
        self._on_stream = on_stream
        self._loop = asyncio.get_running_loop()
        self._parser = wire.Parser(REPLY_SIZE_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Future[wire.Message] = self._loop.create_future()
        self._seq = 0
        self._pending: dict[int, tuple[asyncio.Future[Any], float]] = {}
        self._abandoned: set[int] = set()  # timed out; their replies may still come
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._out: list[bytes] = []
        self._flush_scheduled = False
        self._paused = False

    # -- life-cycle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop: the connection stands."""
        self._transport = cast(asyncio.Transport, transport)

    async def greet(self, object_id: str, handshake: object, timeout_s: float) -> dict[str, Any]:
        """Exchange the handshake.

        Args:
            object_id: the object that this connection is mainly for.
            handshake: data for the server's authentication.
            timeout_s: how long to wait for the answer.

        Returns:
            The server's answer: ``handshake`` and ``meta``.

        Raises:
            RmiError: the server refuses; the class tells why.
            Unavailable: no proper answer came.
        """
        payload = self._serializer.dumps({"handshake": handshake, "object": object_id})
        self._send(
            wire.encode(
                wire.MSG_CONNECT,
                self._serializer.serializer_id,
                0,
                0,
                payload,
                {wire.ANNOTATION_PIPELINING: wire.PIPELINING_VERSION},
            )
        )
        self._flush()
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._greeting
        except TimeoutError:
            raise errors.Unavailable(f"no answer to the handshake in {timeout_s} s") from None
        answer = self._serializer_for(message).loads(message.payload)
        if message.type == wire.MSG_CONNECTFAIL:
            raise _refusal(message, str(answer))
        if not isinstance(answer, dict):
            raise errors.Unavailable("the answer to the handshake makes no sense")
        granted = message.annotations.get(wire.ANNOTATION_PIPELINING)
        self.pipelining = granted == wire.PIPELINING_VERSION
        return answer

    def _serializer_for(self, message: wire.Message) -> Serializer:
        found = BY_ID.get(message.serializer_id)
        if found is None:
            raise errors.Unavailable(
                f"the server answered in serializer {message.serializer_id}, which is refused here"
            )
        return found

    def close(self) -> None:
        """Send what waits, then close."""
        self.closed = True
        if self._transport is not None:
            self._flush()
            self._transport.close()
        self._fail_all("the connection was closed by this side before the reply came")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: the connection has ended."""
        self.closed = True
        self._fail_all(f"the connection broke before the reply came ({exc or 'closed by peer'})")

    def eof_received(self) -> bool:
        """Called by the loop: the server will send no more."""
        self.closed = True
        return False

    def _fail_all(self, why: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, {}
        self._abandoned.clear()
        self._out.clear()
        for future, _ in pending.values():
            if not future.done():
                future.set_exception(errors.ConnectionLost(why))
        if not self._greeting.done():
            self._greeting.set_exception(errors.Unavailable(why))
            self._greeting.exception()  # seen: whoever waits gets it, and nobody may

    # -- out

    def invoke(
        self,
        object_id: str,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        timeout_s: float,
        flags: int = 0,
        annotations: Mapping[str, bytes] | None = None,
        correlation_id: bytes | None = None,
    ) -> asyncio.Future[Any]:
        """Send a call; it leaves with all others of this turn of the loop.

        Returns:
            A future of the result; of None, done at once, for a oneway call.

        Raises:
            Overloaded: too many calls are in flight, or too much waits to be sent.
            Exception: the arguments cannot be serialized.
        """
        if len(self._pending) >= INFLIGHT_MAX or len(self._out) >= UNSENT_MAX:
            raise errors.Overloaded(
                f"{len(self._pending)} calls are in flight on this connection: "
                "await some before making more"
            )
        serializer = self._serializer
        payload = serializer.dumpsCall(object_id, method, args, kwargs or {})
        seq = (self._seq + 1) & _SEQ_MASK
        while seq in self._pending or seq in self._abandoned:
            seq = (seq + 1) & _SEQ_MASK
        self._seq = seq
        future: asyncio.Future[Any] = self._loop.create_future()
        self._send(
            wire.encode(
                wire.MSG_INVOKE,
                serializer.serializer_id,
                flags,
                seq,
                payload,
                annotations,
                correlation_id,
                patience=wire.patience(timeout_s) if self.pipelining else 0,
            )
        )
        if flags & wire.FLAG_ONEWAY:
            future.set_result(None)
            return future
        deadline = time.monotonic() + timeout_s
        self._pending[seq] = (future, deadline)
        if deadline < self._timer_at:
            self._arm(deadline)
        return future

    def _send(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._paused or not self._out or self._transport is None:
            return
        if not self._transport.is_closing():
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()

    def pause_writing(self) -> None:
        """Called by the loop: the server does not read."""
        self._paused = True

    def resume_writing(self) -> None:
        """Called by the loop: the server has read on."""
        self._paused = False
        self._flush()

    # -- deadlines: one timer for all calls, set for the earliest of them

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        now = time.monotonic()
        earliest = float("inf")
        for seq, (future, deadline) in list(self._pending.items()):
            if deadline > now:
                earliest = min(earliest, deadline)
                continue
            del self._pending[seq]
            self._abandoned.add(seq)
            if not future.done():
                future.set_exception(errors.CallTimeout("no reply came within the call's deadline"))
        if len(self._abandoned) > ABANDONED_MAX and self._transport is not None:
            self._transport.abort()  # a peer that never answers: a new connection is better
        elif earliest < float("inf"):
            self._arm(earliest)

    # -- in

    def data_received(self, data: bytes) -> None:
        """Called by the loop: bytes have come."""
        for message in self._parser.feed(data):
            if message.type == wire.MSG_RESULT:
                self._take(message)
            elif message.type in _GREETINGS and not self._greeting.done():
                self._greeting.set_result(message)
        if self._parser.error is not None:
            log.warning("the server sent bytes that make no sense: %s", self._parser.error)
            self.closed = True
            if self._transport is not None:
                self._transport.abort()

    def _take(self, message: wire.Message) -> None:
        waiting = self._pending.pop(message.seq, None)
        if waiting is None:
            self._abandoned.discard(message.seq)
            return
        future = waiting[0]
        if future.done():  # the caller was cancelled
            return
        try:
            if message.flags & wire.FLAG_STREAM:
                future.set_result(self._stream(message))
                return
            if message.serializer_id != self._serializer.serializer_id:
                raise SerializeError(f"reply came in serializer {message.serializer_id}")
            result = self._serializer.loads(message.payload)
        except Exception as error:
            future.set_exception(error)
            return
        if not message.flags & wire.FLAG_EXCEPTION:
            future.set_result(result)
        elif isinstance(result, StopIteration):  # futures refuse it
            future.set_exception(StopAsyncIteration(*result.args))
        elif isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_exception(SerializeError(f"the server raised {result!r}: no exception"))

    def _stream(self, message: wire.Message) -> Any:
        stream_id = message.annotations.get(wire.ANNOTATION_STREAM, b"")
        if not stream_id:
            raise SerializeError(
                "the result is an iterator, but the server is not configured to stream"
            )
        return self._on_stream(stream_id.decode("ascii", "replace"))


def _refusal(message: wire.Message, text: str) -> errors.RmiError:
    """Return the error that a CONNECTFAIL message stands for."""
    code = message.annotations.get(wire.ANNOTATION_REFUSAL, b"").decode("ascii", "replace")
    cls = errors.error_class(code)
    if cls is None or not cls.definite:
        cls = errors.NotFound if "unknown object" in text else errors.Forbidden
    return cls(f"connection rejected: {text}")

"""The client's end of one connection: many calls in flight, matched by sequence number."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from Pyro5.core import DAEMON_NAME

from rmi_runtime import errors, wire
from rmi_runtime.hang_up import hang_up
from rmi_runtime.proxy import calls
from rmi_runtime.proxy.calls import Late, Pending, SentCall, WantedCall
from rmi_runtime.proxy.forked import drop_descriptor, never_free
from rmi_runtime.proxy.handshake import accepted, peer_address
from rmi_runtime.proxy.requests import Annotations, RequestWriter
from rmi_runtime.wire.serializers import Serializer

log = logging.getLogger(__name__)

INFLIGHT_MAX: Final = 60_000  # with the next one less than the sequence numbers there are
ABANDONED_MAX: Final = 4_096
UNSENT_MAX: Final = 60_000
REPLY_SIZE_BYTES_MAX: Final = 256 * 1024 * 1024
TIMER_STEP_S: Final = 0.01
_SEQ_MASK: Final = 0xFFFF
_GREETINGS: Final = (wire.MSG_CONNECTOK, wire.MSG_CONNECTFAIL)


class ClientConnection(asyncio.Protocol):
    """One connection to a daemon. Made by :class:`rmi_runtime.Proxy`.

    Args:
        serializer: how requests are written, and replies are read.
        on_stream: makes the result of a call that answered with an item stream, from its id.
        on_stuck: hears of a call that timed out, if the server begins no other before its end.
        compress: deflate large requests.
        resting: calls are made while no loop runs.

    Attributes:
        closed: True as soon as the connection is of no more use; ``ended`` is done at its end.
        broken_by: the error that ended it, if it was one.
        pipelining: the server answers out of order, and heeds deadlines.
        loop: where it lives.
        home: the loop that runs when calls are made; None if it rests then.
        unread: ids of item streams that nobody reads any more; whoever adds one may be any thread.
    """

    def __init__(
        self,
        serializer: Serializer,
        on_stream: Callable[[str], Any],
        on_stuck: Callable[[ClientConnection], None],
        *,
        compress: bool = False,
        resting: bool = False,
    ) -> None:
        self.closed = False
        self.pipelining = False
        self.loop = asyncio.get_running_loop()
        self.home = None if resting else self.loop
        self._pid = os.getpid()
        self._serializer = serializer
        self._on_stream = on_stream
        self._on_stuck = on_stuck
        self._writer = RequestWriter(serializer, compress=compress)
        self._parser = wire.Parser(REPLY_SIZE_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self._greeting: asyncio.Future[wire.Message] = self.loop.create_future()
        self._seq = 0
        self._pending: dict[int, Pending] = {}
        self._abandoned: dict[int, Late | None] = {}  # timed out; their replies may still come
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._out: list[bytes] = []
        self._flush_scheduled = False
        self._paused = False
        self._told = False  # a oneway call has been made
        self.unread: list[str] = []
        self._closing: asyncio.Task[None] | None = None
        self.broken_by: Exception | None = None

    # -- life-cycle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop: the connection stands."""
        self._transport = cast(asyncio.Transport, transport)

    def transport_fileno(self) -> int:
        """Return the file descriptor of the socket, for those who watch it while no loop runs."""
        return int(self._transport.get_extra_info("socket").fileno()) if self._transport else -1

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
        self._send(self._writer.handshake(object_id, handshake), at_once=True)
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._greeting
        except TimeoutError:
            raise errors.Unavailable(f"no answer to the handshake in {timeout_s} s") from None
        answer = accepted(message)
        granted = message.annotations.get(wire.ANNOTATION_PIPELINING, b"")
        self.pipelining = self._writer.patience_told = granted[:1] == wire.PIPELINING_VERSION
        self._in_turn = not self.pipelining or granted[5:6] == b"\x01"
        if self.pipelining and len(granted) > 1:
            self._writer.size_bytes_max = int.from_bytes(granted[1:5], "big")
        return answer

    @property
    def breaking(self) -> bool:
        """True if an error ends it, of which the loop has not told yet."""
        return not self.closed and self._transport is not None and self._transport.is_closing()

    @property
    def inherited(self) -> bool:
        """True if this process was forked by the one that made the connection."""
        return os.getpid() != self._pid

    @property
    def telling(self) -> bool:
        """True if oneway calls may be among what the server has not read yet."""
        told = self._told and not self.inherited
        return told and bool(self._transport and self._transport.get_write_buffer_size())

    def abandon(self) -> None:
        """Leave an inherited connection to the parent process, which may go on using it."""
        never_free(self, self.loop)
        was_closed, self.closed = self.closed, True
        if not was_closed:
            drop_descriptor(self.transport_fileno())

    def forget(self) -> None:
        """Close as soon as no call is in flight: nobody will make more."""
        waiting = [future for future, *_ in self._pending.values() if not future.done()]
        if waiting and not self.closed:
            self._closing = self.loop.create_task(self._close_after(waiting))
        else:
            self.close()

    async def _close_after(self, waiting: list[asyncio.Future[Any]]) -> None:
        await asyncio.gather(*waiting, return_exceptions=True)
        self.close()

    def close(self, why: str = "the connection was closed by this side") -> None:
        """Send what waits, then close."""
        if self.inherited:
            self.abandon()
            return
        self.closed = True
        if self._transport is not None:
            self.close_unread()
            self._paused = False  # it leaves as far as the server reads on in time
            self._flush()
            hang_up(self._transport, self.loop, self.ended.add_done_callback)
        self._fail_all(f"{why} before the reply came")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: the connection has ended."""
        self.closed = True
        self.broken_by = exc
        self.ended.set_result(None)
        why = f"the connection broke before the reply came ({exc or 'closed by peer'})"
        self._fail_all(why, exc)

    def eof_received(self) -> bool:
        """Called by the loop: the server will send no more."""
        try:
            self.close("the connection was closed by the peer")
        except OSError as error:
            self._interrupted(error)
        return False

    def _fail_all(self, why: str, cause: Exception | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, {}
        self._abandoned.clear()
        self._out.clear()
        for future, *_ in pending.values():
            if not future.done():
                future.set_exception(calls.caused(errors.ConnectionLost(why), cause))
        if not self._greeting.done():
            self._greeting.set_exception(calls.caused(errors.Unavailable(why), cause))
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
        annotations: Annotations | None = None,
        correlation_id: bytes | None = None,
        answer: dict[str, bytes] | None = None,
        late: Late | None = None,
    ) -> SentCall:
        """Send a call, at once if it is the only one, or with all others of this turn of the loop.

        Args:
            object_id: the object to call.
            method: its method.
            args: positional arguments.
            kwargs: keyword arguments.
            timeout_s: how long to wait for the reply.
            flags: sum of ``wire.FLAG_`` bits.
            annotations: sent along.
            correlation_id: 16 bytes, or None.
            answer: takes the annotations of the reply.
            late: takes a result that nobody waits for any more, while the connection stands.

        Returns:
            A future of the result; of None, done at once, for a oneway call.

        Raises:
            Overloaded: too many calls are in flight, or too much waits to be sent.
            InvalidRequest: the server takes no message as large as this one.
            Exception: the arguments cannot be serialized.
        """
        if len(self._pending) >= INFLIGHT_MAX or len(self._out) >= UNSENT_MAX:
            raise errors.Overloaded(
                f"{len(self._pending)} calls are in flight on this connection: await some first"
            )
        seq = (self._seq + 1) & _SEQ_MASK
        while seq in self._pending or seq in self._abandoned:
            seq = (seq + 1) & _SEQ_MASK
        data = self._writer.call(
            seq, flags, object_id, method, args, kwargs, annotations, correlation_id, timeout_s
        )
        self._seq = seq
        future = SentCall(loop=self.loop) if late is None else WantedCall(late, loop=self.loop)
        self._send(data, at_once=not (self._pending or flags & wire.FLAG_ONEWAY))
        if flags & wire.FLAG_ONEWAY:
            self._told = True
            future.set_result(None)
            return future
        deadline = time.monotonic() + timeout_s
        self._pending[seq] = (future, deadline, answer, late)
        if deadline < self._timer_at:
            self._arm(deadline)
        return future

    def _send(self, data: bytes, *, at_once: bool = False) -> None:
        """Send a message now, or with all others of this turn of the loop."""
        self._out.append(data)
        if at_once:
            self._flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush)

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
        self._timer = self.loop.call_later(max(0.0, at - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        now, earliest = time.monotonic(), float("inf")
        for seq, (future, deadline, _, late) in list(self._pending.items()):
            if deadline > now:
                earliest = min(earliest, deadline)
                continue
            del self._pending[seq]
            self._abandoned[seq] = late
            if not future.done():
                future.set_exception(errors.CallTimeout("no reply came within the call's deadline"))
        if self._in_turn and None in self._abandoned.values():
            self._on_stuck(self)
        if len(self._abandoned) > ABANDONED_MAX:
            self.abort()  # a peer that never answers: a new connection is better
        elif earliest < float("inf"):
            self._arm(max(earliest, now + TIMER_STEP_S))

    # -- in

    def data_received(self, data: bytes) -> None:
        """Called by the loop: bytes have come."""
        if self.closed or self._greeting.cancelled():  # it was given up, so nobody wants them
            return
        try:
            for message in self._parser.feed(data):
                if message.type == wire.MSG_RESULT:
                    self._take(message)
                elif message.type in _GREETINGS and not self._greeting.done():
                    self._greeting.set_result(message)
                else:
                    self._give_up(f"a message of type {message.type}, which no server sends")
            if self._parser.error is not None:
                self._give_up(str(self._parser.error))
        except OSError as error:
            self._interrupted(error)

    def _interrupted(self, error: OSError) -> None:
        """Tell of what only a signal's handler can have raised: a transport keeps it to itself."""
        what = "a call's end was interrupted"
        self.loop.call_exception_handler({"message": what, "exception": error, "protocol": self})
        self.abort()

    def _give_up(self, what: str) -> None:
        """End the connection: the peer does not keep to the protocol."""
        why = f"what {peer_address(self._transport)} sent makes no sense: {what}"
        if self._greeting.done():
            log.warning("%s", why)
        else:  # whoever connects is told instead
            why += "; is it a Pyro daemon?"
        self._fail_all(why)
        self.abort()

    def abort(self) -> None:
        """End the connection at once: calls in flight fail with ``ConnectionLost``."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _take(self, message: wire.Message) -> None:
        waiting = self._pending.pop(message.seq, None)
        if waiting is None:
            self._take_late(message, self._abandoned.pop(message.seq, None))
            return
        future, deadline_s, answer, late = waiting
        if future.done():  # the caller was cancelled
            self._take_late(message, late)
            return
        if answer is not None:
            answer.update(message.annotations)
        try:
            if message.flags & wire.FLAG_STREAM:
                future.set_result(self._on_stream(calls.stream_id(message)))
                return
            result = calls.read_result(message, self._serializer)
        except Exception as error:
            future.set_exception(calls.unreadable(error))
            return
        if not message.flags & wire.FLAG_EXCEPTION:
            future.set_result(result)
        else:
            future.set_exception(calls.raised_there(result, deadline_s))
            if not self.pipelining and isinstance(result, calls.LAST_WORDS):
                self.abort()

    def _take_late(self, message: wire.Message, late: Late | None) -> None:
        if message.flags & wire.FLAG_STREAM:
            with contextlib.suppress(ValueError):
                self.unread.append(calls.stream_id(message))
            self.close_unread()
        elif late is not None and not message.flags & wire.FLAG_EXCEPTION:
            calls.take_late(late, lambda: calls.read_result(message, self._serializer))

    def close_unread(self) -> None:
        """Tell the server which streams nobody will read, so that it need not keep them."""
        while self.unread:
            unread = (self.unread.pop(),)
            with contextlib.suppress(errors.RmiError):
                self.invoke(DAEMON_NAME, "close_stream", unread, None, 0.0, wire.FLAG_ONEWAY)

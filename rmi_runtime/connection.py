"""One client's connection, server side: bytes to requests, replies to bytes.

A request's way: :meth:`ServerConnection.data_received` cuts it out of the stream, the daemon's
dispatcher carries it out, :meth:`ServerConnection.send` queues the reply, and all replies of one
turn of the loop leave in one write.

A stock client's requests are carried out one after the other. A peer that asked for pipelining gets
them carried out as they come, and answered as they finish.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from Pyro5.errors import DaemonError

from rmi_runtime import errors, serializers, wire
from rmi_runtime.context import ANONYMOUS, Identity

if TYPE_CHECKING:
    from rmi_runtime.daemon import Daemon

log = logging.getLogger(__name__)

_NEW, _GREETING, _OPEN, _CLOSED = range(4)


class ServerConnection(asyncio.Protocol):
    """The server's end of one connection.

    Attributes:
        id: number of the connection in its daemon.
        identity: who is at the other end.
        peer: the other end's address, as the socket gives it.
        pipelining: replies may leave in any order.
        instances: objects made for this connection (instance mode ``session``).
        correlation_uuid: stands in for the correlation id of calls that bring none.
        tracked_resources: objects closed when the connection ends (Pyro5's resource tracking).
    """

    def __init__(self, daemon: Daemon, number: int) -> None:
        self.id = number
        self.identity: Identity = ANONYMOUS
        self.peer: object = None
        self.pipelining = False
        self.instances: dict[type, Any] = {}
        self.tracked_resources: set[Any] = set()
        self.correlation_uuid = uuid.uuid4()
        self._daemon = daemon
        self._limits = daemon.limits
        self._parser = wire.Parser(daemon.limits.handshake_size_bytes_max)
        self._state = _NEW
        self._waiting: deque[wire.Message] = deque()
        self._busy = False
        self._tasks: dict[
            asyncio.Task[None], bool
        ] = {}  # task -> is its result awaited by the peer
        self._out: list[bytes] = []
        self._corked = False
        self._flush_scheduled = False
        self._listening = True
        self._full = False
        self._on_close: dict[object, Callable[[], None]] = {}

    # -- life-cycle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop: a client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)
        self.peer = transport.get_extra_info("peername")
        if not self._daemon.admit(self):
            self._state = _CLOSED
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: the connection has ended, for whichever reason."""
        self._state = _CLOSED
        self._waiting.clear()
        self._out.clear()
        self._daemon.dismiss(self)
        if self.pipelining:  # nobody waits for these any more; a stock daemon would finish them
            for task, awaited in list(self._tasks.items()):
                if awaited:
                    task.cancel()
        for callback in list(self._on_close.values()):
            try:
                callback()
            except Exception:
                log.exception("a callback failed at the end of connection %d", self.id)
        self._on_close.clear()
        for resource in self.tracked_resources:
            try:
                resource.close()
            except Exception:
                log.exception("a tracked resource failed to close")
        self.tracked_resources.clear()
        self.instances.clear()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have *callback* called when this connection ends.

        Returns:
            A function that takes the callback back. If the connection has ended already, the
            callback is called at once.
        """
        key = object()
        if self._state == _CLOSED:
            callback()
        else:
            self._on_close[key] = callback

        def remove() -> None:
            self._on_close.pop(key, None)

        return remove

    def close(self) -> None:
        """Send what waits, then close."""
        if self._state != _CLOSED:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    @property
    def sock(self) -> Any:
        """The socket (Pyro5's name for it)."""
        return self._transport.get_extra_info("socket")

    @property
    def inflight(self) -> int:
        """Number of calls under way."""
        return len(self._tasks)

    # -- in

    def data_received(self, data: bytes) -> None:
        """Called by the loop: bytes have come."""
        if self._state == _CLOSED:
            return
        self._corked = True
        for message in self._parser.feed(data):
            self._take(message)
        if self._parser.error is not None and self._state != _CLOSED:
            self._refuse_bytes(self._parser.error)
        elif self._parser.partial:
            self._daemon.note_partial(self)
        else:
            self._daemon.note_whole(self)
        self._corked = False
        if self._out:
            self._flush()

    def _take(self, message: wire.Message) -> None:
        if self._state == _OPEN:
            if self._waiting or self._busy:
                self._enqueue(message)
            else:
                self._carry_out(message)
        elif self._state == _NEW:
            if message.type == wire.MSG_CONNECT:
                self._greet(message)
            else:
                self._refuse_bytes(wire.WireError("expected a CONNECT message first"))
        elif self._state == _GREETING:
            self._enqueue(message)

    def _enqueue(self, message: wire.Message) -> None:
        self._waiting.append(message)
        self._choose_whether_to_listen()

    def _choose_whether_to_listen(self) -> None:
        listen = len(self._waiting) <= self._limits.connection_queue_max and not self._full
        if listen != self._listening and self._state != _CLOSED:
            self._listening = listen
            if listen:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _carry_out(self, message: wire.Message) -> None:
        if message.type == wire.MSG_INVOKE:
            full = len(self._tasks) >= self._limits.connection_inflight_max
            if full and (not self.pipelining or message.flags & wire.FLAG_ONEWAY):
                self._enqueue(message)
                return
            task = self._daemon.dispatcher.invoke(self, message, refuse=full)
            if task is not None:
                oneway = bool(message.flags & wire.FLAG_ONEWAY)
                self._tasks[task] = not oneway
                self._busy = not (self.pipelining or oneway)
                task.add_done_callback(self._task_done)
        elif message.type == wire.MSG_PING:
            self.send(
                wire.encode(
                    wire.MSG_PING,
                    message.serializer_id,
                    0,
                    message.seq,
                    b"pong",
                    correlation_id=message.correlation_id,
                )
            )
        else:
            self._refuse_bytes(wire.WireError(f"message type {message.type} was not expected here"))

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if self._tasks.pop(task) and not self.pipelining:
            self._busy = False
        if self._waiting:
            self._corked = True
            self._work_off()
            self._corked = False
            if self._out:
                self._flush()

    def _work_off(self) -> None:
        """Carry out what waited for its turn, as far as it may."""
        while self._waiting and not self._busy and self._state == _OPEN:
            if len(self._tasks) >= self._limits.connection_inflight_max:
                break
            self._carry_out(self._waiting.popleft())
        self._choose_whether_to_listen()

    def _refuse_bytes(self, error: wire.WireError) -> None:
        """Close on a peer that does not speak the protocol; no valid one is told less than why."""
        log.info("connection %d from %s closed: %s", self.id, self.peer, error)
        self._daemon.count_refusal()
        self._state = _CLOSED
        self._waiting.clear()
        self._flush()
        self._transport.close()

    # -- handshake

    def _greet(self, message: wire.Message) -> None:
        self._state = _GREETING
        try:
            serializer = self._daemon.serializer(message.serializer_id)
            data = serializer.loads(message.payload)
            if not isinstance(data, dict) or not isinstance(data.get("object"), str):
                raise errors.MalformedRequest(
                    "a handshake is a dictionary with the object's id and the handshake data"
                )
            identity = self._daemon.authenticate(data.get("handshake"), self)
        except Exception as error:
            self._reject(message, error)
            return
        if inspect.isawaitable(identity):
            task = asyncio.ensure_future(self._greet_later(message, data, identity))
            self._tasks[task] = True
            task.add_done_callback(self._tasks.pop)
        else:
            self._welcome(message, data, identity)

    async def _greet_later(
        self, message: wire.Message, data: dict[str, Any], identity: Any
    ) -> None:
        try:
            known = await identity
        except Exception as error:
            self._reject(message, error)
            return
        if self._state == _GREETING:
            self._welcome(message, data, known)

    def _welcome(self, message: wire.Message, data: dict[str, Any], identity: Identity) -> None:
        object_id = data["object"]
        try:
            reply = {
                "handshake": self._daemon.greeting(data.get("handshake"), self),
                "meta": self._daemon.objects.metadata(object_id),
            }
            payload = self._daemon.serializer(message.serializer_id).dumps(reply)
        except Exception as error:
            self._reject(message, error)
            return
        self.identity = identity
        asked = message.annotations.get(wire.ANNOTATION_PIPELINING)
        self.pipelining = asked == wire.PIPELINING_VERSION
        annotations = dict(self._daemon.annotations())
        if self.pipelining:
            annotations[wire.ANNOTATION_PIPELINING] = wire.PIPELINING_VERSION
        self._state = _OPEN
        self._parser.size_bytes_max = self._limits.message_size_bytes_max
        self._daemon.greeted(self)
        self.send(
            wire.encode(
                wire.MSG_CONNECTOK,
                message.serializer_id,
                0,
                message.seq,
                payload,
                annotations,
                message.correlation_id,
            )
        )
        self._work_off()

    def _reject(self, message: wire.Message, error: BaseException) -> None:
        self._daemon.count_refusal()
        log.info("connection %d from %s rejected: %s", self.id, self.peer, error)
        speaks = serializers.BY_ID.get(message.serializer_id) or serializers.BY_NAME["serpent"]
        code = errors.Forbidden.code
        if isinstance(error, errors.RmiError):
            code = error.code
        elif isinstance(error, DaemonError):
            code = errors.NotFound.code
        self.send(
            wire.encode(
                wire.MSG_CONNECTFAIL,
                speaks.serializer_id,
                0,
                message.seq,
                speaks.dumps(str(error)),
                {wire.ANNOTATION_REFUSAL: code.encode("ascii")},
            )
        )
        self._flush()
        self._state = _CLOSED
        self._transport.close()

    # -- out

    def send(self, data: bytes) -> None:
        """Queue one encoded message; it leaves before this turn of the loop is over."""
        self._out.append(data)
        if not self._corked and not self._flush_scheduled:
            self._flush_scheduled = True
            self._daemon.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        if self._out and not self._transport.is_closing():
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()

    def pause_writing(self) -> None:
        """Called by the loop: the client does not read its replies."""
        self._full = True
        self._choose_whether_to_listen()

    def resume_writing(self) -> None:
        """Called by the loop: the client has read on."""
        self._full = False
        self._choose_whether_to_listen()

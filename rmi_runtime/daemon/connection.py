"""One client's connection, server side: bytes to requests, replies to bytes.

A request's way: :meth:`ServerConnection.data_received` cuts it out of the stream, the daemon's
dispatcher carries it out, :meth:`ServerConnection.send` queues the reply, and all replies of one
turn of the loop leave in one write.

A stock client's requests are carried out one after the other. A peer that asked for pipelining gets
them carried out as they come, and answered as they finish; only a oneway batch, whose end nobody
hears of, is done before what was sent after it is begun. Either way one connection has a bounded
share of each turn of the loop (:mod:`~rmi_runtime.daemon.turns`), so that the others get theirs;
the rest stays bytes until then, and no more is read from its socket.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final, cast

from rmi_runtime import wire
from rmi_runtime.daemon.endings import Ending, apart
from rmi_runtime.daemon.greeting import CLOSED, GREETING, NEW, OPEN, Greeted
from rmi_runtime.daemon.objects import Instances
from rmi_runtime.daemon.turns import BURST, BURST_BYTES, BatchTurns
from rmi_runtime.hang_up import hang_up
from rmi_runtime.sparse_log import sparse_logger

if TYPE_CHECKING:
    from rmi_runtime.daemon.daemon import Daemon

log = sparse_logger(__name__)

LOOK_BYTES: Final = 16_384
"""After so many bytes of replies it is looked whether the peer reads them."""


PIECE_BYTES: Final = 65_536
"""In what pieces replies are encrypted."""


class ServerConnection(Ending, Greeted, asyncio.Protocol):
    """The server's end of one connection.

    Attributes:
        instances: objects made for this connection (instance mode ``session``).
        correlation_uuid: stands in for the correlation id of calls that bring none.
    """

    def __init__(self, daemon: Daemon, number: int) -> None:
        super().__init__()
        self.id = number
        self.peer: object = None
        self.instances = Instances()
        self.elements_max = daemon.limits.stranger_elements_max
        self.correlation_uuid = uuid.uuid4()
        self._daemon = daemon
        self._book = daemon.connections
        self._limits = daemon.limits
        self.parser = wire.Parser(daemon.limits.handshake_size_bytes_max)
        self._waiting: deque[wire.Message] = deque()
        # call -> does the peer await its result, and the size of what it sent
        self._tasks: dict[asyncio.Future[Any], tuple[bool, int]] = {}
        self._busy: object = None  # the call that is under way, if the next one waits for its end
        self._crowded = False  # so many calls are under way that the next one waits
        self._batch_turns: BatchTurns | None = None  # most connections have no batches
        self._full = False  # the client does not read its replies: it is not listened to
        self._left = False  # the client has gone, and what it sent last is still carried out
        self._listening = True
        self._going_on = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._kept_bytes = 0
        self._sent_bytes = 0  # since it was last looked whether they are read
        self._corked = False
        self._flush_scheduled = False

    def method_failed(
        self, method: Any, args: Sequence[Any], kwargs: dict[str, Any], error: Exception
    ) -> None:
        """Called where a plain method of an object has raised; for who wants to hear of it."""

    # -- life-cycle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop: a client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)
        self.peer = transport.get_extra_info("peername")
        if not self._book.admit(self):
            self._state = CLOSED
            self._transport.abort()
        self._encrypted = transport.get_extra_info("ssl_object") is not None
        if not self._encrypted:  # else it waited before the handshake
            self.hold_newcomer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: the connection has ended, for whichever reason."""
        known = self._state == OPEN or (self._state == GREETING and self._ask_at != math.inf)
        # TLS tells of the end though we do not listen: some of what came before it may wait still.
        if exc is None and known and not self._full and (self._waiting or self.parser.more):
            self._left = True
            self._go_on_soon()
        else:
            self._end(exc)

    def _end(self, exc: Exception | None = None) -> None:
        self._left = False
        self._state = CLOSED
        if exc is not None or self._full or self.parser.partial:
            self.fault()  # it ended in the middle of a message, or left replies unread
        self._waiting.clear()
        self._out.clear()
        executor = self._daemon.executor_of(self)
        self._endings.held = self._busy is not None  # with stock, that is done before the end
        self._daemon.dismiss(self)
        if self._greeter is not None:
            self._greeter.cancel()
        if self.pipelining:  # nobody waits for these any more; a stock daemon would finish them
            for task, (awaited, _) in list(self._tasks.items()):
                if awaited:
                    self._daemon.dispatcher.give_up(task)
        self._clear_up(executor)

    def _clear_up(self, executor: Executor | None) -> None:
        self._endings.happen(executor)
        if self.instances and not self._endings.held:
            apart(executor, self.instances.clear)

    def close(self) -> None:
        """Send what waits, then close."""
        if self._state != CLOSED:
            self._hang_up()

    def abort(self) -> None:
        """Close at once."""
        self._state = CLOSED
        if self._left:
            self._end()
        else:
            self._transport.abort()

    @property
    def unread_bytes(self) -> int:
        """How many bytes of results wait here for the peer to read on, or for the rest of them."""
        return self._kept_bytes + self._transport.get_write_buffer_size()

    def keep(self, size_bytes: int) -> None:
        """Note that so many more bytes of results (fewer, if negative) wait for the rest."""
        self._kept_bytes += size_bytes
        if self._kept_bytes > LOOK_BYTES and self._state != CLOSED:
            self._book.note_sent(self)

    @property
    def sock(self) -> Any:
        """The socket (Pyro5's name for it)."""
        return self._transport.get_extra_info("socket")

    # -- in

    def data_received(self, data: bytes) -> None:
        """Called by the loop: bytes have come."""
        if self._state == CLOSED:
            return
        if not self._waiting and self._may_go_on():
            message = self.parser.lone(data)
            if message is not None:
                self._take_lone(message)
                return
        whole = self.parser.feed(data, 0 if self._waiting else self._burst())
        self._waiting.extend(whole)
        self._go_on()
        if not self.parser.partial or not self._listening:
            self._book.note_whole(self)
        elif whole:
            self._book.note_partial_anew(self)
        else:
            self._book.note_partial(self)

    def _take_lone(self, message: wire.Message) -> None:
        """Carry out a message that came alone, with nothing before or after it."""
        self._daemon.turns.note(self.id)
        self._corked = True
        self._take(message)
        self._corked = False
        if self._out:
            self._flush()
        if self._waiting:  # its turn has not come yet
            self._choose_whether_to_listen()

    def _burst(self) -> int:
        # What follows a handshake is not read before that is done, and then with other bounds.
        return self._daemon.turns.burst(self.id) if self._state == OPEN else 1

    def _go_on(self) -> None:
        """Carry out what waits, as far as it may be now, and no more than a burst of it."""
        self._corked = True
        waiting, until = self._waiting, self._daemon.turns.begin(self.id)
        for _ in range(BURST):
            if not waiting:
                if not self.parser.more or not self._may_go_on():
                    break
                waiting.extend(self.parser.feed(b"", self._burst()))
                if not waiting:
                    break
            if not self._may_go_on():
                break
            self._take(waiting.popleft())
            if time.monotonic() > until or self._out_bytes > BURST_BYTES:
                break
        if self.parser.error is not None and not (waiting or self._tasks or self._held):
            self._refuse_bytes(self.parser.error)  # after the answers to what came before
        self._corked = False
        if self._out:
            self._flush()
        if (waiting or self.parser.more) and self._may_go_on():
            self._go_on_soon()
        self._choose_whether_to_listen()

    def _may_go_on(self) -> bool:
        return self._state in (OPEN, NEW) and not (
            self._busy or self._crowded or self._full or self._held
        )

    def _go_on_soon(self) -> None:
        if not self._going_on and self._state != CLOSED:
            self._going_on = True
            self._daemon.loop.call_soon(self._go_on_now)

    def _go_on_now(self) -> None:
        self._going_on = False
        self._go_on()

    def _choose_whether_to_listen(self) -> None:
        parser = self.parser
        if self._left:
            if not (self._waiting or parser.more):
                self._end()
            return
        listen = not (self._full or self._waiting or parser.more or parser.error is not None)
        if listen != self._listening and self._state != CLOSED:
            self._listening = listen
            if listen:
                self._transport.resume_reading()
                if parser.partial:
                    self._book.note_partial_anew(self)
            else:
                self._transport.pause_reading()

    def _take(self, message: wire.Message) -> None:
        if message.type == wire.MSG_INVOKE and self._state == OPEN:
            self._invoke(message)
        elif message.type == wire.MSG_CONNECT and self._state == NEW:
            self._greet(message)
        elif message.type == wire.MSG_PING and self._state == OPEN:
            id_, seq, mark = message.serializer_id, message.seq, message.correlation_id
            self.send(wire.encode(wire.MSG_PING, id_, 0, seq, b"pong", correlation_id=mark))
            self.fault()  # a few are none, but nobody has a use for fifty a second
        elif self._state == NEW:
            self._refuse_bytes(wire.WireError("expected a CONNECT message first"))
        else:
            self._refuse_bytes(wire.WireError(f"message type {message.type} was not expected here"))

    def _invoke(self, message: wire.Message) -> None:
        if self._ask_at != math.inf:  # the caller may lose its rights while it is connected
            if self._has_to_ask():
                self._waiting.appendleft(message)
                return
            if self._unknown is not None:
                self._daemon.dispatcher.refuse(self, message, self._unknown)
                return
        oneway = bool(message.flags & wire.FLAG_ONEWAY)
        full = len(self._tasks) >= self._limits.connection_inflight_max
        # Batches that wait for their turn take far more memory than those that are bytes still.
        crowd = message.flags & wire.FLAG_BATCH and self.batch_turns.crowded
        if crowd or (full and (oneway or not self.pipelining)):
            self._waiting.appendleft(message)
            self._crowded = True
            return
        size_bytes, dispatcher = len(message.payload), self._daemon.dispatcher
        full = full or not dispatcher.has_room(size_bytes)
        task = dispatcher.invoke(self, message, refuse=full)
        if task is not None:
            dispatcher.running_size_bytes += size_bytes
            self._tasks[task] = (not oneway, size_bytes)
            if message.flags & wire.FLAG_BATCH if oneway else not self.pipelining:
                self._busy = task

    def task_ended(self, task: asyncio.Future[Any]) -> None:
        """Called by the dispatcher: a call of this connection is over."""
        _, size_bytes = self._tasks.pop(task)
        self._daemon.dispatcher.running_size_bytes -= size_bytes
        if task is self._busy:
            self._busy = None
            if self._endings.held:
                self._endings.held = False
                self._clear_up(self._daemon.executor_of(self))
        self._leave_room()

    @property
    def batch_turns(self) -> BatchTurns:
        """The turns that this connection's batches take."""
        if self._batch_turns is None:
            self._batch_turns = BatchTurns(self._daemon.turns, self.id, self._leave_room)
        return self._batch_turns

    def _leave_room(self) -> None:
        self._crowded = False
        if self._waiting or self.parser.more or self.parser.error is not None:
            self._go_on_soon()

    def _refuse_bytes(self, error: wire.WireError) -> None:
        """Close on a peer that does not speak the protocol; no valid one is told less than why."""
        if self._state == CLOSED:
            return
        log.info("connection %d from %s closed: %s", self.id, self.peer, error)
        self._book.count_refusal()
        self.fault()
        self._hang_up()

    def _hang_up(self) -> None:
        """Send what waits, take nothing more, and close; at once if the client does not read."""
        self._flush()
        self._state = CLOSED
        self._waiting.clear()
        if self._left:
            self._end()
            return
        hang_up(self._transport, self._daemon.loop, self.on_close, at_once=self._full)

    # -- out

    def send(self, data: bytes) -> None:
        """Queue one encoded message; it leaves before this turn of the loop is over."""
        if self._state == CLOSED:
            return
        self._out.append(data)
        self._out_bytes += len(data)
        large = self._out_bytes > self._limits.write_buffer_bytes_max
        will_leave = self._corked or self._flush_scheduled
        if large or not (will_leave or len(self._tasks) > 1):  # no other reply comes in this turn
            self._flush()
        elif not will_leave:
            self._flush_scheduled = True
            self._daemon.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        if self._out and not self._transport.is_closing():
            unread_bytes = self._transport.get_write_buffer_size() if self._full else 0
            if unread_bytes > self._limits.unread_bytes_max:
                log.info("connection %d from %s closed: it reads no replies", self.id, self.peer)
                self._book.count_refusal()
                self._transport.abort()
            else:  # the last one may be as large as it likes: who reads it shall get it
                self._write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._sent_bytes += self._out_bytes
            if self._sent_bytes > LOOK_BYTES:
                self._sent_bytes = 0
                self._book.note_sent(self)
        self._out.clear()
        self._out_bytes = 0

    def _write(self, data: bytes) -> None:
        if not self._encrypted or len(data) <= PIECE_BYTES:
            self._transport.write(data)
            return
        # A TLS transport does not count what it has handed on. It hands on no more once that is too
        # much for the socket; but it hands on a write as a whole.
        whole = memoryview(data)
        for start in range(0, len(data), PIECE_BYTES):
            self._transport.write(whole[start : start + PIECE_BYTES])

    def pause_writing(self) -> None:
        """Called by the loop: the client does not read its replies."""
        self._full = True
        self._choose_whether_to_listen()

    def resume_writing(self) -> None:
        """Called by the loop: the client has read on."""
        self._full = False
        if self._waiting or self.parser.more:
            self._go_on_soon()
        self._choose_whether_to_listen()

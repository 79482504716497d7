"""Flow control of one connection: who may not send at the moment, and who waits for that to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final

LINGER_S: Final = 2.0
"""How long a refused client's words are still read (and dropped) after our last ones.

To close at once would make the kernel reset the connection, and the client would likely lose the
answer that says why (RFC 9112, section 9.6)."""

PART_BYTES: Final = 64 * 1024
"""Most bytes that a transport is given at once.

What it has been given is out of sight if it encrypts: a TLS transport tells neither how much of it
waits to be sent nor that anything does. So a long answer is kept here, and goes on in parts as the
peer reads; each part that it has taken is also a sign that it does read. With more than this
waiting a transport shall say so: those that encrypt would take half a megabyte before they do."""

TAKEN_BYTES: Final = 4 * 1024
"""Most bytes of one read that are taken at once.

A read may bring thousands of small requests. Taken in parts, those behind the part in which one has
to wait stay bytes, however many they are."""

_DROPPED_BYTES_MAX: Final = 8 * 1024 * 1024


class Ahead:
    """What all connections together have read and not taken yet.

    Args:
        size_bytes_max: most of it; what comes beyond is dropped.

    Attributes:
        size_bytes: of it now.
    """

    def __init__(self, size_bytes_max: int) -> None:
        self.size_bytes_max = size_bytes_max
        self.size_bytes = 0


class FlowProtocol(asyncio.Protocol):
    """Reads only while its owner wants, and lets writers wait for a slow reader.

    Args:
        clock: returns seconds, monotonic.
        ahead: of all connections.

    Attributes:
        transport: of the connection, once it is made.
        closed: the connection is gone.
        writing_paused: the other side does not read what was written.
        heard_all: the other side has said that it sends no more.
        lingering: we have said our last words.
        ending: we have, and close when all of them are sent.
        since_s: when the present state of the connection began, by the clock.
    """

    transport: asyncio.Transport

    def __init__(self, clock: Callable[[], float], ahead: Ahead) -> None:
        self.clock = clock
        self._ahead = ahead
        self.closed = False
        self.writing_paused = False
        self.heard_all = False
        self.lingering = False
        self.ending = False
        self.since_s = 0.0
        self._unsent: deque[memoryview] = deque()  # only while writing is paused
        self._unsent_bytes = 0
        self._dropped_bytes = 0
        self._kept = memoryview(b"")  # was read, and is not taken yet; no more is read meanwhile
        self._ahead_bytes = 0  # of the read that this is a part of, which holds all of its memory
        self._reading_paused = False
        self._wakers: list[asyncio.Future[None]] = []

    def data_received(self, data: bytes | memoryview) -> None:
        """Take what came; called by the event loop."""
        raise NotImplementedError

    def connection_lost(self, error: Exception | None) -> None:
        """Drop what was not sent, and let go whoever waits; called by the event loop."""
        self.closed = True
        self._unsent.clear()
        self._unsent_bytes = 0
        self._drop_kept()
        self.wake()

    def pause_writing(self) -> None:
        """Stop to listen to a peer that does not read; called by the event loop."""
        self.writing_paused = True
        self.since_s = self.clock()
        self.pause_reading()

    def resume_writing(self) -> None:
        """Go on; called by the event loop."""
        self.writing_paused = False
        self.since_s = self.clock()
        self._send_on()
        if self.writing_paused:
            return
        if self.ending:
            # Not within this call: a transport that looks whether it ends would find that it does.
            asyncio.get_running_loop().call_soon(self._end)
        if self.wants_to_read():
            self.resume_reading()
        self.wake()

    def write(self, data: bytes) -> None:
        """Send *data* after all that was written before."""
        if len(data) <= PART_BYTES and not self._unsent:
            self.transport.write(data)
            return
        self._unsent.append(memoryview(data))
        self._unsent_bytes += len(data)
        self._send_on()

    def wants_to_read(self) -> bool:
        """Whether more of what the peer sends can be taken."""
        return True

    def pause_reading(self) -> None:
        """Leave what the peer sends to the kernel, which makes it wait."""
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, unless the peer itself does not."""
        if self._reading_paused and not self.writing_paused:
            self._reading_paused = False
            self.since_s = self.clock()  # the peer could not go on before
            if self._kept:  # not within this call: it comes from what was taken before
                asyncio.get_running_loop().call_soon(self._read_on)
            else:
                self.transport.resume_reading()

    def part_size_bytes(self) -> int:
        """Return how many bytes may be taken at once now."""
        return TAKEN_BYTES

    def take_in_parts(self, data: bytes | memoryview) -> None:
        """Go on as if *data* came in parts, each when the one before left reading unpaused."""
        self._kept = memoryview(data)
        self._take_kept()
        if self._kept:
            self._ahead_bytes = len(data)
            self._ahead.size_bytes += len(data)
            if self._ahead.size_bytes > self._ahead.size_bytes_max:
                self._drop_kept()
                self.dropped_kept()

    def dropped_kept(self) -> None:
        """Tell the peer that what it sent ahead is dropped; called if there is too much of it."""
        raise NotImplementedError

    def drop(self, size_bytes: int) -> None:
        """Note that so much was read and dropped; it has a bound."""
        self._dropped_bytes += size_bytes
        if self._dropped_bytes > _DROPPED_BYTES_MAX:
            self.transport.abort()

    @property
    def unread_bytes(self) -> int:
        """How much of what was written still waits here for the peer to read on."""
        return self._unsent_bytes + self.transport.get_write_buffer_size()

    def close(self) -> None:
        """Close as soon as all that was written is sent."""
        self.since_s = self.clock()
        self._end_when_sent()

    def linger(self) -> None:
        """Say that nothing more comes from here, but read on for a while, if anything may come."""
        if self.transport.is_closing():
            return
        if self.heard_all or not self.transport.can_write_eof():
            self.close()
            return
        self.lingering = True
        self.since_s = self.clock()
        self._dropped_bytes = 0
        self._end_when_sent()
        self.resume_reading()

    async def wait_writable(self) -> None:
        """Return when the peer has read enough, or is gone."""
        while self.writing_paused and not self.closed:
            await self._waker()

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        while not self.closed:
            await self._waker()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    def _take_kept(self) -> None:
        while self._kept and not (self._reading_paused or self.transport.is_closing()):
            size_bytes = self.part_size_bytes()
            part, self._kept = self._kept[:size_bytes], self._kept[size_bytes:]
            self.data_received(part)

    def _drop_kept(self) -> None:
        self._kept = memoryview(b"")
        self._ahead.size_bytes -= self._ahead_bytes
        self._ahead_bytes = 0

    def _read_on(self) -> None:
        """Take what was kept, and then more from the transport."""
        self._take_kept()
        if self._kept:
            return
        self._drop_kept()
        if not (self._reading_paused or self.closed):
            self.transport.resume_reading()

    def _send_on(self) -> None:
        """Give the transport what it takes of what is kept."""
        # The transport closes by itself if the peer is gone; what is left goes with the connection.
        while self._unsent and not (self.writing_paused or self.transport.is_closing()):
            first = self._unsent.popleft()
            part, rest = first[:PART_BYTES], first[PART_BYTES:]
            if rest:
                self._unsent.appendleft(rest)
            self._unsent_bytes -= len(part)
            self.transport.write(part)

    def _end_when_sent(self) -> None:
        if self._unsent:
            self.ending = True
        else:
            self._end()

    def _end(self) -> None:
        self.ending = False
        if self.closed:
            return
        if self.lingering:
            with contextlib.suppress(OSError):  # the peer has gone this very moment
                self.transport.write_eof()
        else:
            self.transport.close()

    def _waker(self) -> asyncio.Future[None]:
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakers.append(waker)
        return waker

"""Flow control of one connection: who may not send at the moment, and who waits for that to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class FlowProtocol(asyncio.Protocol):
    """Reads only while its owner wants, and lets writers wait for a slow reader.

    Args:
        clock: returns seconds, monotonic.

    Attributes:
        transport: of the connection, once it is made.
        closed: the connection is gone.
        writing_paused: the other side does not read what was written.
        since_s: when the present state of the connection began, by the clock.
    """

    transport: asyncio.Transport

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.closed = False
        self.writing_paused = False
        self.since_s = 0.0
        self._reading_paused = False
        self._wakers: list[asyncio.Future[None]] = []

    def pause_writing(self) -> None:
        """Stop to listen to a peer that does not read; called by the event loop."""
        self.writing_paused = True
        self.since_s = self.clock()
        self.pause_reading()

    def resume_writing(self) -> None:
        """Go on; called by the event loop."""
        self.writing_paused = False
        self.since_s = self.clock()
        if self.wants_to_read():
            self.resume_reading()
        self.wake()

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
            self.transport.resume_reading()

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

    def _waker(self) -> asyncio.Future[None]:
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakers.append(waker)
        return waker

"""How long a connection may hold the loop before the others get their turn."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

BURST: Final = 64
"""Most messages of one connection that are carried out in one turn of the loop."""

SHARED_BURST: Final = 16
"""The same while connections take turns: reading messages takes time, before any is carried out."""

BURST_BYTES: Final = 65_536
"""Replies that end a turn, in bytes: handing them to the system takes its time, too."""

BATCH_CALLS: Final = 64
"""Most calls out of a connection's batches in one turn of the loop."""

BATCHES_WOKEN: Final = 16
"""Most batches of those that wait that are tried in one turn of the loop."""

ALONE_S: Final = 0.000_25
"""A turn's length while nobody else has anything to say, in seconds."""

SHARED_S: Final = 0.000_1
"""A turn's length while connections take turns, in seconds: it is what a call may have to wait for
each of the others."""

SHARING_S: Final = 0.01
"""How long after another connection's turn a connection is taken not to be alone, in seconds."""


class Turns:
    """The turns of one daemon's connections."""

    def __init__(self) -> None:
        self._last = -1
        self._shared_until_s = 0.0

    def note(self, connection: int) -> None:
        """Take note of a short turn: one message that came alone.

        Args:
            connection: its number in the daemon.
        """
        if connection != self._last:
            self._last = connection
            self._shared_until_s = time.monotonic() + SHARING_S

    def burst(self, connection: int) -> int:
        """Return how many messages a connection may have read in one turn."""
        alone = connection == self._last and time.monotonic() >= self._shared_until_s
        return BURST if alone else SHARED_BURST

    def begin(self, connection: int) -> float:
        """Begin a connection's turn.

        Returns:
            When it is over, by the monotonic clock: nothing is begun after that.
        """
        self.note(connection)
        now = time.monotonic()
        return now + (SHARED_S if now < self._shared_until_s else ALONE_S)


class BatchTurns:
    """Lets all batches of one connection do no more in a turn of the loop than one of them may.

    Args:
        turns: of the daemon's connections.
        connection: its number in the daemon.
        on_free: called when no batch waits any more.
    """

    def __init__(self, turns: Turns, connection: int, on_free: Callable[[], None]) -> None:
        self._turns = turns
        self._connection = connection
        self._on_free = on_free
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._woken = 0  # so many of them in this turn
        self._returned = 0  # so many of those for nothing: others used it up
        self._counting = False
        self._new = True
        self._calls = 0
        self._until_s = 0.0

    @property
    def crowded(self) -> bool:
        """True while batches wait for their turn."""
        return bool(self._waiting)

    def over(self) -> bool:
        """Count one more call; return whether it has to wait for another turn."""
        if not self._counting:
            self._counting = True
            self._loop.call_soon(self._next)
        if self._new:
            self._new, self._calls = False, 0
            self._until_s = self._turns.begin(self._connection)
        self._calls += 1
        if self._calls == 1:  # else a loop that is slow would never go on
            return False
        return self._calls > BATCH_CALLS or time.monotonic() >= self._until_s

    async def wait(self) -> None:
        """Wait until a call may be made that :meth:`over` said has to wait."""
        place = len(self._waiting)
        while True:
            turn = self._loop.create_future()
            self._waiting.insert(place, turn)
            await turn
            if not self.over():
                return
            place, self._returned = self._returned, self._returned + 1

    def _next(self) -> None:
        """The loop begins another turn."""
        self._new = True
        self._counting = bool(self._waiting)
        more = self._woken - self._returned + 1  # than had their turn
        self._woken = min(len(self._waiting), BATCHES_WOKEN, more)
        self._returned = 0
        for _ in range(self._woken):
            if not (turn := self._waiting.popleft()).done():
                turn.set_result(None)
        if self._counting:  # also for those that are woken and given up before they go on
            self._loop.call_soon(self._next)
            if not self._waiting:
                self._on_free()

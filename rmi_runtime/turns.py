"""How long a connection may hold the loop before the others get their turn."""

from __future__ import annotations

import time
from typing import Final

BURST: Final = 64
"""Most messages of one connection that are carried out in one turn of the loop."""

SHARED_BURST: Final = 16
"""The same while connections take turns: reading messages takes time, before any is carried out."""

BURST_BYTES: Final = 65_536
"""Replies that end a turn, in bytes: handing them to the system takes its time, too."""

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

"""What befalls the packets on their way to one host: they are late, lost, or cut off. Pure code.

This module and the relay's process import nothing heavy: the process starts in a moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from random import Random

CUT, DELAY, LOSS = "cut", "delay", "loss"

DELAY_S_MIN, DELAY_S_MAX = 0.06, 0.54
LOST = 0.2
"""Of all packets, that ``loss`` takes away."""

UNDER_WAY_MAX = 4096
"""Packets of up to 1,500 bytes. As in a router, what comes when there is no room is lost."""


class Way:
    """All packets on their way to one host.

    Each is late by a time of its own, so they overtake one another.

    Args:
        rng: decides who is how late, and who is lost.
        under_way_max: how many packets may be on the way.
    """

    def __init__(self, rng: Random, under_way_max: int = UNDER_WAY_MAX) -> None:
        self._rng = rng
        self._under_way_max = under_way_max
        self._under_way: list[tuple[float, int, bytes]] = []
        self._taken = 0
        self._faults: frozenset[str] = frozenset()

    def suffer(self, faults: Collection[str]) -> None:
        """Have these faults from now on: any of ``cut``, ``delay``, ``loss``.

        What is late already stays late. What would arrive during a ``cut`` is lost.
        """
        self._faults = frozenset(faults)

    def take(self, packet: bytes, now_s: float) -> None:
        """Take a packet that was sent at *now_s*."""
        if CUT in self._faults or len(self._under_way) >= self._under_way_max:
            return
        if LOSS in self._faults and self._rng.random() < LOST:
            return
        late_s = self._rng.uniform(DELAY_S_MIN, DELAY_S_MAX) if DELAY in self._faults else 0.0
        self._taken += 1
        # The number keeps packets of the same moment in the order in which they came.
        heapq.heappush(self._under_way, (now_s + late_s, self._taken, packet))

    def due(self, now_s: float) -> list[bytes]:
        """Return the packets that arrive by *now_s*, the earliest first; each only once."""
        arrived = []
        while self._under_way and self._under_way[0][0] <= now_s:
            arrived.append(heapq.heappop(self._under_way)[2])
        return [] if CUT in self._faults else arrived

    def next_s(self) -> float | None:
        """Return when the next packet arrives, or None if there is none under way."""
        return self._under_way[0][0] if self._under_way else None

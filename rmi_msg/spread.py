"""Which message goes to which logger: any, at random, but a crowd in few portions.

Why, and what it gains, is told in docs/decisions/loggers-of-a-group.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

CROWD_MESSAGES: Final = 16
"""After more messages than these, those that come in one call stay together: there is a crowd."""

CROWD_HALVED_S: Final = 0.1
"""In so many seconds half of them are forgotten: some 110 messages a second are a crowd."""

CALL_MESSAGES: Final = 128
"""In a crowd, so many messages of a call are worth a call to one more logger, and a transaction
there."""


class Spread:
    """Picks loggers for messages, and notices whether there is a crowd.

    Args:
        rng: picks; None: a source of its own.
        monotonic_s: this process's clock.
    """

    def __init__(
        self, rng: Random | None = None, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        # Spreading messages needs no secrets: the default source is fast and seeded by the system.
        self._rng = rng or Random()  # noqa: S311
        self._monotonic_s = monotonic_s
        self._came = 0.0  # messages that came lately, the fewer the longer ago
        self._came_at_s = monotonic_s()

    def places(self, count: int, names: Sequence[str]) -> dict[str, list[int]]:
        """Pick a logger at random for each of some messages that came in one call.

        Args:
            count: how many.
            names: of the loggers that there are, one at least.

        Returns:
            The places of its messages, from 0 in the order of the call, by logger.
        """
        now_s = self._monotonic_s()
        self._came *= 0.5 ** ((now_s - self._came_at_s) / CROWD_HALVED_S)
        if self._came > CROWD_MESSAGES:
            names = self._rng.sample(names, min(len(names), -(-count // CALL_MESSAGES)))
        self._came, self._came_at_s = self._came + count, now_s
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self._rng.choices(names, k=count)):
            places.setdefault(name, []).append(place)
        return places

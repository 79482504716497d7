"""What ought to be there and is not: whether a member was left behind, or it is lost.

A member that was frozen, and does not know yet that the others went on without it, answers for a
while as if it had none of what came since. So what is not there is asked for again, for as long as
such a member may live. If it is still not there, more members were lost at once than there are
backups.

A call may have less time than that. So it counts from the first time that it was missed, over calls
that follow each other.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Generic, TypeVar

ABSENT_S: Final = 5.0
"""For how long what is not there is asked for, in seconds."""

PAUSE_S: Final = 0.2
"""Pause before it is asked for again, in seconds."""

APART_S_MAX: Final = 60.0
"""Longest time between two misses of the same trouble, in seconds."""

LOST_MAX: Final = 10_000
"""How many are remembered as lost; beyond, nothing is asked for again. And how many as missed;
beyond, others wait until there is room."""

Key = TypeVar("Key", int, str)


class Missing(Generic[Key]):
    """Remembers what was missed since when, and what is lost. No clock of its own."""

    def __init__(self) -> None:
        self._missed: dict[Key, tuple[float, float]] = {}  # when first, and when last
        self._lost: set[Key] = set()

    def missed(self, keys: Collection[Key], now_s: float) -> list[Key]:
        """Note that *keys* are not there now.

        Args:
            keys: such as are not :meth:`given_up`.
            now_s: a monotonic clock.

        Returns:
            Those among them that are lost, as of now.
        """
        if len(self._missed.keys() | set(keys)) > LOST_MAX:
            self._make_room(now_s)
        lost = []
        for key in keys:
            first, last = self._missed.get(key, (now_s, now_s))
            if now_s - last > APART_S_MAX:
                first = now_s  # another trouble
            if now_s - first > ABSENT_S:
                self._missed.pop(key, None)
                lost.append(key)
            elif key in self._missed or len(self._missed) < LOST_MAX:
                self._missed[key] = first, now_s
        self._lost.update(lost)
        return lost

    def _make_room(self, now_s: float) -> None:
        """Forget those that nobody asks for now; the others stay, or none would ever be lost."""
        self._missed = {
            key: times for key, times in self._missed.items() if now_s - times[1] <= ABSENT_S
        }

    def found(self, keys: Collection[Key]) -> None:
        """Note that *keys* are there."""
        if self._missed:
            for key in keys:
                self._missed.pop(key, None)

    def given_up(self, key: Key) -> bool:
        """Return whether *key* is lost, so that it need not be asked for again."""
        return key in self._lost or len(self._lost) >= LOST_MAX

"""What ought to be there and is not: whether a member was left behind, or it is lost.

A member that was frozen, and does not know yet that the others went on without it, answers for a
while as if it had none of what came since. So what is not there is asked for again, for as long as
such a member may live. What is still not there then is lost: more members were lost at once than
there are backups.

The time counts from the first miss of a trouble, whatever was missed: a member that was left behind
is gone after it, so what is missed later in the same trouble is lost at once. Otherwise a page
with a thousand lost entries would wait for each handful of them anew, and calls that have less time
than one wait would never end. If anything that was missed is found, it was such a member, and the
trouble is over.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Final, Generic, TypeVar

ABSENT_S: Final = 5.0
"""For how long what is not there is asked for, in seconds."""

PAUSE_S: Final = 0.2
"""Pause before it is asked for again, in seconds."""

APART_S_MAX: Final = 20.0
"""Longest time between two misses of the same trouble, in seconds."""

LOST_MAX: Final = 10_000
"""How many are remembered as lost; beyond, nothing is asked for again. And how many as missed."""

Key = TypeVar("Key", int, str)


class Missing(Generic[Key]):
    """Remembers the present trouble, and what is lost. No clock of its own."""

    def __init__(self) -> None:
        self._missed: set[Key] = set()  # in this trouble; none: there is no trouble
        self._since_s = 0.0
        self._last_s = 0.0
        self._lost: set[Key] = set()

    def missed(self, keys: Collection[Key], now_s: float) -> list[Key]:
        """Note that *keys* are not there now.

        Args:
            keys: such as are not :meth:`given_up`; at least one.
            now_s: a monotonic clock.

        Returns:
            All of them if they are lost, as of now; else nothing.
        """
        if not self._missed or now_s - self._last_s > APART_S_MAX:
            self._missed.clear()
            self._since_s = now_s
        self._last_s = now_s
        self._missed.update(islice(keys, max(1, LOST_MAX - len(self._missed))))
        if now_s - self._since_s <= ABSENT_S:
            return []
        self._lost.update(keys)
        return list(keys)

    def found(self, keys: Collection[Key]) -> None:
        """Note that *keys* are there: if one of them was missed, the trouble is over."""
        if self._missed and not self._missed.isdisjoint(keys):
            self._missed.clear()

    def given_up(self, key: Key) -> bool:
        """Return whether *key* is lost, so that it need not be asked for again."""
        return key in self._lost or len(self._lost) >= LOST_MAX

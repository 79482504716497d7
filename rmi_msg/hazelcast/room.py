"""How much more may be put before the members' heaps are full of entries. Plain code.

Members measure once a second how full they are, and are asked as often. A few loggers that get long
texts fill what is left in that time, and members that run out of memory end: all of them at once,
as each has a copy of nearly everything. So what was put since the figures counts too. A logger sees
only what it puts itself: it takes the others to have put as much.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from rmi_runtime import errors

FILL_MAX: Final = 0.7
"""Share of a member's heap that entries may occupy. Beyond, it would soon run out, and end."""

COPIES: Final = 3
"""Of each entry: its owner's and two backups."""

ENTRY_BYTES: Final = 200
"""What an entry and its place in the order occupy besides its id, twice, and its value."""

_LOOKS: Final = 4
"""For so many looks at the figures what was put counts besides: looks are a second apart, and what
they find may be 2.5 s older than it seems."""

_MIB: Final = 1024 * 1024


class Room:
    """What one logger knows of the room that is left.

    Args:
        loggers: how many put at the same time, this one too.
        heap_mib: of a member's heap, until that is known, in MiB.
    """

    def __init__(self, loggers: int = 1, heap_mib: int = 256) -> None:
        self._loggers = loggers
        self._heap_bytes = heap_mib * _MIB
        self._fill = 0.0
        self._told = False  # whether the members have ever told anything
        self._members = 1
        self._put_bytes: deque[int] = deque([0], maxlen=_LOOKS)  # between the last looks

    def on_figures(self, fill: float, heap_bytes: int, members: int) -> None:
        """Take note of what the members measured.

        Args:
            fill: how full the fullest is, from 0 to 1.
            heap_bytes: of the smallest heap; 0: not all of them told.
            members: how many there are.
        """
        if heap_bytes:
            self._told = True
            self._fill, self._heap_bytes, self._members = fill, heap_bytes, max(members, 1)
        elif self._told:
            return  # those that did not tell now may be the fullest
        self._put_bytes.append(0)

    def take(self, size_bytes: int) -> None:
        """Count what is about to be put, unless there may be no room for it.

        Args:
            size_bytes: what it will occupy in a member that gets a copy of it; 0: only look.

        Raises:
            StoreFull: there may be none; it does not count.
        """
        copies = min(COPIES / self._members, 1.0)  # that one member has
        put_bytes = (sum(self._put_bytes) + size_bytes) * self._loggers * copies
        fill = self._fill + put_bytes / self._heap_bytes
        if fill > FILL_MAX:
            raise errors.StoreFull(
                f"entries occupy {self._fill:.0%} of a Hazelcast member's heap, {fill:.0%} with "
                f"what may have come since that was measured; past {FILL_MAX:.0%} nothing new is "
                "taken, since nothing is ever thrown out; put less at a time, or give the members "
                "more with --hazelcast-heap-mib",
                fill=round(fill, 4),
            )
        self._put_bytes[-1] += size_bytes

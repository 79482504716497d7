"""Who has to make way when what waits for the peers of all connections takes too much memory."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING

from rmi_runtime.daemon.faults import caller_of

if TYPE_CHECKING:
    from rmi_runtime.daemon.connection import ServerConnection


def who_makes_way(
    holding: Iterable[ServerConnection],
    size_of: Callable[[ServerConnection], int],
    size_bytes_max: int,
) -> list[ServerConnection]:
    """Return whose connections are to be closed, for the rest to be within the bound.

    Whoever has most goes first, so that nobody can push others out. Services are trusted.

    Args:
        holding: the connections that something is kept for, those that wait longest first.
        size_of: how many bytes that is.
        size_bytes_max: the bound.
    """
    waiting: dict[Hashable, deque[ServerConnection]] = {}
    sizes: dict[Hashable, int] = {}
    for connection in holding:
        caller = caller_of(connection)
        if caller is not None:
            waiting.setdefault(caller, deque()).append(connection)
            sizes[caller] = sizes.get(caller, 0) + size_of(connection)
    excess_bytes = sum(sizes.values()) - size_bytes_max
    if excess_bytes <= 0:
        return []
    # The number is for those that have as much: the one that waits longest goes.
    most = [(-size, number, caller) for number, (caller, size) in enumerate(sizes.items())]
    heapq.heapify(most)
    leaving: list[ServerConnection] = []
    while excess_bytes > 0:
        size, number, caller = most[0]
        leaving.append(waiting[caller].popleft())
        size_bytes = size_of(leaving[-1])
        heapq.heapreplace(most, (size + size_bytes, number, caller))
        excess_bytes -= size_bytes
    return leaving

"""Half messages: who has to make way when those of all connections take too much memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from rmi_runtime.faults import caller_of

if TYPE_CHECKING:
    from rmi_runtime.connection import ServerConnection


def too_many_halves(
    partial: Iterable[ServerConnection], size_bytes_max: int
) -> list[ServerConnection]:
    """Return whose connections are to be closed, for the rest to be within the bound.

    Whoever has most goes first, so that nobody can push others out. Services are trusted.

    Args:
        partial: the connections on which half a message has come, those that wait longest first.
        size_bytes_max: the bound.
    """
    waiting: dict[Hashable, deque[ServerConnection]] = {}
    sizes: dict[Hashable, int] = {}
    for connection in partial:
        caller = caller_of(connection)
        if caller is not None:
            waiting.setdefault(caller, deque()).append(connection)
            sizes[caller] = sizes.get(caller, 0) + len(connection.parser.kept)
    excess_bytes = sum(sizes.values()) - size_bytes_max
    leaving: list[ServerConnection] = []
    while excess_bytes > 0:
        greediest = max(sizes, key=sizes.__getitem__)
        leaving.append(waiting[greediest].popleft())
        size_bytes = len(leaving[-1].parser.kept)
        sizes[greediest] -= size_bytes
        excess_bytes -= size_bytes
    return leaving

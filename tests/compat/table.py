"""What a row of the table is, and the directions in which it is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.compat.world import World

Check = Callable[["World"], None]

SAME, BETTER, DIFFERENT = "same", "better", "different"


class Direction(NamedTuple):
    """Who calls whom."""

    client: str  # stock, proxy, sync
    server: str  # stock, daemon, dropin

    def __str__(self) -> str:
        return f"{self.client}→{self.server}"


DIRECTIONS = (
    Direction("stock", "stock"),  # the reference: are the expectations those of Pyro5?
    Direction("stock", "daemon"),
    Direction("stock", "dropin"),
    Direction("proxy", "stock"),
    Direction("proxy", "daemon"),
    Direction("sync", "stock"),
    Direction("sync", "daemon"),
)


@dataclass(frozen=True)
class Row:
    """One feature.

    Attributes:
        group: which part of Pyro5.
        name: what happens.
        check: shows that it does, with ours at the side it is about.
        stock: shows what stock does instead; None: stock does the same, or has no such thing.
        verdict: ``same``, ``better`` or ``different``.
        side: whose behaviour it is, if ours is not the same: ``client`` or ``server``.
        why: the reason of a difference.
        clients: which clients it makes sense with.
        servers: which servers.
    """

    group: str
    name: str
    check: Check
    stock: Check | None
    verdict: str
    side: str
    why: str
    clients: frozenset[str]
    servers: frozenset[str]

    def check_for(self, direction: Direction) -> Check | None:
        """Return what to run in this direction, or None if it makes no sense there."""
        if direction.client not in self.clients or direction.server not in self.servers:
            return None
        return self.stock if self.is_stocks_way(direction) else self.check

    def is_stocks_way(self, direction: Direction) -> bool:
        """Tell whether it is stock's other behaviour that is shown in this direction."""
        if self.verdict == SAME:
            return False
        peer = direction.client if self.side == "client" else direction.server
        return peer == "stock"


ROWS: list[Row] = []


def row(
    group: str,
    name: str,
    *,
    verdict: str = SAME,
    side: str = "server",
    why: str = "",
    stock: Check | None = None,
    clients: str = "stock proxy sync",
    servers: str = "stock daemon dropin",
) -> Callable[[Check], Check]:
    """Add a row; decorates its check."""
    assert (verdict == SAME) == (not why), f"{name}: a difference has a reason, and only that"

    def add(check: Check) -> Check:
        ROWS.append(
            Row(
                group,
                name,
                check,
                stock,
                verdict,
                side,
                why,
                frozenset(clients.split()),
                frozenset(servers.split()),
            )
        )
        return check

    return add

"""The queue's one entry, and how it is changed: by compare and set, until it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.order import Order
from rmi_msg.hazelcast.portions import Portion
from rmi_msg.hazelcast.turns import Mark, Turn, Turns, pack, unpack

_KEY: Final = "turns"

P = ParamSpec("P")


class QueueEntry:
    """Who may consume what, as all services see it.

    A claim is consumed in three steps. Its holder *marks* it, which only the holder can, and once:
    from then on it is consumed, by whoever held it. It is *entered* into the order of consumption,
    which takes each portion once, whoever enters it and however often. Then it is dropped here. So
    a holder may die anywhere: a claim without a mark goes to another, and for one that has a mark
    anybody can do the rest.

    Args:
        cluster: its maps.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._queue = cluster.queue
        self._consumed: Order = cluster.consumed_order

    async def read(self) -> tuple[str, Turns]:
        """Return the entry as it is stored, and what it says."""
        text = await self._queue.get(_KEY)
        if text is None:
            first = pack(Turns())
            text = await self._queue.put_if_absent(_KEY, first) or first
        return text, unpack(text)

    async def replace(self, old: str, new: Turns) -> bool:
        """Change the entry if it is *old*; return whether it was. If it was, all it says stays."""
        return await self._queue.replace(_KEY, old, pack(new))

    async def change(
        self,
        step: Callable[Concatenate[Turns, int, P], Turns],
        token: int,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Change claim *token*, if it is not done."""
        while True:
            text, turns = await self.read()
            # Also if it is not there: what was only seen may be out of date, or not there to stay.
            new = step(turns, token, *args, **kwargs) if turns.has(token) else turns
            if await self.replace(text, new):
                return

    async def mark(self, token: int, at: str) -> Turn | None:
        """Mark claim *token* as consumed by its holder.

        Args:
            token: of the claim.
            at: the time that is told.

        Returns:
            The claim with its mark; None if it has no holder any more.
        """
        mark = Mark(at, await self._consumed.since())  # which comes before all that is entered now
        while True:
            text, turns = await self.read()
            turn = turns.find(token)
            held = turn is not None and turn.by is not None
            if turn is not None and held and turn.mark is None:
                turns = turns.marked(token, mark)
            # Else unchanged: what was only seen may be out of date, or not be there to stay.
            if await self.replace(text, turns):
                return turns.find(token) if held else None

    async def finish(self, turn: Turn) -> None:
        """Enter a marked claim as consumed, and drop it."""
        await self.enter(turn)
        await self.change(Turns.drop, turn.token)

    async def enter(self, turn: Turn) -> None:
        """Enter a marked claim as consumed, unless it is entered already."""
        if turn.mark is None or turn.by is None:
            raise ValueError(f"claim {turn.token} has no mark")
        portion = Portion(turn.token, turn.first, turn.end, turn.by, turn.mark.at)
        await self._consumed.add([portion.packed()], turn.mark.since)

"""Put-once entries, read in the order of their arrival.

Two maps: the entries by id, and the order (:mod:`~rmi_msg.hazelcast.order`). An entry is put first,
then its id is added to the order; it counts from then on. An entry names the block that was the
last one before it was put: whoever finds it knows from where on to look for it in the order, and
adds it if it is not there. So an entry whose writer died half-way is completed by whoever puts it
again, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from rmi_msg.hazelcast.order import Order
from rmi_msg.hazelcast.room import ENTRY_BYTES
from rmi_msg.hazelcast.table import Table

PUTS_IN_FLIGHT: Final = 128
"""Entries that are put at the same time: more does not make it faster."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Entry = TypeVar("Entry", bound=msgspec.Struct)


class Records(Generic[Entry]):
    """Entries of one kind.

    Args:
        entries: the map of entries: id to JSON text.
        order: their order.
        kind: the class of the entries; it has an attribute ``block``.
    """

    def __init__(self, entries: Table[str], order: Order, kind: type[Entry]) -> None:
        self._entries = entries
        self._order = order
        self._decoder = msgspec.json.Decoder(kind)

    async def put_all(
        self,
        make: Callable[[int], dict[str, Entry]],
        admit: Callable[[int], None] = lambda size_bytes: None,
    ) -> dict[str, Entry]:
        """Put entries, each unless its id has one.

        When this returns, every id has an entry, which is in the order; both have their backups.

        Args:
            make: makes the entries by id, each with the given ``block``.
            admit: called with what they will occupy, in bytes, before any is put; may raise.

        Returns:
            The entries that were there before, by id, in place of those that were not put.
        """
        block = await self._order.since()
        entries = make(block)
        encoded = {id: msgspec.json.encode(entry) for id, entry in entries.items()}
        admit(sum(ENTRY_BYTES + 2 * len(id) + len(value) for id, value in encoded.items()))
        packed = {id: value.decode() for id, value in encoded.items()}
        known: dict[str, Entry] = {}
        add: list[str] = []
        ids, since = list(packed), block
        while ids:
            found = await in_flight(
                lambda id: self._entries.put_if_absent(id, packed[id]), ids, PUTS_IN_FLIGHT
            )
            there = {id: text for id, text in zip(ids, found, strict=True) if text is not None}
            seen = {id: self._decoder.decode(text) for id, text in there.items()}
            missing = await self._order.missing({id: _block(entry) for id, entry in seen.items()})
            since = min([since, *missing.values()])
            vanished = await self._confirm({id: there[id] for id in missing})
            known |= {id: entry for id, entry in seen.items() if id not in vanished}
            add += [id for id in ids if id not in seen or (id in missing and id not in vanished)]
            ids = list(vanished)
        if (begun := await self._order.add(add, since)) < since:
            # The cluster was begun anew meanwhile, and has no such block yet.
            mine = {id: packed[id] for id in packed if id not in known}
            await self._put_back(mine, make(begun))
        return known

    async def _put_back(self, packed: dict[str, str], entries: dict[str, Entry]) -> None:
        """Let entries that were just put name an earlier block."""
        await in_flight(
            lambda id: self._entries.replace(
                id, packed[id], msgspec.json.encode(entries[id]).decode()
            ),
            list(packed),
            PUTS_IN_FLIGHT,
        )

    async def _confirm(self, texts: dict[str, str]) -> set[str]:
        """See that entries by another, who has not added them to the order (yet), have backups.

        Returns:
            The ids that have no such entry any more: whoever told us of it was a member that the
            others had gone on without.
        """
        if not texts:
            return set()
        ids = list(texts)
        kept = await in_flight(
            lambda id: self._entries.replace(id, texts[id], texts[id]), ids, PUTS_IN_FLIGHT
        )
        return {id for id, stays in zip(ids, kept, strict=True) if not stays}

    async def find(self, ids: Iterable[str]) -> dict[str, Entry]:
        """Return the entries of some ids that count: those that are in the order."""
        entries = await self.get_all(ids)
        missing = await self._order.missing({id: _block(entry) for id, entry in entries.items()})
        return {id: entry for id, entry in entries.items() if id not in missing}

    async def get_all(self, ids: Iterable[str]) -> dict[str, Entry]:
        """Return the entries of some ids."""
        texts = await self._entries.get_all(ids)
        return {id: self._decoder.decode(text) for id, text in texts.items()}


def _block(entry: Any) -> int:
    return int(entry.block)


async def in_flight(
    step: Callable[[Item], Awaitable[Result]], items: Sequence[Item], count: int
) -> list[Result]:
    """Run *step* on all *items*, *count* at a time.

    Returns:
        The results in the order of the items.

    Raises:
        Exception: the first that a step raised; the others are cancelled.
    """
    if len(items) == 1:
        return [await step(items[0])]
    results: list[Any] = [None] * len(items)
    places = iter(range(len(items)))

    async def work() -> None:
        for place in places:
            results[place] = await step(items[place])

    # No TaskGroup: until Python 3.13, one that fails may leave a cancellation behind in its parent.
    workers = [asyncio.create_task(work()) for _ in range(min(count, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return results

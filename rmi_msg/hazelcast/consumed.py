"""The consumed store on a Hazelcast cluster: claims are entered, messages are read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from rmi_msg.hazelcast import marks, missing, portions
from rmi_msg.hazelcast.blocks import Place
from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.fetching import Fetching
from rmi_msg.hazelcast.missing import Missing
from rmi_msg.hazelcast.order import Listed
from rmi_msg.hazelcast.pages import iso, page_of
from rmi_msg.hazelcast.portions import Portion, Within
from rmi_msg.hazelcast.queue_entry import QueueEntry
from rmi_msg.hazelcast.records import in_flight
from rmi_msg.stores import Claim, Consumed, Page

log = logging.getLogger(__name__)

PORTIONS_READ: Final = 32
"""Most portions that are read at once. Each may have a thousand messages, or one: a page begins
with few, and takes twice as many each time."""

_PORTIONS_FIRST: Final = 2


class _Listed(NamedTuple):
    """A consumed message, the place behind it, and the portion that it is in, as that is listed."""

    id: str
    after: Within
    portion: Portion
    entered: Listed

    @property
    def cursor(self) -> str:
        """The place as a cursor, with the mark of its portion's end."""
        return f"{self.after}-{self.entered.block.mark(self.entered.after.offset)}"


class HazelcastConsumedStore:
    """The :class:`~rmi_msg.stores.ConsumedStore` on a cluster.

    Args:
        cluster: its maps.
        wall_clock_s: seconds since 1970, for ``consumed_at``.
    """

    def __init__(self, cluster: Cluster, wall_clock_s: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._entry = QueueEntry(cluster)
        self._fetching = Fetching()
        self._wall_clock_s = wall_clock_s
        self._missing: Missing[int] = Missing()  # tokens of portions whose ids are not there

    async def add(self, claim: Claim) -> list[bool]:
        """Enter all messages of a claim, or none if it has run out; see the protocol."""
        async with self._cluster.writing():
            turn = await self._entry.mark(claim.token, iso(self._wall_clock_s()))
            if turn is not None:
                await self._entry.enter(turn)
        return [turn is not None] * len(claim.messages)

    async def page(self, after: str | None, limit: int) -> Page[Consumed]:
        """Read a page of consumed messages; see the protocol."""
        cursor, mark = marks.split(after)
        within = portions.parse_within(cursor)
        async with self._cluster.reading():
            await self._cluster.consumed_marks.check(within.marked, mark)
            listed = await self._listed(within, limit + 1)
            portion_of = {one.id: one.portion for one in listed}

            async def fetch(ids: list[str]) -> dict[str, Consumed]:
                entries = await self._cluster.messages.get_all(ids)
                return {
                    id: Consumed(id, entry.text, portion_of[id].at, portion_of[id].by)
                    for id, entry in entries.items()
                }

            return await page_of(self._fetching, listed, limit, fetch)

    async def _listed(self, after: Within, count: int) -> list[_Listed]:
        """Return the consumed messages behind a place; fewer than *count* only at the end."""
        place, skip = after
        found: list[_Listed] = []
        ended = False
        step = _PORTIONS_FIRST
        while not ended and len(found) < count:
            # A portion has one message at least.
            wanted = min(step, count - len(found))
            step = min(2 * step, PORTIONS_READ)
            read = await self._cluster.consumed_order.read(place, wanted)
            ended = len(read) < wanted
            parts = [portions.unpack(one.id) for one in read]
            for one, part, ids in zip(
                read, parts, await in_flight(self._ids, parts, PORTIONS_READ), strict=True
            ):
                before = Place(one.after.block, one.after.offset - 1)
                afters = [Within(before, number) for number in range(1, len(ids))]
                afters.append(Within(one.after, 0))
                found += [
                    _Listed(id, after, part, one) for id, after in zip(ids, afters, strict=False)
                ][skip:]
                place, skip = one.after, 0
        return found[:count]

    async def _ids(self, portion: Portion) -> list[str]:
        """Return the ids of a portion, which must be there; none if they are lost."""
        token = portion.token
        now_s = asyncio.get_running_loop().time
        while True:
            ids = await self._cluster.message_order.between(portion.first, portion.end)
            if ids is not None:
                self._missing.found([token])
                return ids
            if self._missing.given_up(token):
                return []
            if self._missing.missed([token], now_s()):
                break
            await asyncio.sleep(missing.PAUSE_S)
        log.error(
            "which messages were consumed from %s to %s is lost: more members were lost at once "
            "than there are backups",
            portion.first,
            portion.end,
        )
        return []

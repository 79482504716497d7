"""The three interfaces of :mod:`rmi_msg.stores`, on a Hazelcast cluster."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from rmi_msg.batches import BATCH_CHARS_MAX
from rmi_msg.cluster_state import ClusterState
from rmi_msg.hazelcast import marks
from rmi_msg.hazelcast.blocks import Place, parse_cursor
from rmi_msg.hazelcast.cluster import Cluster, MessageEntry
from rmi_msg.hazelcast.consumed import HazelcastConsumedStore
from rmi_msg.hazelcast.fetching import Fetching
from rmi_msg.hazelcast.order import Listed
from rmi_msg.hazelcast.pages import iso, page_of
from rmi_msg.hazelcast.queue_entry import QueueEntry
from rmi_msg.hazelcast.turns import Turn, Turns, Watch
from rmi_msg.stores import Claim, Message, Page, Stores, Word, at_once


class HazelcastMessageStore:
    """The :class:`~rmi_msg.stores.MessageStore` on a cluster.

    Args:
        cluster: its maps.
        wall_clock_s: seconds since 1970, for ``received_at``.
    """

    def __init__(self, cluster: Cluster, wall_clock_s: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._fetching = Fetching()
        self._wall_clock_s = wall_clock_s

    async def put_many(self, messages: Sequence[tuple[str, str]], logger: str) -> list[Word]:
        """Store what is new, in the owners' memory and two backups; see the protocol."""
        texts: dict[str, str] = {}
        for id, text in messages:
            texts.setdefault(id, text)
        if not texts:
            return []
        received_at = iso(self._wall_clock_s())

        def make(block: int) -> dict[str, MessageEntry]:
            return {
                id: MessageEntry(text, received_at, logger, block) for id, text in texts.items()
            }

        room = self._cluster.room
        room.take(0)  # who is full need not be asked anything
        async with self._cluster.writing():
            known = await self._cluster.messages.put_all(make, room.take)
        return _words(messages, {id: entry.text for id, entry in known.items()})

    async def known(self, messages: Sequence[tuple[str, str]]) -> list[Word]:
        """Tell what is there, as entries that are in the order; see the protocol."""
        async with self._cluster.reading():
            known = await self._cluster.messages.find({id for id, _ in messages})
        return [
            "full" if id not in known else "same" if known[id].text == text else "other"
            for id, text in messages
        ]

    async def page(self, after: str | None, limit: int) -> Page[Message]:
        """Read a page of messages; see the protocol."""

        async def fetch(ids: list[str]) -> dict[str, Message]:
            entries = await self._cluster.messages.get_all(ids)
            return {
                id: Message(id, entry.text, entry.received_at, entry.logger)
                for id, entry in entries.items()
            }

        cursor, mark = marks.split(after)
        place = parse_cursor(cursor)
        async with self._cluster.reading():
            await self._cluster.message_marks.check(place, mark)
            listed = await self._cluster.message_order.read(place, limit + 1)
            return await page_of(self._fetching, listed, limit, fetch)


class HazelcastMessageQueue:
    """The :class:`~rmi_msg.stores.MessageQueue` on a cluster.

    Args:
        cluster: its maps.
        monotonic_s: this process's clock.
        new_token: makes the name of a claim, a number that nobody else makes.
    """

    def __init__(
        self,
        cluster: Cluster,
        monotonic_s: Callable[[], float] = time.monotonic,
        new_token: Callable[[], int] = lambda: secrets.randbits(62),
    ) -> None:
        self._cluster = cluster
        self._entry = QueueEntry(cluster)
        self._fetching = Fetching()
        self._monotonic_s = monotonic_s
        self._new_token = new_token
        self._watch = Watch()

    async def claim(self, by: str, limit: int, lease_s: float) -> Claim | None:
        """Take the next messages that nobody has; see the protocol.

        Raises:
            ValueError: *lease_s* is not above 0.
        """
        if not lease_s > 0:
            raise ValueError(f"lease_s is {lease_s}; it must be above 0")
        async with self._cluster.writing():
            while (taken := await self._take(by, limit, lease_s)) is not None:
                turn, listed = taken
                messages, end = await self._read(listed)
                if end < turn.end:
                    rest = self._new_token()
                    await self._entry.change(Turns.cut, turn.token, end, rest)
                if messages:
                    return Claim(messages, by, turn.token)
                await self._entry.change(Turns.drop, turn.token)
        return None

    async def _take(self, by: str, limit: int, lease_s: float) -> tuple[Turn, list[Listed]] | None:
        """Claim the next ids; return the claim and its ids, or None if nothing waits."""
        while True:
            text, turns = await self._entry.read()
            offered = turns.offered
            first = turns.head if offered is None else offered.first
            # Who finds nothing new comes again; what was offered is there, and must be found.
            listed = await self._cluster.message_order.read(
                first, limit, current=offered is not None
            )
            if offered is not None:
                listed = [one for one in listed if one.after <= offered.end]
            if not listed:
                if offered is None:
                    return None
                await self._entry.change(Turns.drop, offered.token)
                continue
            turn = Turn(self._new_token(), by, first, listed[-1].after, lease_s)
            if await self._entry.replace(text, turns.take(turn)):
                return turn, listed
            _, now = await self._entry.read()
            if now.has(turn.token):  # the answer to our step was lost
                return turn, listed

    async def _read(self, listed: list[Listed]) -> tuple[list[tuple[str, str]], Place]:
        """Return the messages of a claim, as many as are not too long, and the place behind."""
        messages: list[tuple[str, str]] = []
        chars = 0
        end = listed[0].after
        async for one, entry in self._fetching.fetched(listed, self._cluster.messages.get_all):
            chars += len(entry.text)
            if messages and chars > BATCH_CHARS_MAX:
                return messages, end
            messages.append((one.id, entry.text))
            end = one.after
        return messages, listed[-1].after

    async def done(self, claim: Claim) -> bool:
        """Forget a claim, if it was entered; see the protocol."""
        was = False
        async with self._cluster.writing():
            while True:
                text, turns = await self._entry.read()
                turn = turns.find(claim.token)
                if turn is None or turn.mark is None:
                    return was
                was = True
                if await self._entry.replace(text, turns.drop(claim.token)):
                    return True

    async def give_back(self, by: str) -> int:
        """Offer again what *by* holds; see the protocol."""
        return await self._offer(
            lambda turns: {turn.token for turn in turns.turns if turn.by == by}
        )

    async def sweep(self) -> int:
        """Offer again what was not done in time; see the protocol."""
        return await self._offer(lambda turns: self._watch.run_out(turns, self._monotonic_s()))

    async def _offer(self, which: Callable[[Turns], set[int]]) -> int:
        """Offer claims again; those that are marked are consumed, and finished instead."""
        async with self._cluster.writing():
            while True:
                text, turns = await self._entry.read()
                tokens = which(turns)
                if not tokens:
                    return 0
                # Also if all of them are marked: a mark may only have been seen, and vanish.
                if await self._entry.replace(text, turns.offer(tokens)):
                    break
            for turn in turns.turns:
                if turn.token in tokens and turn.mark is not None:
                    await self._entry.finish(turn)
            return len(tokens)


def stores_on(
    cluster: Cluster,
    state: Callable[[], ClusterState] | None = None,
    may_stop: Callable[[], Awaitable[None]] = at_once,
) -> Stores:
    """Return the three interfaces to *cluster*, and what it is doing, if *state* tells."""
    return Stores(
        messages=HazelcastMessageStore(cluster),
        queue=HazelcastMessageQueue(cluster),
        consumed=HazelcastConsumedStore(cluster),
        state=state,
        may_stop=may_stop,
    )


def _words(messages: Sequence[tuple[str, str]], known: dict[str, str]) -> list[Word]:
    """Tell the new from the known; *known* has the texts that were there, and grows."""
    words: list[Word] = []
    for id, text in messages:
        if id not in known:
            known[id] = text
            words.append("new")
        else:
            words.append("same" if known[id] == text else "other")
    return words

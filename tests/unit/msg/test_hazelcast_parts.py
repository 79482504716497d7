"""A cluster in two parts: one that goes on, and a member left behind that does not know it.

Every step may come upon either part, until the member left behind is gone, and with it what only it
had. What it is told it does, but its writes have no backups and are not acknowledged. What was
acknowledged must be there, once, in the part that stays; and whoever reads after that must see it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeVar
from unittest import mock

import pytest
from hazelcast.core import HazelcastJsonValue
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_msg.hazelcast import blocks as blocks_module
from rmi_msg.hazelcast import missing as missing_module
from rmi_msg.hazelcast import stores as stores_module
from rmi_msg.hazelcast import table as table_module
from rmi_msg.hazelcast.acknowledged import NoBackup
from rmi_msg.hazelcast.blocks import START, Block, pack
from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.consumed import HazelcastConsumedStore
from rmi_msg.hazelcast.fetching import Fetching
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.order import Listed, Order
from rmi_msg.hazelcast.records import Records
from rmi_msg.hazelcast.stores import HazelcastMessageQueue, stores_on
from rmi_msg.hazelcast.table import HazelcastTable
from tests.unit.msg.hazelcast_fakes import Entry

Found = TypeVar("Found")


class Parts:
    """The maps of both parts.

    Args:
        rng: which part a step comes upon.
        steps: after so many steps the member left behind is gone; it is left behind after half.
    """

    def __init__(self, rng: random.Random, steps: int) -> None:
        self.stays: dict[str, dict[Any, str]] = {}
        self._behind: dict[str, dict[Any, str]] | None = None
        self._rng = rng
        self._steps = self._left = steps

    def step(self, name: str) -> tuple[dict[Any, str], bool]:
        """Return the map that the next step comes upon, and whether its writes have backups."""
        self._left -= 1
        if self._left == self._steps // 2:
            self._behind = {map: dict(values) for map, values in self.stays.items()}
        if self._left == 0:
            self._behind = None
        if self._behind is not None and self._rng.random() < 0.5:
            return self._behind.setdefault(name, {}), False
        return self.stays.setdefault(name, {}), True


class Map:
    """What the client's map does."""

    def __init__(self, parts: Parts, name: str) -> None:
        self._parts = parts
        self._name = name

    async def get(self, key: Any) -> HazelcastJsonValue | None:
        await asyncio.sleep(0)
        values, _ = self._parts.step(self._name)
        return HazelcastJsonValue(values[key]) if key in values else None

    async def get_all(self, keys: Iterable[Any]) -> dict[Any, HazelcastJsonValue]:
        found = {key: await self.get(key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    async def put_if_absent(self, key: Any, value: HazelcastJsonValue) -> HazelcastJsonValue | None:
        await asyncio.sleep(0)
        values, backed = self._parts.step(self._name)
        if key in values:
            return HazelcastJsonValue(values[key])
        values[key] = value.to_string()
        return _acknowledge(None, backed)

    async def replace(self, key: Any, old: HazelcastJsonValue, new: HazelcastJsonValue) -> bool:
        await asyncio.sleep(0)
        values, backed = self._parts.step(self._name)
        if values.get(key) != old.to_string():
            return False
        values[key] = new.to_string()
        return _acknowledge(True, backed)


def _acknowledge(answer: Any, backed: bool) -> Any:
    if not backed:
        raise NoBackup("nobody else knows of it")
    return answer


class PartedLink(Link):
    """The way to both parts."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(["127.0.0.1:1"], "rmi")
        self._parts = parts

    async def client(self, wait_s: float = 0.0) -> Any:
        return None

    async def map(self, name: str) -> Any:
        return Map(self._parts, name)

    async def put_if_absent(self, table: Any, key: object, value: HazelcastJsonValue) -> Any:
        return await table.put_if_absent(key, value)

    async def replace(
        self, table: Any, key: object, old: HazelcastJsonValue, new: HazelcastJsonValue
    ) -> bool:
        replaced: bool = await table.replace(key, old, new)
        return replaced

    def doubt(self, why: BaseException) -> None:
        pass


def records(link: Link) -> tuple[Records[Entry], Order]:
    """Return the entries and their order as one process sees them."""
    order = Order(HazelcastTable(link, "messages.order"))
    return Records(HazelcastTable(link, "messages"), order, Entry), order


async def patiently(rng: random.Random, make: Callable[[], Awaitable[Found]]) -> Found:
    """Do something as callers do: cancelled at any step, and done again until there is an answer.

    Args:
        rng: how many steps to wait.
        make: begins it.
    """
    while True:
        doing = asyncio.ensure_future(make())
        patience = rng.randrange(5, 200)
        while not doing.done() and patience:
            patience -= 1
            await asyncio.sleep(0)
        if doing.done():
            return doing.result()
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)


@contextlib.contextmanager
def no_pauses() -> Iterator[None]:
    """Let nobody wait, and let blocks be small, so that there are many."""
    with (
        mock.patch.object(table_module, "PAUSE_S", 0),
        mock.patch.object(missing_module, "PAUSE_S", 0),
        mock.patch.object(blocks_module, "GROWING_IDS_MAX", 6),
    ):
        yield


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(2, 600),
    writers=st.integers(1, 4),
    batches=st.lists(st.integers(1, 5), min_size=1, max_size=8),
)
def test_what_was_acknowledged_is_there_once_whichever_part_was_come_upon(
    seed: int, steps: int, writers: int, batches: list[int]
) -> None:
    rng = random.Random(seed)
    parts = Parts(rng, steps)
    acknowledged: set[str] = set()

    async def write(writer: int) -> None:
        entries, _ = records(PartedLink(parts))
        for number, size in enumerate(batches):
            # Half of the ids are everybody's, as when a request is sent to two loggers.
            ids = [f"{number}-{i}" + f"-{writer}" * (i % 2) for i in range(size)]
            await patiently(
                rng,
                lambda ids=ids: entries.put_all(lambda block: {id: Entry(id, block) for id in ids}),
            )
            acknowledged.update(ids)

    async def read(entries: Records[Entry], order: Order) -> None:
        before = set(acknowledged)
        listed: list[Listed] = await order.read(START, 10_000)
        ids = [one.id for one in listed]
        assert len(ids) == len(set(ids)), "doubled"
        assert before <= set(ids), "not in the order"
        there = [one.id async for one, _ in Fetching().fetched(listed, entries.get_all)]
        assert before <= set(there), "without an entry"

    async def follow(writing: asyncio.Future[Any]) -> None:
        entries, order = records(PartedLink(parts))
        while not writing.done():
            await read(entries, order)

    async def run() -> None:
        writing = asyncio.gather(*(write(writer) for writer in range(writers)))
        await asyncio.gather(writing, follow(writing))
        for _ in range(parts._left):  # the member left behind goes, at the latest now
            parts.step("messages")
        await read(*records(PartedLink(parts)))

    with no_pauses():
        asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(2, 900),
    services=st.integers(1, 3),
    batches=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    claim_chars_max=st.sampled_from([6, 1_000_000]),
)
def test_each_acknowledged_message_is_consumed_once_whichever_part_was_come_upon(
    seed: int, steps: int, services: int, batches: list[int], claim_chars_max: int
) -> None:
    rng = random.Random(seed)
    parts = Parts(rng, steps)
    clock = itertools.count()
    handed_out: set[str] = set()

    def queue(stores_link: PartedLink) -> HazelcastMessageQueue:
        return HazelcastMessageQueue(
            Cluster(stores_link, 60.0), lambda: float(next(clock)), lambda: rng.getrandbits(62)
        )

    async def produce() -> None:
        stores = stores_on(Cluster(PartedLink(parts), 60.0))
        for number, size in enumerate(batches):
            messages = [(f"{number}-{place}", "hello") for place in range(size)]
            await patiently(rng, lambda messages=messages: stores.messages.put_many(messages, "L"))

    async def consume(name: str, producing: asyncio.Future[Any]) -> None:
        link = PartedLink(parts)
        turns, consumed = queue(link), HazelcastConsumedStore(Cluster(link, 60.0))
        idle = 0
        while idle < 3 or parts._left > 0:
            claim = await patiently(rng, lambda: turns.claim(name, 4, lease_s=20.0))
            if claim is None:
                parts.step("turns")
                idle = idle + 1 if producing.done() else 0
                if await patiently(rng, turns.sweep):
                    idle = 0
                continue
            idle = 0
            handed_out.update(id for id, _ in claim.messages)
            await patiently(rng, lambda claim=claim: consumed.add(claim))
            await patiently(rng, lambda claim=claim: turns.done(claim))

    async def run() -> None:
        producing = asyncio.ensure_future(produce())
        names = [f"msg.messages.{number}" for number in range(services)]
        await asyncio.gather(producing, *(consume(name, producing) for name in names))
        link = PartedLink(parts)
        last, consumed = queue(link), HazelcastConsumedStore(Cluster(link, 60.0))
        for _ in range(100):  # claims that nobody remembers run out
            await last.sweep()
            while (claim := await last.claim("msg.messages.last", 4, lease_s=20.0)) is not None:
                handed_out.update(id for id, _ in claim.messages)
                await consumed.add(claim)
                await last.done(claim)
        stores = stores_on(Cluster(PartedLink(parts), 60.0))
        posted = [row.id for row in (await stores.messages.page(None, 1000)).rows]
        ids = [row.id for row in (await stores.consumed.page(None, 1000)).rows]
        assert len(posted) == sum(batches)
        assert sorted(ids) == sorted(posted)
        assert handed_out == set(posted), "consumed, and not handed out"

    with no_pauses(), mock.patch.object(stores_module, "BATCH_CHARS_MAX", claim_chars_max):
        asyncio.run(run())


class OrderBehind(Parts):
    """Parts whose steps on the order come upon a member left behind, so many times.

    Attributes:
        looks: how many times yet.
        block: the only one that it knows; empty: none.
    """

    looks = 0
    block = ""

    def step(self, name: str) -> tuple[dict[Any, str], bool]:
        if name == "messages.order" and self.looks:
            self.looks -= 1
            return ({0: self.block} if self.block else {}), False
        return super().step(name)


async def test_an_offer_is_not_dropped_by_who_comes_upon_a_member_left_behind() -> None:
    parts = OrderBehind(random.Random(0), 0)
    stores = stores_on(Cluster(PartedLink(parts), 60.0))
    messages = [("a", "first"), ("b", "second")]
    with no_pauses():
        await stores.messages.put_many(messages, "msg.logger.1")
        assert await stores.queue.claim("msg.messages.1", 10, 60.0)
        assert await stores.queue.give_back("msg.messages.1") == 1
        parts.looks = 12
        claim = await stores.queue.claim("msg.messages.2", 10, 60.0)
    assert claim is not None
    assert claim.messages == messages


class QueueBehind(Parts):
    """Parts of which one step on the queue comes upon a member that knows an older state of it.

    Attributes:
        older: what it knows.
        steps_before: how many steps come upon the others before that one.
    """

    older: str = ""
    steps_before = -1

    def step(self, name: str) -> tuple[dict[Any, str], bool]:
        if name == "queue":
            self.steps_before -= 1
            if self.steps_before == -1:
                return {"turns": self.older}, False
        return super().step(name)


async def test_a_claim_is_cut_short_also_by_who_comes_upon_a_member_left_behind() -> None:
    parts = QueueBehind(random.Random(0), 0)
    stores = stores_on(Cluster(PartedLink(parts), 60.0))
    messages = [("a", "first"), ("b", "second")]
    with no_pauses(), mock.patch.object(stores_module, "BATCH_CHARS_MAX", 5):
        await stores.messages.put_many(messages, "msg.logger.1")
        assert await stores.queue.sweep() == 0
        parts.older = parts.stays["queue"]["turns"]
        parts.steps_before = 2  # the claim is made by two
        first = await stores.queue.claim("msg.messages.1", 10, 60.0)
        assert first is not None
        assert first.messages == messages[:1]
        assert await stores.consumed.add(first) == [True]
        second = await stores.queue.claim("msg.messages.1", 10, 60.0)
    assert second is not None
    assert second.messages == messages[1:]


@pytest.mark.parametrize("looks", [1, 2, 12])
async def test_a_page_of_what_was_consumed_has_nothing_that_only_a_member_left_behind_knew(
    looks: int,
) -> None:
    parts = OrderBehind(random.Random(0), 0)
    stores = stores_on(Cluster(PartedLink(parts), 60.0))
    with no_pauses():
        await stores.messages.put_many([("a", "1"), ("c", "3")], "msg.logger.1")
        claim = await stores.queue.claim("msg.messages.1", 10, 60.0)
        assert claim is not None
        await stores.consumed.add(claim)
        await stores.messages.put_many([("b", "2")], "msg.logger.1")
        # Tried first where nobody acknowledged it.
        parts.block, parts.looks = pack(Block(0, ("a", "b"))), looks
        page = await stores_on(Cluster(PartedLink(parts), 60.0)).consumed.page(None, 10)
    assert [row.id for row in page.rows] == ["a", "c"]

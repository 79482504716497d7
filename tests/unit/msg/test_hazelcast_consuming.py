"""Claims become consumed in steps, and whoever takes them may die between any two."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_msg.hazelcast import blocks as blocks_module
from rmi_msg.hazelcast import missing as missing_module
from rmi_msg.hazelcast.blocks import Place
from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.queue_entry import QueueEntry
from rmi_msg.hazelcast.stores import HazelcastMessageQueue, stores_on
from rmi_msg.hazelcast.turns import Mark, pack
from rmi_msg.stores import Claim, Consumed, Stores
from rmi_runtime.errors import InvalidRequest
from tests.unit.msg.hazelcast_fakes import LossyMap, lossy_cluster

A, B = "msg.messages.1", "msg.messages.2"
TEN = [(f"id{number}", f"text {number}") for number in range(10)]


@pytest.fixture
def cluster() -> Cluster:
    return lossy_cluster(random.Random(0))()


@pytest.fixture
async def stores(cluster: Cluster) -> Stores:
    made = stores_on(cluster)
    await made.messages.put_many(TEN, "msg.logger.1")
    return made


async def claimed(stores: Stores, by: str, limit: int = 10) -> Claim:
    claim = await stores.queue.claim(by, limit, 10.0)
    assert claim is not None
    return claim


async def all_consumed(stores: Stores, limit: int = 1000) -> list[Consumed]:
    rows: list[Consumed] = []
    after = None
    while True:
        page = await stores.consumed.page(after, limit)
        assert len(page.rows) <= limit
        rows += page.rows
        if (after := page.next) is None:
            return rows


async def test_what_was_entered_is_read_with_who_and_when(stores: Stores) -> None:
    claim = await claimed(stores, A, 4)
    assert await stores.consumed.add(claim) == [True] * 4
    assert await stores.queue.done(claim)
    rows = await all_consumed(stores)
    assert [(row.id, row.text, row.by) for row in rows] == [(*pair, A) for pair in TEN[:4]]
    assert {row.consumed_at[-1] for row in rows} == {"Z"}


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10, 1000])
async def test_pages_follow_each_other_through_claims_of_all_sizes(
    stores: Stores, limit: int
) -> None:
    for size in (1, 4, 2, 3):
        claim = await claimed(stores, A, size)
        await stores.consumed.add(claim)
    assert [(row.id, row.text) for row in await all_consumed(stores, limit)] == TEN


async def test_entering_a_claim_again_changes_nothing(stores: Stores) -> None:
    claim = await claimed(stores, A)
    assert await stores.consumed.add(claim) == [True] * 10
    assert await stores.consumed.add(claim) == [True] * 10
    assert await stores.queue.done(claim)
    assert await stores.consumed.add(claim) == [False] * 10
    assert len(await all_consumed(stores)) == 10


async def test_a_claim_that_was_not_entered_cannot_be_done(stores: Stores) -> None:
    claim = await claimed(stores, A)
    assert not await stores.queue.done(claim)
    assert await stores.queue.give_back(A) == 1
    assert (await claimed(stores, B)).messages == TEN


async def test_whoever_comes_too_late_enters_nothing(stores: Stores) -> None:
    late = await claimed(stores, A, 6)
    assert await stores.queue.give_back(A) == 1
    assert await stores.consumed.add(late) == [False] * 6
    other = await claimed(stores, B, 4)
    assert await stores.consumed.add(late) == [False] * 6
    assert await stores.consumed.add(other) == [True] * 4
    assert await stores.consumed.add(late) == [False] * 6
    assert not await stores.queue.done(late)
    assert [row.id for row in await all_consumed(stores)] == [id for id, _ in TEN[:4]]


async def test_a_claim_whose_holder_died_after_the_mark_is_entered_by_the_next(
    cluster: Cluster, stores: Stores
) -> None:
    claim = await claimed(stores, A)
    assert await QueueEntry(cluster).mark(claim.token, "2026-01-31T12:00:00.000000Z")
    assert await all_consumed(stores) == []
    assert await stores.queue.give_back(A) == 1
    rows = await all_consumed(stores)
    assert [(row.id, row.text) for row in rows] == TEN
    assert {(row.by, row.consumed_at) for row in rows} == {(A, "2026-01-31T12:00:00.000000Z")}
    assert await stores.queue.claim(B, 10, 10.0) is None


async def test_a_marked_claim_that_runs_out_is_finished_by_whoever_sweeps(
    cluster: Cluster, stores: Stores
) -> None:
    claim = await claimed(stores, A)
    assert await QueueEntry(cluster).mark(claim.token, "2026-01-31T12:00:00.000000Z")
    now_s = itertools.count(0.0, 6.0)
    other = HazelcastMessageQueue(cluster, lambda: next(now_s))
    assert [await other.sweep() for _ in range(4)] == [0, 0, 1, 0]
    assert len(await all_consumed(stores)) == 10
    assert await stores.consumed.add(claim) == [False] * 10  # it is done
    assert len(await all_consumed(stores)) == 10


class VanishingMark(LossyMap):
    """The queue's entry with a change that is seen, and lost with its owner at the next step."""

    def __init__(self, before: str, seen: str) -> None:
        super().__init__(random.Random(0))
        self._before = before
        self._seen["turns"] = seen

    async def replace(self, key: str, old: str, new: str) -> bool:
        if self._before:
            self._seen["turns"] = self._safe["turns"] = self._before
            self._before = ""
            return False
        return await super().replace(key, old, new)


async def test_a_mark_that_was_only_seen_and_then_lost_is_none(
    cluster: Cluster, stores: Stores
) -> None:
    claim = await claimed(stores, A)
    text, turns = await QueueEntry(cluster).read()
    cluster.queue = VanishingMark(text, pack(turns.marked(claim.token, Mark("now", 0))))
    stores = stores_on(cluster)
    assert await stores.queue.give_back(A) == 1
    assert await all_consumed(stores) == []
    assert (await claimed(stores, B)).messages == TEN


async def test_a_portion_whose_ids_are_lost_is_left_out(cluster: Cluster, stores: Stores) -> None:
    entry = QueueEntry(cluster)
    await stores.consumed.add(await claimed(stores, A, 4))
    lost = await claimed(stores, A, 3)
    turn = await entry.mark(lost.token, "2026-01-31T12:00:00.000000Z")
    assert turn is not None
    await entry.enter(turn)
    await stores.consumed.add(await claimed(stores, A, 3))
    between = cluster.message_order.between

    async def forgetful(first: Place, end: Place) -> list[str] | None:
        return None if first == turn.first else await between(first, end)

    with (
        mock.patch.object(cluster.message_order, "between", forgetful),
        mock.patch.object(missing_module, "ABSENT_S", 0.01),
        mock.patch.object(missing_module, "PAUSE_S", 0.001),
    ):
        rows = await all_consumed(stores, 2)
    assert [row.id for row in rows] == [id for id, _ in TEN[:4] + TEN[7:]]


@pytest.mark.parametrize("cursor", ["", "x", "1", "1.2.3.4", "1.2.x", "-1.2.3", "1..3", "1.2.³"])
async def test_a_cursor_that_was_never_given_out_is_refused(stores: Stores, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        await stores.consumed.page(cursor, 10)


async def until_death(rng: random.Random, work: Callable[[], Awaitable[None]]) -> None:
    """Let a service work until it is through or, somewhere on its way, dies."""
    working = asyncio.ensure_future(work())
    steps = rng.randrange(5, 300)
    while not working.done() and steps:
        steps -= 1
        await asyncio.sleep(0)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    if not working.cancelled():
        working.result()


async def consume_the_rest(queue: HazelcastMessageQueue, stores: Stores) -> None:
    for _ in range(60):  # claims that nobody remembers run out
        await queue.sweep()
        while (claim := await queue.claim("msg.messages.last", 4, lease_s=20.0)) is not None:
            await stores.consumed.add(claim)
            await queue.done(claim)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    services=st.integers(1, 3),
    batches=st.lists(st.integers(1, 5), min_size=1, max_size=8),
)
def test_each_message_is_consumed_once_whoever_dies_and_whatever_is_lost(
    seed: int, loss: float, services: int, batches: list[int]
) -> None:
    rng = random.Random(seed)
    view = lossy_cluster(rng, loss)
    clock = itertools.count()
    followed: list[str] = []

    def service() -> tuple[HazelcastMessageQueue, Stores]:
        seen = view()
        queue = HazelcastMessageQueue(seen, lambda: float(next(clock)), lambda: rng.getrandbits(62))
        return queue, stores_on(seen)

    async def produce() -> None:
        stores = service()[1]
        for number, size in enumerate(batches):
            await stores.messages.put_many([(f"{number}-{n}", "x") for n in range(size)], "L")

    async def life(name: str) -> None:
        queue, stores = service()
        if rng.random() < 0.5:  # it was started again at once; else its claims run out
            await queue.give_back(name)
        for _ in range(rng.randrange(1, 6)):
            await queue.sweep()
            claim = await queue.claim(name, 4, lease_s=20.0)
            if claim is not None:
                await stores.consumed.add(claim)
                await queue.done(claim)

    async def lives(name: str) -> None:
        for _ in range(6):
            await until_death(rng, lambda: life(name))

    async def follow() -> None:
        stores = service()[1]
        place = None
        for _ in range(20):
            page = await stores.consumed.page(place, 2)
            if page.next is None:
                continue
            followed.extend(row.id for row in page.rows)
            place = page.next

    async def run() -> None:
        names = [f"msg.messages.{number}" for number in range(services)]
        await asyncio.gather(produce(), follow(), *map(lives, names))
        queue, stores = service()
        await consume_the_rest(queue, stores)
        posted = [row.id for row in (await stores.messages.page(None, 1000)).rows]
        ids = [row.id for row in await all_consumed(stores)]
        assert len(posted) == sum(batches)
        assert sorted(ids) == sorted(posted), "lost, or consumed twice"
        assert ids == [row.id for row in await all_consumed(stores, 3)]
        assert ids[: len(followed)] == followed, "slipped in before a reader, or gone behind one"

    with mock.patch.object(blocks_module, "GROWING_IDS_MAX", 6):
        asyncio.run(run())

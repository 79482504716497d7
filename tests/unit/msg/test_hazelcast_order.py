"""The order of arrival on a map that loses what nobody acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_msg.hazelcast import blocks as blocks_module
from rmi_msg.hazelcast.blocks import (
    BLOCK_IDS_MAX,
    GROWING_IDS_MAX,
    START,
    Block,
    Place,
    pack,
    parse_cursor,
    unpack,
)
from rmi_msg.hazelcast.order import READ_AHEAD, Order
from rmi_runtime import errors
from tests.unit.msg.hazelcast_fakes import LossyMap


def order(loss: float = 0.0, seed: int = 0) -> tuple[Order, LossyMap]:
    blocks = LossyMap(random.Random(seed), loss)
    return Order(blocks), blocks


async def read_all(log: Order, limit: int = 7) -> list[str]:
    place, ids = START, []
    while listed := await log.read(place, limit):
        ids += [one.id for one in listed]
        place = listed[-1].after
    return ids


async def test_ids_are_read_in_the_order_in_which_they_were_added() -> None:
    log, _ = order()
    await log.add(["a", "b"], 0)
    await log.add(["c"], 0)
    assert await read_all(log) == ["a", "b", "c"]
    assert await log.count() == 3


async def test_readers_begin_no_blocks_behind_one_that_can_still_grow() -> None:
    log, blocks = order()
    await log.add(["a", "b"], 0)
    for _ in range(3):
        assert await read_all(log) == ["a", "b"]
    assert await blocks.get(1) is None


async def test_blocks_that_come_while_a_new_cluster_is_found_are_looked_at_too() -> None:
    log, blocks = order()
    ids = [f"id{n}" for n in range(6 * (GROWING_IDS_MAX + 1))]

    class Anew(LossyMap):
        """Empty when it is looked at first; a moment later others have filled it."""

        looks = 0

        async def get_all(self, keys: Iterable[int]) -> dict[int, str]:
            self.looks += 1
            return {} if self.looks == 1 else await blocks.get_all(keys)

        async def get(self, key: int) -> str | None:
            return await blocks.get(key)

        async def put_if_absent(self, key: int, value: str) -> str | None:
            return await blocks.put_if_absent(key, value)

        async def replace(self, key: int, old: str, new: str) -> bool:
            return await blocks.replace(key, old, new)

    for id in ids:
        await log.add([id], await log.last())
    assert await log.last() == 6
    # Nobody's block 2 is there; then there are seven, and block 3 has the id.
    await Order(Anew(random.Random(0))).add([ids[3 * GROWING_IDS_MAX]], since=2)
    assert await read_all(log) == ids


async def test_small_additions_share_a_block_and_a_full_one_is_closed() -> None:
    log, blocks = order()
    ids = [f"id{n}" for n in range(GROWING_IDS_MAX + 1)]
    for id in ids:
        await log.add([id], await log.last())
    first = unpack(await blocks.get(0) or "")
    assert first == Block(0, tuple(ids[:-1]), closed=True)
    assert unpack(await blocks.get(1) or "").base == GROWING_IDS_MAX
    assert await read_all(log) == ids


async def test_a_large_addition_is_cut_into_blocks() -> None:
    log, blocks = order()
    ids = [f"id{n}" for n in range(2 * BLOCK_IDS_MAX + 5)]
    await log.add(ids, 0)
    assert await read_all(log, 1000) == ids
    assert len(unpack(await blocks.get(0) or "").ids) == BLOCK_IDS_MAX


async def test_an_id_that_is_there_is_not_added_again() -> None:
    log, _ = order()
    await log.add(["a", "b"], 0)
    await log.add(["b", "c", "a"], 0)
    assert await read_all(log) == ["a", "b", "c"]


async def test_the_last_block_is_found_from_far_behind() -> None:
    blocks = LossyMap(random.Random(1))
    writer, late = Order(blocks), Order(blocks)
    assert await late.last() == 0
    for n in range(5 * READ_AHEAD):
        await writer.add([f"{n}-{i}" for i in range(GROWING_IDS_MAX)], await writer.last())
    assert await late.last() == 5 * READ_AHEAD - 1


async def test_calls_at_the_same_time_do_not_lead_each_other_past_the_last_block() -> None:
    writer, blocks = order()
    log = Order(blocks)
    assert await log.last() == 0
    for n in range(2):
        await writer.add([f"{n}-{i}" for i in range(GROWING_IDS_MAX)], 0)
    assert await asyncio.gather(*(log.last() for _ in range(5))) == [1] * 5
    assert await log.since() == 1


async def test_a_writer_notices_that_the_cluster_began_anew() -> None:
    log, blocks = order()
    for n in range(5):
        await log.add([f"{n}-{i}" for i in range(GROWING_IDS_MAX)], await log.last())
    since = await log.last()
    blocks._seen.clear()
    blocks._safe.clear()
    await log.add(["a"], since)
    assert await read_all(log) == ["a"]


async def test_missing_tells_which_ids_are_not_in_the_log() -> None:
    log, _ = order()
    for n in range(6):
        await log.add([f"{n}-{i}" for i in range(GROWING_IDS_MAX)], await log.last())
    missing = await log.missing({"0-3": 0, "5-99": 0, "none": 2, "late": 5, "4-0": 4})
    assert missing == {"none": 5, "late": 5}
    assert await log.missing({}) == {}


async def test_reading_stops_before_what_is_not_settled() -> None:
    log, blocks = order()
    await log.add(["a"], 0)
    # Another writer's step that nobody has acknowledged yet, and that will be lost.
    blocks._seen[0] = block_of("a", "ghost")
    refused = LossyMap(random.Random(0), 0.0)
    refused._seen = blocks._seen
    refused.replace = never  # type: ignore[method-assign]
    reader = Order(refused)
    reading = asyncio.create_task(reader.read(START, 10))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not reading.done()
    blocks._seen[0] = blocks._safe[0]
    del refused.replace  # type: ignore[method-assign]
    assert [one.id for one in await reading] == ["a"]


def block_of(*ids: str) -> str:
    return pack(Block(0, ids))


async def never(key: object, old: str, new: str) -> bool:
    await asyncio.sleep(0)
    return False


@pytest.mark.parametrize("cursor", ["", "1", "1.", ".1", "1.2.3", "-1.0", "a.b", "1.²", "9" * 20])
def test_a_cursor_that_was_never_given_out_is_refused(cursor: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="after"):
        parse_cursor(cursor)


def test_a_cursor_comes_back_as_the_place_it_was() -> None:
    assert parse_cursor(str(Place(12, 345))) == Place(12, 345)
    assert parse_cursor(None) == START


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.4, 0.7]),
    batches=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    writers=st.integers(1, 4),
)
def test_no_id_is_lost_doubled_or_slipped_in_before_a_reader(
    seed: int, loss: float, batches: list[int], writers: int
) -> None:
    """Writers that repeat each other's ids, and a reader that follows, under loss."""

    async def run() -> None:
        rng = random.Random(seed)
        blocks = LossyMap(rng, loss)
        told: list[str] = []
        stored: dict[str, int] = {}  # id -> the block that its entry names, whoever made that
        followed: list[str] = []
        done = asyncio.Event()

        async def write(writer: int) -> None:
            log = Order(blocks)
            since = await log.last()
            for n, size in enumerate(batches):
                # Half of the ids are everybody's, as when a request is sent to two loggers.
                ids = [f"{n}-{i}" if i % 2 else f"{n}-{i}-{writer}" for i in range(size)]
                if rng.random() < 0.5:
                    since = await log.last()
                await log.add(ids, min([stored.setdefault(id, since) for id in ids]))
                told.extend(ids)

        async def follow() -> None:
            log, place = Order(blocks), START
            while True:
                last_round = done.is_set()
                if listed := await log.read(place, rng.randrange(1, 20)):
                    followed.extend(one.id for one in listed)
                    place = listed[-1].after
                elif last_round:
                    return
                await asyncio.sleep(0)

        reader = asyncio.create_task(follow())
        await asyncio.gather(*(write(writer) for writer in range(writers)))
        done.set()
        await reader
        everything = await read_all(Order(blocks))
        assert len(everything) == len(set(everything)), "doubled"
        assert set(everything) == set(told), "lost"
        assert followed == everything, "slipped in before a reader, or gone behind one"

    # Small blocks, so that many are begun and closed.
    with mock.patch.object(blocks_module, "GROWING_IDS_MAX", 6):
        asyncio.run(run())


class StaleOnce(LossyMap):
    """A map whose next reading of several keys mixes moments: old values, then a change, then new.

    Args:
        old: what is read of some keys, as it was a moment ago.
    """

    def __init__(self, old: dict[int, str]) -> None:
        super().__init__(random.Random(0))
        self.old = old

    async def get_all(self, keys: Iterable[int]) -> dict[int, str]:
        found = await super().get_all(keys)
        old, self.old = self.old, {}
        return found | {key: text for key, text in old.items() if key in found}


async def test_a_block_that_was_read_before_its_last_change_is_read_again() -> None:
    # Closed by one writer, whose step was lost; grown and closed by another, then succeeded.
    lost = Block(0, ("a",)).shut()
    final = Block(0, ("a", "b")).shut()
    blocks = StaleOnce({0: pack(lost)})
    blocks._seen = {0: pack(final), 1: pack(final.successor(["c"]))}
    assert [one.id for one in await Order(blocks).read(START, 10)] == ["a", "b", "c"]


class LostMeanwhile(LossyMap):
    """A map that loses what was last seen of a key when somebody first tries to replace it."""

    def __init__(self, key: int, back_to: str) -> None:
        super().__init__(random.Random(0))
        self.key, self.back_to = key, back_to

    async def replace(self, key: int, old: str, new: str) -> bool:
        if key == self.key and self.back_to:
            self._seen[key], self.back_to = self.back_to, ""
        return await super().replace(key, old, new)


async def test_an_id_that_was_only_seen_and_then_lost_is_added_after_all() -> None:
    blocks = LostMeanwhile(0, pack(Block(0, ("a",))))
    blocks._seen = {0: pack(Block(0, ("a", "b")))}
    await Order(blocks).add(["b", "c"], 0)
    assert sorted(one.id for one in await Order(blocks).read(START, 10)) == ["a", "b", "c"]


async def test_an_id_that_was_only_seen_and_then_lost_is_missing() -> None:
    blocks = LostMeanwhile(0, pack(Block(0, ("a",))))
    blocks._seen = {0: pack(Block(0, ("a", "b")))}
    assert await Order(blocks).missing({"a": 0, "b": 0}) == {"b": 0}


async def a_long_log() -> tuple[LossyMap, list[str]]:
    """Return the blocks of a log of nine, and its ids."""
    log, blocks = order()
    ids = [f"id{n}" for n in range(9 * GROWING_IDS_MAX)]
    for id in ids:
        await log.add([id], await log.last())
    return blocks, ids


@pytest.mark.parametrize("lost", [1, 3, 6])
async def test_what_is_lost_in_the_middle_keeps_nobody_from_what_comes_after_it(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, ids = await a_long_log()
    gone = unpack(blocks.swap(lost, None) or "").ids
    monkeypatch.setattr("rmi_msg.hazelcast.missing.PAUSE_S", 0)
    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", -1.0)  # over at once
    async with asyncio.timeout(10):
        await read_all(Order(blocks))  # who comes to the gap takes it for the end, and begins there
        left = [id for id in ids if id not in gone]
        assert await read_all(Order(blocks)) == left
        for writer in (Order(blocks), Order(blocks)):
            new = [f"new{len(left)}-{n}" for n in range(GROWING_IDS_MAX)]
            await writer.add(new, await writer.last())
            left += new
        assert sorted(await read_all(Order(blocks))) == sorted(left)


async def test_what_does_not_fit_is_waited_for_as_long_as_a_member_left_behind_may_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 1.0
        if now_s == 4.0:
            blocks.swap(2, before)
        return now_s

    blocks, ids = await a_long_log()
    before = blocks.swap(2, pack(Block(200, ("of a member left behind",), True)))
    monkeypatch.setattr("rmi_msg.hazelcast.missing.PAUSE_S", 0)
    async with asyncio.timeout(10):
        listed = await Order(blocks, clock).read(START, 300)
    assert [one.id for one in listed] == ids[:300]
    assert now_s == 4.0


@pytest.mark.parametrize("lost", [(3,), (0,), (3, 4), (7,), (2, 3, 4)])
@pytest.mark.parametrize("first", ["writer", "reader"])
async def test_what_is_added_after_a_loss_is_behind_all_that_readers_have_passed(
    lost: tuple[int, ...], first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.missing.PAUSE_S", 0)
    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", -1.0)  # over at once
    blocks, ids = await a_long_log()
    follower, writer = Order(blocks), Order(blocks)
    place = (await follower.read(START, len(ids)))[-1].after
    for number in lost:
        blocks.swap(number, None)
    writer._last = max(0, lost[0] - 1)  # it has not looked since that was the last one
    if first == "reader":
        await read_all(Order(blocks))  # who comes to the gap begins there
    async with asyncio.timeout(10):
        for new in ("a", "b", "c"):
            await writer.add([new], await writer.last())
            assert [one.id for one in await follower.read(place, 10)] == [new]
            place = (await follower.read(place, 10))[-1].after

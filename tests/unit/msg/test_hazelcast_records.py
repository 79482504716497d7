"""Entries and their order, also when a member answers that the others went on without."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import msgspec
import pytest

from rmi_msg.hazelcast.blocks import GROWING_IDS_MAX, START
from rmi_msg.hazelcast.order import Order
from rmi_msg.hazelcast.records import Records
from tests.unit.msg.hazelcast_fakes import Entry, LossyMap


class Forgetful(LossyMap):
    """Says once of each key what a member had that gave way to the others since.

    Args:
        stale: what it had.
    """

    def __init__(self, stale: dict[str, str]) -> None:
        super().__init__(random.Random(0))
        self._stale = stale

    async def put_if_absent(self, key: Any, value: str) -> str | None:
        stale = self._stale.pop(key, None)
        return stale if stale is not None else await super().put_if_absent(key, value)


def records(entries: LossyMap) -> tuple[Records[Entry], Order]:
    order = Order(LossyMap(random.Random(0)))
    return Records(entries, order, Entry), order


def made(*ids: str) -> Any:
    return lambda block: {id: Entry(f"text of {id}", block) for id in ids}


async def ids_in(order: Order) -> list[str]:
    return [one.id for one in await order.read(START, 100)]


async def test_entries_are_put_once_and_stand_in_the_order_of_their_arrival() -> None:
    entries, order = records(LossyMap(random.Random(0)))
    assert await entries.put_all(made("b", "a")) == {}
    assert await entries.put_all(made("a", "c")) == {"a": Entry("text of a", 0)}
    assert await ids_in(order) == ["b", "a", "c"]


async def test_an_entry_whose_writer_ended_before_its_place_in_the_order_is_not_found() -> None:
    table = LossyMap(random.Random(0))
    entries, order = records(table)
    await entries.put_all(made("a", "b"))
    await table.put_if_absent("c", msgspec.json.encode(Entry("text of c", 0)).decode())
    assert await entries.find(["a", "c", "d"]) == {"a": Entry("text of a", 0)}
    assert await ids_in(order) == ["a", "b"]


@pytest.mark.parametrize("stale", [("a",), ("b",), ("a", "b", "c")])
async def test_an_entry_that_only_a_member_left_behind_had_is_put_again(
    stale: tuple[str, ...],
) -> None:
    # Put by us into a part of the cluster that did not acknowledge it, and asked for again there.
    text = {id: msgspec.json.encode(Entry(f"text of {id}", 0)).decode() for id in stale}
    entries, order = records(Forgetful(text))
    known = await entries.put_all(made("a", "b", "c"))
    assert set(await entries.get_all(["a", "b", "c"])) == {"a", "b", "c"}
    assert sorted(await ids_in(order)) == ["a", "b", "c"]
    assert known == {}


async def test_what_came_at_the_same_time_and_comes_again_later_stands_in_the_order_once() -> None:
    texts, blocks = LossyMap(random.Random(0)), LossyMap(random.Random(0))
    clock = itertools.count()  # whoever asks for the last block always looks
    one, other = (
        Records(texts, Order(blocks, lambda: float(next(clock))), Entry) for _ in range(2)
    )
    full = [[f"{n}-{i}" for i in range(GROWING_IDS_MAX)] for n in range(5)]
    await one.put_all(made("first"))
    await other.put_all(made(*full[0]))  # in a block that *one* has not seen
    ids = [f"id{n}" for n in range(9)]
    await asyncio.gather(*(one.put_all(made(id)) for id in ids))
    for more in full[1:]:
        await other.put_all(made(*more))
    for id in ids:
        assert set(await other.put_all(made(id))) == {id}
    listed = [one.id for one in await Order(blocks).read(START, 10_000)]
    assert len(listed) == len(set(listed))


class BegunAnew(LossyMap):
    """Entries of a cluster that is lost as the next one is put, and begun anew.

    Args:
        blocks: of its order.
    """

    def __init__(self, blocks: LossyMap) -> None:
        super().__init__(random.Random(0))
        self.blocks: LossyMap | None = blocks

    async def put_if_absent(self, key: Any, value: str) -> str | None:
        if (blocks := self.blocks) is not None:
            self.blocks = None
            for lost in (self._seen, self._safe, blocks._seen, blocks._safe):
                lost.clear()
        return await super().put_if_absent(key, value)


async def test_what_was_put_as_a_cluster_was_begun_anew_is_known_when_it_comes_again() -> None:
    blocks = LossyMap(random.Random(0))
    texts, order = BegunAnew(blocks), Order(blocks)
    for n in range(3):
        await order.add([f"{n}-{i}" for i in range(GROWING_IDS_MAX)], 0)
    entries = Records(texts, order, Entry)
    assert await entries.put_all(made("a", "b")) == {}
    for n in range(5):
        await entries.put_all(made(*(f"{n}-{i}" for i in range(GROWING_IDS_MAX))))
    assert set(await entries.put_all(made("a", "b"))) == {"a", "b"}
    listed = [one.id for one in await order.read(START, 10_000)]
    assert len(listed) == len(set(listed))

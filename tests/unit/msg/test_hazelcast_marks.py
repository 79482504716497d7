"""A cursor of a log that is lost is told from one of the log that was begun anew in its place."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rmi_msg.errors import LogBegunAnew
from rmi_msg.hazelcast.blocks import GROWING_IDS_MAX
from rmi_msg.hazelcast.cluster import MESSAGES, ORDER_SUFFIX, Cluster
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.stores import Page, Stores
from rmi_runtime import errors
from tests.unit.msg.hazelcast_fakes import HereLink, LossyMap

Maps = dict[str, LossyMap]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.missing.PAUSE_S", 0)
    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", -1.0)  # over at once


def stores_and_maps() -> tuple[Stores, Maps]:
    maps: Maps = {}

    def table(name: str) -> LossyMap:
        return maps.setdefault(name, LossyMap(random.Random(0)))

    return stores_on(Cluster(HereLink(), 60.0, open_table=table)), maps


def lose_everything(maps: Maps) -> None:
    for one in maps.values():
        for key in list(one._seen):
            one.swap(key, None)


async def post(stores: Stores, name: str, count: int) -> None:
    for n in range(count):
        await stores.messages.put_many([(f"{name}{n}", f"text {name}{n}")], "L")


async def consume_all(stores: Stores) -> None:
    while (claim := await stores.queue.claim("M", 7, 10)) is not None:
        await stores.consumed.add(claim)
        await stores.queue.done(claim)


Read = Callable[[str | None, int], Awaitable[Page[Any]]]


def reads(stores: Stores) -> list[Read]:
    return [stores.messages.page, stores.consumed.page]


@pytest.mark.parametrize("new", [0, 3, 40, 2 * GROWING_IDS_MAX])
@pytest.mark.parametrize("passed", [1, 10, GROWING_IDS_MAX + 20])
async def test_a_cursor_of_a_lost_log_is_refused_however_long_the_new_one_is(
    new: int, passed: int
) -> None:
    stores, maps = stores_and_maps()
    await post(stores, "old", passed + 1)
    await consume_all(stores)
    cursors = [(await read(None, passed)).next for read in reads(stores)]
    lose_everything(maps)
    await post(stores, "new", new)
    await consume_all(stores)
    for read, cursor in zip(reads(stores), cursors, strict=True):
        assert cursor is not None
        with pytest.raises(LogBegunAnew, match="without after") as refused:
            await read(cursor, 10)
        assert refused.value.fields["field"] == "after"
        assert len((await read(None, 1000)).rows) == new


async def test_each_cursor_stays_good_while_the_log_grows() -> None:
    stores, _ = stores_and_maps()
    await post(stores, "a", 30)
    await consume_all(stores)
    cursors: list[list[str]] = []
    for read in reads(stores):
        pages = [await read(None, count) for count in range(1, 30)]
        cursors.append([page.next for page in pages if page.next is not None])
        assert len(cursors[-1]) == 29
    await post(stores, "b", 2 * GROWING_IDS_MAX)
    await consume_all(stores)
    for read, its in zip(reads(stores), cursors, strict=True):
        ids = [row.id for row in (await read(None, 1000)).rows]
        for passed, cursor in enumerate(its, 1):
            assert [row.id for row in (await read(cursor, 5)).rows] == ids[passed : passed + 5]


async def test_a_cursor_without_a_mark_is_taken_as_it_is() -> None:
    stores, _ = stores_and_maps()
    await post(stores, "a", 5)
    await consume_all(stores)
    assert [row.id for row in (await stores.messages.page("0.3", 5)).rows] == ["a3", "a4"]
    assert [row.id for row in (await stores.consumed.page("0.0.3", 5)).rows] == ["a3", "a4"]


@pytest.mark.parametrize("after", ["0.1-", "0.1-12", "0.1-" + "G" * 16, "-" + "0" * 16])
async def test_a_mark_that_was_never_given_out_is_refused(after: str) -> None:
    stores, _ = stores_and_maps()
    for read in reads(stores):
        with pytest.raises(errors.InvalidRequest, match="no cursor"):
            await read(after, 5)


async def test_a_member_left_behind_does_not_make_a_cursor_bad(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", 60.0)
    stores, maps = stores_and_maps()
    await post(stores, "a", 5)
    cursor = (await stores.messages.page(None, 4)).next
    blocks = maps[MESSAGES + ORDER_SUFFIX]
    get, asked = blocks.get, 0

    async def left_behind(key: Any) -> str | None:
        nonlocal asked
        asked += 1
        return None if asked < 4 else await get(key)

    monkeypatch.setattr(blocks, "get", left_behind)
    assert [row.id for row in (await stores.messages.page(cursor, 5)).rows] == ["a4"]

"""The store, the queue and the consumed store on real members."""

from __future__ import annotations

import asyncio

import pytest

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.map_stats import gather_map_statistics
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.stores import Consumed, Message, Stores
from rmi_runtime import errors
from tests.hazelcast import Members

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(180)]


async def read_all(stores: Stores, limit: int = 1000) -> list[Message]:
    rows, after = [], None
    while True:
        page = await stores.messages.page(after, limit)
        rows += page.rows
        if (after := page.next) is None:
            return rows


async def test_ten_messages_are_ten_entries_and_twenty_backups(stores: Stores, link: Link) -> None:
    words = await stores.messages.put_many([(f"id{n}", f"msg{n}") for n in range(10)], "L")
    assert words == ["new"] * 10
    statistics = await gather_map_statistics(await link.client(), "messages")
    assert len(statistics.rows) == 3
    assert (statistics.total.entries, statistics.total.backups) == (10, 20)
    assert statistics.total.backup_memory_bytes == 2 * statistics.total.entry_memory_bytes
    assert statistics.safety.losses == 2


async def test_a_message_is_kept_once_and_its_first_text_stays(stores: Stores) -> None:
    put = stores.messages.put_many
    assert await put([("a", "one"), ("a", "one"), ("a", "two")], "L1") == ["new", "same", "other"]
    assert await put([("b", "x"), ("a", "two"), ("a", "one")], "L2") == ["new", "other", "same"]
    rows = (await stores.messages.page(None, 10)).rows
    assert [(row.id, row.text, row.logger) for row in rows] == [
        ("a", "one", "L1"),
        ("b", "x", "L2"),
    ]
    assert rows[0].received_at.endswith("Z")


async def test_loggers_that_get_the_same_messages_at_once_keep_each_once(
    members: Members, stores: Stores
) -> None:
    messages = [(f"id{n}", f"text {n}") for n in range(300)]
    async with Link(members.addresses, "rmi") as other_link:
        await other_link.client(wait_s=30)
        other = stores_on(Cluster(other_link, 8.0))
        both = await asyncio.gather(
            *(one.messages.put_many(messages, "L") for one in (stores, other) for _ in range(3))
        )
    assert sum(words.count("new") for words in both) == 300
    assert sorted(row.id for row in await read_all(stores)) == sorted(id for id, _ in messages)


async def test_an_entry_whose_logger_died_half_way_is_completed_by_the_next(
    stores: Stores, link: Link
) -> None:
    await stores.messages.put_many([("a", "x")], "L")
    entry = '{"text":"y","received_at":"2026-01-01T00:00:00.000000Z","logger":"L","block":0}'
    from hazelcast.core import HazelcastJsonValue

    await (await link.map("messages")).put_if_absent("b", HazelcastJsonValue(entry))
    assert [row.id for row in await read_all(stores)] == ["a"]
    assert await stores.messages.put_many([("b", "y")], "L") == ["same"]
    assert [row.id for row in await read_all(stores)] == ["a", "b"]


async def test_pages_follow_each_other_without_gap_or_repeat(stores: Stores) -> None:
    ids = [f"id{n:04}" for n in range(2500)]
    for start in (0, 1, 2, 50, 1500):
        end = {0: 1, 1: 2, 2: 50, 50: 1500, 1500: 2500}[start]
        await stores.messages.put_many([(id, "x") for id in ids[start:end]], "L")
    assert [row.id for row in await read_all(stores, 333)] == ids
    single, after = [], None
    for _ in range(60):
        page = await stores.messages.page(after, 1)
        single += [row.id for row in page.rows]
        after = page.next
    assert single == ids[:60]


async def test_long_texts_make_short_pages(stores: Stores) -> None:
    text = "x" * 256 * 1024
    await stores.messages.put_many([(f"id{n}", text) for n in range(20)], "L")
    first = await stores.messages.page(None, 1000)
    assert len(first.rows) == 16
    assert first.next is not None
    assert len((await stores.messages.page(first.next, 1000)).rows) == 4
    claim = await stores.queue.claim("M", 1000, 10)
    assert claim is not None
    assert len(claim.messages) == 16
    rest = await stores.queue.claim("M", 1000, 10)
    assert rest is not None
    assert len(rest.messages) == 4


async def test_a_cursor_that_was_never_given_out_is_refused(stores: Stores) -> None:
    with pytest.raises(errors.InvalidRequest):
        await stores.messages.page("nonsense", 10)


async def test_each_message_is_claimed_by_one_service_and_consumed_once(stores: Stores) -> None:
    ids = [f"id{n}" for n in range(500)]
    await stores.messages.put_many([(id, f"text of {id}") for id in ids], "L")

    async def consume(by: str) -> int:
        count = 0
        while (claim := await stores.queue.claim(by, 40, 10)) is not None:
            assert all(text == f"text of {id}" for id, text in claim.messages)
            assert all(await stores.consumed.add(claim))
            assert await stores.queue.done(claim)
            count += len(claim.messages)
        return count

    assert sum(await asyncio.gather(consume("M1"), consume("M2"), consume("M3"))) == 500
    rows: list[Consumed] = (await stores.consumed.page(None, 1000)).rows
    assert sorted(row.id for row in rows) == sorted(ids)
    assert {row.by for row in rows} <= {"M1", "M2", "M3"}


async def test_a_claim_given_back_goes_to_the_next_unless_it_was_entered(stores: Stores) -> None:
    await stores.messages.put_many([("a", "x"), ("b", "y"), ("c", "z")], "L")
    entered = await stores.queue.claim("M1", 1, 10)
    left = await stores.queue.claim("M1", 2, 10)
    assert entered is not None
    assert left is not None
    assert await stores.queue.claim("M2", 10, 10) is None
    assert await stores.consumed.add(entered) == [True]
    assert await stores.queue.give_back("M1") == 2
    again = await stores.queue.claim("M2", 1, 10)
    assert again is not None
    assert again.messages == [("b", "y")]
    assert await stores.consumed.add(left) == [False, False]
    assert await stores.consumed.add(again) == [True]
    assert await stores.queue.done(again)
    rest = await stores.queue.claim("M2", 10, 10)
    assert rest is not None
    assert rest.messages == [("c", "z")]
    assert not await stores.queue.done(entered)
    rows = (await stores.consumed.page(None, 10)).rows
    assert [(row.id, row.text, row.by) for row in rows] == [("a", "x", "M1"), ("b", "y", "M2")]


async def test_an_entry_that_is_put_again_and_again_has_two_backups_each_time(
    stores: Stores, link: Link
) -> None:
    for _ in range(3):
        await stores.messages.put_many([("a", "x")], "L")
    total = (await gather_map_statistics(await link.client(), "messages")).total
    assert (total.entries, total.backups) == (1, 2)


async def test_what_is_posted_after_a_loss_is_read_and_consumed_by_who_had_passed_its_place(
    members: Members, stores: Stores, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", -1.0)  # over at once
    async with Link(members.addresses, "rmi") as other_link:
        await other_link.client(wait_s=30)
        quiet = stores_on(Cluster(other_link, 8.0))
        for block in range(5):
            await stores.messages.put_many([(f"{block}-{n}", "x") for n in range(101)], "L1")
            if block == 2:
                await quiet.messages.put_many([("2-0", "x")], "L2")  # and knows no later block
        while (claim := await stores.queue.claim("M", 1000, 10)) is not None:
            await stores.consumed.add(claim)
            await stores.queue.done(claim)
        passed = (await stores.messages.page(None, 504)).next
        await (await link.map("messages.order")).remove(3)  # as if its members had been lost
        for id in ("a", "b"):
            assert await quiet.messages.put_many([(id, "x")], "L2") == ["new"]
            assert (await stores.messages.page(passed, 10)).rows[-1].id == id
            later = await stores.queue.claim("M", 1000, 10)
            assert later is not None
            assert later.messages == [(id, "x")]

"""The promises of the stores, each asked of every store built in."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from rmi_msg import checks
from rmi_msg.stores import Claim, Page, Stores, sqlite_tables
from rmi_msg.stores.opening import open_stores
from rmi_msg.stores.sqlite import FILE_NAME, SqliteDatabase, SqliteMessageQueue, SqliteMessageStore
from rmi_msg.stores.sqlite_tables import LEASE_S_MAX, TEXT_CHARS_MAX
from rmi_runtime import Settings, errors
from tests.support import Clock

A, B = "msg.messages.1", "msg.messages.2"
TEN = [(f"id{n}", f"msg{n}") for n in range(1, 11)]


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with open_stores(Settings(data_dir=tmp_path / "new")) as opened:
        yield opened


async def read_all(stores: Stores, limit: int = 1000) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    page = await stores.messages.page(None, limit)
    found += [(m.id, m.text) for m in page.rows]
    while page.next is not None:
        page = await stores.messages.page(page.next, limit)
        found += [(m.id, m.text) for m in page.rows]
    return found


async def test_messages_are_read_in_their_order_of_arrival_page_by_page(stores: Stores) -> None:
    for start in range(0, 10, 4):
        words = await stores.messages.put_many(TEN[start : start + 4], f"msg.logger.{start}")
        assert set(words) == {"new"}
    for limit in (1, 3, 5, 10, 1000):
        assert await read_all(stores, limit) == TEN
    page = await stores.messages.page(None, 5)
    assert [m.logger for m in page.rows] == ["msg.logger.0"] * 4 + ["msg.logger.4"]
    assert (await stores.messages.page(page.next, 5)).next is None  # ten of ten were read


async def test_an_empty_store_has_one_empty_page(stores: Stores) -> None:
    assert await stores.messages.put_many([], "msg.logger.1") == []
    assert await stores.messages.page(None, 10) == Page([], None)
    assert await stores.consumed.page(None, 10) == Page([], None)


async def test_a_repeated_id_is_one_message_and_the_first_text_stays(stores: Stores) -> None:
    put = stores.messages.put_many
    assert await put([("1", "a"), ("2", "b")], "msg.logger.1") == ["new", "new"]
    assert await put([("2", "b"), ("3", "c"), ("1", "z")], "msg.logger.2") == [
        "same",
        "new",
        "other",
    ]
    assert await put([("1", "a")], "msg.logger.2") == ["same"]
    assert await read_all(stores) == [("1", "a"), ("2", "b"), ("3", "c")]


async def test_within_one_batch_the_first_of_two_equal_ids_counts(stores: Stores) -> None:
    words = await stores.messages.put_many(
        [("1", "a"), ("1", "a"), ("1", "b"), ("2", "b")], "msg.logger.1"
    )
    assert words == ["new", "same", "other", "new"]
    assert await read_all(stores) == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "é😀\n", " ", "'; DROP TABLE messages; --"])
async def test_texts_come_back_as_they_were_put(stores: Stores, text: str) -> None:
    assert await stores.messages.put_many([("1", text)], "msg.logger.1") == ["new"]
    assert await stores.messages.put_many([("1", text)], "msg.logger.1") == ["same"]
    assert await stores.messages.put_many([("1", text + "x")], "msg.logger.1") == ["other"]
    assert await read_all(stores) == [("1", text)]


async def test_a_page_has_a_bound_on_its_text_as_well(stores: Stores) -> None:
    text = "x" * checks.TEXT_SIZE_BYTES_MAX
    large = [(str(n), text) for n in range(40)]
    await stores.messages.put_many(large, "msg.logger.1")
    page = await stores.messages.page(None, 1000)
    assert len(page.rows) == TEXT_CHARS_MAX // len(text)
    assert await read_all(stores) == large
    claim = await stores.queue.claim(A, 1000, 10)
    assert claim is not None
    assert len(claim.messages) == TEXT_CHARS_MAX // len(text)


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "١", "9" * 19, " 1", "1; DROP TABLE messages"])
async def test_a_cursor_that_no_page_gave_is_refused(stores: Stores, after: str) -> None:
    for read in (stores.messages.page, stores.consumed.page):
        with pytest.raises(errors.InvalidRequest) as refused:
            await read(after, 10)
        assert refused.value.fields["field"] == "after"


async def test_times_are_utc_and_rise(stores: Stores) -> None:
    for pair in TEN:
        await stores.messages.put_many([pair], "msg.logger.1")
    times = [m.received_at for m in (await stores.messages.page(None, 10)).rows]
    assert times == sorted(times)
    assert all(len(at) == 27 and at.endswith("Z") and at[10] == "T" for at in times)


async def claimed(stores: Stores, by: str, limit: int = 1000) -> Claim:
    claim = await stores.queue.claim(by, limit, 10)
    assert claim is not None
    return claim


async def consumed(stores: Stores) -> list[tuple[str, str, str]]:
    return [(c.id, c.text, c.by) for c in (await stores.consumed.page(None, 1000)).rows]


async def test_each_message_is_handed_to_one_service_in_order(stores: Stores) -> None:
    assert await stores.queue.claim(A, 3, 10) is None
    await stores.messages.put_many(TEN, "msg.logger.1")
    claims = [await claimed(stores, by, 4) for by in (A, B, A)]
    assert [list(c.messages) for c in claims] == [TEN[:4], TEN[4:8], TEN[8:]]
    assert await stores.queue.claim(B, 4, 10) is None


async def test_a_repeated_message_is_not_handed_out_again(stores: Stores) -> None:
    await stores.messages.put_many(TEN, "msg.logger.1")
    await claimed(stores, A)
    await stores.messages.put_many(TEN, "msg.logger.2")
    assert await stores.queue.claim(B, 4, 10) is None


async def test_what_is_consumed_is_entered_once_with_its_consumer(stores: Stores) -> None:
    await stores.messages.put_many(TEN, "msg.logger.1")
    first, second = await claimed(stores, A, 6), await claimed(stores, B, 6)
    assert await stores.consumed.add(second) == [True] * 4
    assert await stores.consumed.add(first) == [True] * 6
    assert await stores.consumed.add(first) == [False] * 6
    assert await stores.queue.done(first)
    assert await stores.queue.done(second)
    expected = [(*m, B) for m in TEN[6:]] + [(*m, A) for m in TEN[:6]]
    assert await consumed(stores) == expected
    page = await stores.consumed.page(None, 4)
    rest = await stores.consumed.page(page.next, 6)
    assert [(c.id, c.text, c.by) for c in page.rows + rest.rows] == expected
    assert rest.next is None


async def test_a_holder_that_starts_anew_gets_its_claims_back_at_once(stores: Stores) -> None:
    await stores.messages.put_many(TEN, "msg.logger.1")
    await claimed(stores, A, 4)
    other = await claimed(stores, B, 4)
    assert await stores.queue.give_back(A) == 1
    assert await stores.queue.give_back(A) == 0
    assert list((await claimed(stores, A)).messages) == TEN[:4]
    assert await stores.queue.done(other)  # others keep theirs


async def test_what_is_offered_again_is_taken_oldest_first(stores: Stores) -> None:
    await stores.messages.put_many(TEN, "msg.logger.1")
    for _ in range(3):
        await claimed(stores, A, 2)
    assert await stores.queue.give_back(A) == 3
    again = [await claimed(stores, B, 2) for _ in range(4)]
    assert [m for claim in again for m in claim.messages] == TEN[:8]


async def test_a_claim_given_back_can_be_taken_in_parts(stores: Stores) -> None:
    await stores.messages.put_many(TEN, "msg.logger.1")
    whole = await claimed(stores, A)
    await stores.consumed.add(whole)
    await stores.queue.give_back(A)
    parts = [await claimed(stores, B, 3) for _ in range(4)]
    assert [m for part in parts for m in part.messages] == TEN
    assert await stores.queue.claim(B, 3, 10) is None
    assert not await stores.queue.done(whole)
    assert [await stores.consumed.add(part) for part in parts[:2]] == [[False] * 3] * 2
    assert all([await stores.queue.done(part) for part in parts])


async def test_a_partly_consumed_claim_is_entered_for_the_rest(stores: Stores) -> None:
    await stores.messages.put_many(TEN, "msg.logger.1")
    first = await claimed(stores, A, 3)
    await stores.queue.give_back(A)
    part = await claimed(stores, B, 2)
    await stores.consumed.add(part)
    assert await stores.consumed.add(first) == [False, False, True]


@pytest.mark.parametrize("lease_s", [0, -1, LEASE_S_MAX + 1])
async def test_a_lease_has_bounds(stores: Stores, lease_s: float) -> None:
    with pytest.raises(ValueError, match="lease_s"):
        await stores.queue.claim(A, 1, lease_s)


async def test_an_unknown_store_is_refused_by_name(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    object.__setattr__(settings, "store", "paper")
    with pytest.raises(errors.InvalidRequest, match=r"'paper'.*sqlite"):
        open_stores(settings)


# --- what only SQLite promises ------------------------------------------------------------------


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path / FILE_NAME)
    await database.open()
    yield database
    await database.close()


async def test_a_claim_runs_out_with_its_lease(database: SqliteDatabase) -> None:
    clock = Clock()
    queue = SqliteMessageQueue(database, clock.ns)
    await SqliteMessageStore(database).put_many(TEN, "msg.logger.1")
    old = await queue.claim(A, 10, lease_s=5)
    assert old is not None
    clock.now_s += 5
    assert await queue.sweep() == 0
    clock.now_s += 0.001
    assert await queue.sweep() == 1
    assert await queue.sweep() == 0
    new = await queue.claim(B, 10, lease_s=5)
    assert new is not None
    assert new.messages == old.messages
    assert not await queue.done(old)  # the new holder's claim is not the old one's to end
    clock.now_s += 6
    assert await queue.sweep() == 1


async def test_claims_from_before_a_reboot_run_out_at_once(database: SqliteDatabase) -> None:
    clock = Clock(now_s=1_000_000)
    queue = SqliteMessageQueue(database, clock.ns)
    await SqliteMessageStore(database).put_many(TEN, "msg.logger.1")
    await queue.claim(A, 10, lease_s=LEASE_S_MAX)
    assert await queue.sweep() == 0
    clock.now_s = 10  # the monotonic clock starts anew
    assert await queue.sweep() == 1


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    async with open_stores(settings) as stores:
        await stores.messages.put_many(TEN, "msg.logger.1")
        claim = await claimed(stores, A, 4)
        await stores.consumed.add(claim)
        await stores.queue.done(claim)
    async with open_stores(settings) as stores:
        assert await read_all(stores) == TEN
        assert [id for id, _, _ in await consumed(stores)] == [id for id, _ in TEN[:4]]
        assert list((await claimed(stores, B)).messages) == TEN[4:]


async def test_closed_stores_are_one_file_that_can_be_copied(tmp_path: Path) -> None:
    async with open_stores(Settings(data_dir=tmp_path)) as stores:
        await stores.messages.put_many(TEN, "msg.logger.1")
    assert not list(tmp_path.glob(f"{FILE_NAME}-*"))
    async with open_stores(Settings(data_dir=tmp_path)) as stores:
        assert await read_all(stores) == TEN


async def test_a_file_of_a_later_format_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(errors.Conflict, match="format 99"):
        async with open_stores(Settings(data_dir=tmp_path)):
            pass


async def test_a_store_that_cannot_be_written_says_so_definitely_and_changes_nothing(
    database: SqliteDatabase,
) -> None:
    store = SqliteMessageStore(database)

    def fill_the_disk(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await database._writer.run(fill_the_disk)
    large = [(str(n), "x" * 10_000) for n in range(20)]
    with pytest.raises(errors.StoreFull, match=r"messages\.sqlite .* full; nothing was written"):
        await store.put_many(large, "msg.logger.1")
    assert (await store.page(None, 10)).rows == []
    await database._writer.run(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
    assert await store.put_many(large, "msg.logger.1") == ["new"] * 20


async def test_a_commit_that_fails_leaves_doubt_and_the_same_ids_settle_it(
    database: SqliteDatabase,
) -> None:
    store = SqliteMessageStore(database)

    class Torn:
        """A connection whose disk fails at the commit."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection
            self.in_transaction = True

        def execute(self, statement: str) -> object:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return self._connection.execute(statement)

    def tear(connection: sqlite3.Connection) -> None:
        database._transact(Torn(connection), lambda: None)  # type: ignore[arg-type]

    with pytest.raises(errors.Interrupted, match="disk I/O error") as torn:
        await database._writer.run(tear)
    assert not torn.value.definite
    assert await store.put_many(TEN, "msg.logger.1") == ["new"] * 10


async def test_databases_opened_at_once_on_a_new_file_all_open(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        opened = await asyncio.gather(
            *(stack.enter_async_context(open_stores(Settings(data_dir=tmp_path))) for _ in range(8))
        )
        await asyncio.gather(
            *(s.messages.put_many([pair], "l") for s, pair in zip(opened, TEN, strict=False))
        )
        assert sorted(await read_all(opened[0])) == sorted(TEN[:8])


async def test_an_opening_that_is_cancelled_keeps_its_turn_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    create = sqlite_tables.create

    def create_slowly(connection: sqlite3.Connection) -> None:
        entered.set()
        assert go_on.wait(10)
        create(connection)

    monkeypatch.setattr(sqlite_tables, "create", create_slowly)
    database = SqliteDatabase(tmp_path / FILE_NAME)
    opening = asyncio.create_task(database.open())
    assert await asyncio.to_thread(entered.wait, 10)
    opening.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    others = os.open(tmp_path / f"{FILE_NAME}.turn", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(others, fcntl.LOCK_EX | fcntl.LOCK_NB)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    fcntl.flock(others, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(others)
    await database.close()

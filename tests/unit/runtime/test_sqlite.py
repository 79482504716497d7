"""The thread that hides SQLite: order, errors, waiters that leave, and the end."""

from __future__ import annotations

import asyncio
import errno
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rmi_runtime import SqliteThread, errors, lengthen_log, open_reader
from rmi_runtime.files.sqlite import ROOM_LEAST
from tests.support import eventually


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS lines (n INTEGER PRIMARY KEY) STRICT")


def _add(connection: sqlite3.Connection, *numbers: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO lines VALUES (?)", [(n,) for n in numbers])
    connection.execute("COMMIT")


def _all(connection: sqlite3.Connection) -> list[int]:
    return [n for (n,) in connection.execute("SELECT n FROM lines ORDER BY n")]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteThread]:
    store = SqliteThread(tmp_path / "store.db", _set_up)
    await store.start()
    yield store
    await store.close()


def _threads() -> list[str]:
    """Name the threads of this module's files: other tests leave stores open that were deleted."""
    ours = ("sqlite store.db", "sqlite directory.db")
    return [thread.name for thread in threading.enumerate() if thread.name in ours]


async def test_jobs_run_one_after_the_other_in_order(store: SqliteThread) -> None:
    seen: list[int] = []
    await asyncio.gather(*[store.run(lambda _, n: seen.append(n), n) for n in range(1000)])
    assert seen == list(range(1000))


async def test_results_and_keyword_arguments_come_through(store: SqliteThread) -> None:
    def job(connection: sqlite3.Connection, one: int, *, other: int) -> int:
        return one + other

    assert await store.run(job, 1, other=2) == 3


async def test_a_commit_is_there_for_readers_and_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteThread(path, _set_up)
    await store.start()
    await store.run(_add, 1, 2)
    reader = open_reader(path)
    assert _all(reader) == [1, 2]
    with pytest.raises(sqlite3.OperationalError, match=r"readonly|read-only|query_only"):
        reader.execute("INSERT INTO lines VALUES (3)")
    reader.close()
    await store.close()
    again = SqliteThread(path, _set_up)
    await again.start()
    assert await again.run(_all) == [1, 2]
    await again.close()


async def test_it_is_durable_by_setting(store: SqliteThread) -> None:
    def pragmas(connection: sqlite3.Connection) -> tuple[str, int, int]:
        journal, synchronous, foreign = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        )
        return journal, synchronous, foreign

    assert await store.run(pragmas) == ("wal", 2, 1)


async def test_an_exception_rolls_back_and_reaches_the_caller(store: SqliteThread) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO lines VALUES (1)")
        raise KeyError("half-way")

    with pytest.raises(KeyError, match="half-way"):
        await store.run(half)
    await store.run(_add, 2)
    assert await store.run(_all) == [2]


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(1), KeyboardInterrupt()])
async def test_what_a_future_cannot_carry_becomes_a_runtime_error(
    store: SqliteThread, error: BaseException
) -> None:
    def job(_: sqlite3.Connection) -> None:
        raise error

    with pytest.raises(RuntimeError, match=type(error).__name__):
        await store.run(job)
    assert await store.run(_all) == []


async def test_a_waiter_that_leaves_does_not_stop_the_job(store: SqliteThread) -> None:
    gate, begun = threading.Event(), threading.Event()

    def blocked(connection: sqlite3.Connection) -> None:
        begun.set()
        gate.wait(10)
        _add(connection, 1)

    first = asyncio.ensure_future(store.run(blocked))
    second = asyncio.ensure_future(store.run(_add, 2))
    await eventually(begun.is_set)
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    gate.set()
    assert await store.run(_all) == [1, 2]


async def test_too_many_waiting_jobs_are_refused_and_not_queued(tmp_path: Path) -> None:
    gate, begun = threading.Event(), threading.Event()

    def blocked(_: sqlite3.Connection) -> None:
        begun.set()
        gate.wait(10)

    store = SqliteThread(tmp_path / "store.db", _set_up, jobs_max=2)
    await store.start()
    waiting = [asyncio.ensure_future(store.run(blocked))]
    await eventually(begun.is_set)
    waiting += [asyncio.ensure_future(store.run(_add, n)) for n in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(errors.Unavailable, match="2 calls wait"):
        await store.run(_add, 3)
    gate.set()
    await asyncio.gather(*waiting)
    assert await store.run(_all) == [1, 2]
    await store.close()


async def test_close_finishes_what_waits_and_refuses_what_comes_later(store: SqliteThread) -> None:
    adding = [asyncio.ensure_future(store.run(_add, n)) for n in range(20)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    with pytest.raises(errors.Unavailable, match="closed"):
        await store.run(_add, 99)
    await closing
    await asyncio.gather(*adding)
    await store.close()
    assert not _threads()


async def test_a_store_that_cannot_be_opened_says_so_and_leaves_no_thread(tmp_path: Path) -> None:
    store = SqliteThread(tmp_path / "no" / "such" / "directory.db")
    with pytest.raises(sqlite3.OperationalError):
        await store.start()
    with pytest.raises(errors.Unavailable):
        await store.run(_all)
    await eventually(lambda: not _threads())


async def test_a_set_up_that_fails_leaves_no_thread_and_no_lock(tmp_path: Path) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN EXCLUSIVE")
        raise ValueError("no set-up today")

    store = SqliteThread(tmp_path / "store.db", fails)
    with pytest.raises(ValueError, match="today"):
        await store.start()
    await eventually(lambda: not _threads())
    store._setup = _set_up
    await store.start()  # once the reason is gone, the same one may be started
    await store.run(_add, 2)
    await store.close()
    other = SqliteThread(tmp_path / "store.db", _set_up)
    await other.start()
    await other.run(_add, 1)
    await other.close()


async def test_a_start_that_is_cancelled_leaves_no_thread(tmp_path: Path) -> None:
    gate = threading.Event()
    store = SqliteThread(tmp_path / "store.db", lambda _: gate.wait(10) and None)
    starting = asyncio.ensure_future(store.start())
    await eventually(_threads)
    starting.cancel()
    await asyncio.wait([starting])
    gate.set()
    await eventually(lambda: not _threads())


async def test_it_closes_where_no_other_thread_is_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = SqliteThread(tmp_path / "store.db", _set_up)
    await store.start()
    adding = asyncio.ensure_future(store.run(_add, 1))
    await asyncio.sleep(0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    await store.close()
    await adding
    assert not _threads()


async def test_it_starts_once(store: SqliteThread) -> None:
    with pytest.raises(RuntimeError, match="already"):
        await store.start()


async def test_a_file_that_is_no_database_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "bank.sqlite"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(errors.Conflict, match=r"bank\.sqlite is damaged, .*good copy"):
        await SqliteThread(path, _set_up).start()


@pytest.mark.parametrize("name", ["store.db", "store.db-wal"])
async def test_a_directory_where_a_file_should_be_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        await SqliteThread(tmp_path / "store.db", _set_up).start()
    assert caught.value.filename == str(tmp_path / name)


async def test_a_schema_with_a_name_that_is_no_text_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "bank.sqlite"
    store = SqliteThread(path, _set_up)
    await store.start()
    await store.close()
    content = path.read_bytes()
    assert b"tablelineslines" in content
    path.write_bytes(content.replace(b"tablelines", b"table\xe4ines"))
    with pytest.raises(errors.Conflict, match=r"bank\.sqlite is damaged, .*good copy"):
        await SqliteThread(path, _set_up).start()


PAGES = 64


def _log_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


async def test_commits_write_over_a_lengthened_log_and_do_not_make_it_longer(
    tmp_path: Path,
) -> None:
    path = tmp_path / "numbers.sqlite"
    store = SqliteThread(path, _set_up)
    await store.start()
    cached = await store.run(_value, "cache_size")
    await store.run(lengthen_log, PAGES)
    long_bytes = _log_bytes(path)
    assert long_bytes >= PAGES * 4096
    for number in range(PAGES // 2):
        await store.run(_add, number)
    assert _log_bytes(path) == long_bytes
    assert await store.run(_all) == list(range(PAGES // 2))
    assert await store.run(_value, "cache_size") == cached
    tables = await store.run(lambda it: it.execute("SELECT name FROM sqlite_master").fetchall())
    assert ("filling",) not in tables
    await store.close()


async def test_what_was_committed_into_a_lengthened_log_is_found_after_a_crash(
    tmp_path: Path,
) -> None:
    path, left = tmp_path / "numbers.sqlite", tmp_path / "left.sqlite"
    store = SqliteThread(path, _set_up)
    await store.start()
    await store.run(_add, 1)
    await store.run(lengthen_log, PAGES)
    await store.run(_add, 2)
    for end in ("", "-wal"):  # as a killed process leaves them
        left.with_name(f"left.sqlite{end}").write_bytes(
            path.with_name(f"{path.name}{end}").read_bytes()
        )
    await store.close()
    again = SqliteThread(left)
    await again.start()
    assert await again.run(_all) == [1, 2]
    await again.close()


async def test_a_log_that_is_long_enough_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    store = SqliteThread(path, _set_up)
    await store.start()
    await store.run(lengthen_log, PAGES)
    before = path.with_name(f"{path.name}-wal").read_bytes()
    await store.run(lengthen_log, PAGES // 2)
    assert path.with_name(f"{path.name}-wal").read_bytes() == before
    await store.close()


async def test_a_log_that_finds_no_room_stays_short_and_the_store_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "numbers.sqlite"
    store = SqliteThread(path, _set_up)
    await store.start()
    await store.run(_value, "max_page_count = 8")
    await store.run(lengthen_log, PAGES)
    assert _log_bytes(path) == 0, "it gives back what it took"
    assert "was not lengthened" in caplog.text
    await store.run(_add, 1)
    assert await store.run(_all) == [1]
    await store.close()


async def test_a_log_leaves_the_room_to_others_where_there_is_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "numbers.sqlite"
    store = SqliteThread(path, _set_up)
    await store.start()
    before = _log_bytes(path)
    free = ROOM_LEAST * PAGES * 4096
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda where: usage._replace(free=free - 1))
    await store.run(lengthen_log, PAGES)
    assert _log_bytes(path) == before
    monkeypatch.setattr(shutil, "disk_usage", lambda where: usage._replace(free=free))
    await store.run(lengthen_log, PAGES)
    assert _log_bytes(path) > before
    await store.close()


def _value(connection: sqlite3.Connection, setting: str) -> int:
    value: int = connection.execute(f"PRAGMA {setting}").fetchone()[0]
    return value


async def test_without_a_thread_it_is_not_started_and_may_be_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = SqliteThread(tmp_path / "store.db", _set_up)
    with monkeypatch.context() as few:
        few.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="no thread can be started") as caught:
            await store.start()
        await store.close()
    assert caught.value.errno == errno.EAGAIN
    await store.start()
    assert await store.run(_all) == []
    await store.close()

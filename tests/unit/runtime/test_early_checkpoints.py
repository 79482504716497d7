"""What a commit would have to copy from the log into the database is copied beside it before."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rmi_runtime import EarlyCheckpoints, SqliteThread
from tests.support import eventually

FRAMES = 40


class Counted(SqliteThread):
    """A thread that counts what it is asked to do."""

    asked = 0

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        return await super().run(function, *args, **kwargs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.sqlite"


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[SqliteThread]:
    def set_up(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA wal_autocheckpoint = 1000")
        connection.execute("CREATE TABLE texts (text)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    thread = SqliteThread(path, set_up)
    await thread.start()
    yield thread
    await thread.close()


@pytest.fixture
async def beside(path: Path, writer: SqliteThread) -> AsyncIterator[Counted]:
    thread = Counted(path)
    await thread.start()
    yield thread
    await thread.close()


async def commit(writer: SqliteThread) -> None:
    """Bring at least one page into the log."""
    await writer.run(lambda connection: connection.execute("INSERT INTO texts VALUES ('x')"))


async def log_frames(writer: SqliteThread) -> tuple[int, int]:
    """Return how many pages the log has, and how many of them the database; copies them all."""
    sql = "PRAGMA wal_checkpoint(PASSIVE)"
    _, frames, copied = await writer.run(lambda connection: connection.execute(sql).fetchone())
    return frames, copied


def rows_in_database(path: Path) -> int:
    """Return how many rows there are without the log."""
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM texts").fetchone()
    return int(count)


async def test_once_the_log_is_long_it_is_copied_and_only_once(
    path: Path, writer: SqliteThread, beside: Counted
) -> None:
    checkpoints = EarlyCheckpoints(path, FRAMES)
    checkpoints.start(beside)
    for _ in range(FRAMES - 1):
        await commit(writer)
        checkpoints.look()
    assert beside.asked == 0
    assert rows_in_database(path) == 0
    with closing(sqlite3.connect(path)) as reader:  # for which the log must be kept
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM texts").fetchall()
        await commit(writer)
        checkpoints.look()
        await eventually(lambda: beside.asked == 1)
        for _ in range(FRAMES):
            await commit(writer)
            checkpoints.look()
    await beside.close()
    await checkpoints.aclose()
    assert beside.asked == 1


async def test_the_log_that_comes_next_is_copied_when_it_is_long(
    path: Path, writer: SqliteThread, beside: Counted
) -> None:
    checkpoints = EarlyCheckpoints(path, FRAMES)
    checkpoints.start(beside)
    for asked in (1, 2, 3):
        for _ in range(FRAMES):
            assert beside.asked == asked - 1
            await commit(writer)
            checkpoints.look()
        await eventually(lambda asked=asked: rows_in_database(path) == asked * FRAMES)  # type: ignore[misc]
        frames, copied = await log_frames(writer)  # all of it, so the next commit begins a new log
        assert frames == copied
    assert beside.asked == 3
    await beside.close()
    await checkpoints.aclose()


async def test_without_a_log_nothing_is_done(path: Path, beside: Counted) -> None:
    checkpoints = EarlyCheckpoints(path.with_name("another.sqlite"), 1)
    checkpoints.look()
    checkpoints.start(beside)
    checkpoints.look()
    await checkpoints.aclose()
    assert beside.asked == 0


async def test_what_fails_here_harms_no_commit(
    path: Path, writer: SqliteThread, beside: Counted
) -> None:
    checkpoints = EarlyCheckpoints(path, 1)
    checkpoints.start(beside)
    await beside.close()
    await commit(writer)
    checkpoints.look()
    await eventually(lambda: beside.asked == 1)
    await commit(writer)
    checkpoints.look()
    await checkpoints.aclose()
    await checkpoints.aclose()
    assert await log_frames(writer) == (2, 2)

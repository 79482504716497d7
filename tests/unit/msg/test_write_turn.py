"""Turns to write one file, while another process keeps its own for long."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmi_msg.stores import sqlite as stores_sqlite
from rmi_msg.stores.sqlite import FILE_NAME, SqliteDatabase
from rmi_msg.stores.write_turn import WriteTurn
from tests.support import eventually, turns


class Others:
    """The turn as another process has it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)

    def take(self) -> None:
        """Have the turn; raises ``BlockingIOError`` if somebody else has it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def give_back(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def can_take(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self.take()
            return True
        return False

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Others]:
    made = Others(tmp_path / f"{FILE_NAME}.turn")
    yield made
    made.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_turn_waited_for_is_had_until_it_is_given_back(
    tmp_path: Path, others: Others
) -> None:
    turn = WriteTurn(tmp_path / f"{FILE_NAME}.turn")
    others.take()
    coming = asyncio.create_task(turn.come())
    await turns()
    assert not coming.done()
    others.give_back()
    await coming
    assert not others.can_take()
    turn.__exit__()
    assert others.can_take()
    turn.close()


async def test_who_stops_waiting_for_a_turn_does_not_get_it(tmp_path: Path, others: Others) -> None:
    turn = WriteTurn(tmp_path / f"{FILE_NAME}.turn")
    others.take()
    coming = asyncio.create_task(turn.come())
    await turns()
    coming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(coming, 5)
    others.give_back()
    await eventually(lambda: turn._users == 0)
    assert others.can_take()
    turn.close()


async def test_who_stops_waiting_as_the_turn_comes_gives_it_back(
    tmp_path: Path, others: Others
) -> None:
    turn = WriteTurn(tmp_path / f"{FILE_NAME}.turn")
    coming = asyncio.create_task(turn.come())
    loop = asyncio.get_running_loop()
    call_soon_threadsafe = loop.call_soon_threadsafe

    def settle_and_cancel(settle: object) -> None:
        # In one turn of the loop: it has come, and whoever waited is cancelled before it knows.
        call_soon_threadsafe(lambda: (settle(), coming.cancel()))  # type: ignore[operator]

    loop.call_soon_threadsafe = settle_and_cancel  # type: ignore[assignment, method-assign]
    try:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(coming), 5)
    finally:
        loop.call_soon_threadsafe = call_soon_threadsafe  # type: ignore[method-assign]
    assert turn._users == 0
    assert others.can_take()
    turn.close()


async def test_its_descriptor_stays_open_for_who_still_waits(
    tmp_path: Path, others: Others
) -> None:
    before = open_descriptors()
    turn = WriteTurn(tmp_path / f"{FILE_NAME}.turn")
    others.take()
    coming = asyncio.create_task(turn.come())
    await eventually(lambda: turn._users == 1)
    turn.close()
    turn.close()
    assert open_descriptors() == before + 1
    others.give_back()
    await coming
    turn.__exit__()
    assert open_descriptors() == before


async def test_an_opening_is_cancelled_while_another_process_has_the_turn(
    tmp_path: Path, others: Others
) -> None:
    database = SqliteDatabase(tmp_path / FILE_NAME)
    others.take()
    opening = asyncio.create_task(database.open())
    await turns()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(opening, 5)
    await asyncio.wait_for(database.close(), 5)
    assert not (tmp_path / FILE_NAME).exists()
    others.give_back()


async def test_a_store_is_closed_though_a_write_waits_for_another_process(
    tmp_path: Path,
    others: Others,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(stores_sqlite, "LEAVE_S", 0.1)
    database = SqliteDatabase(tmp_path / FILE_NAME)
    await database.open()
    others.take()

    def mark(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE written (place)")

    writing = asyncio.create_task(database.write(mark))
    await eventually(lambda: database._turn._users == 1)
    await asyncio.wait_for(database.close(), 5)
    assert "what was to be written last had to wait for more than 0.1 s" in caplog.text
    others.give_back()
    await asyncio.wait_for(writing, 5)  # the process lives on here, so it was written after all
    await eventually(lambda: database._turn._fd < 0)

"""A messages file that was lost or deleted is not taken for a new one, nor written any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rmi_msg.errors import LogBegunAnew
from rmi_msg.stores import Stores
from rmi_msg.stores.opening import open_stores
from rmi_runtime import Settings
from rmi_runtime.errors import Conflict, Unavailable
from rmi_runtime.files import StoreGone, StoreLost
from tests.integration.msg import process

LOGGER = "msg.logger.1"


@pytest.mark.parametrize("harm", ["emptied", "removed", "log lost"])
async def test_a_lost_messages_file_is_refused(tmp_path: Path, harm: str) -> None:
    live, left = tmp_path / "live", tmp_path / "left"
    async with (
        open_stores(Settings(data_dir=live)) as stores,
        open_stores(Settings(data_dir=live)) as others,  # each process opens it for itself
    ):
        await stores.messages.put_many([("a", "text")], LOGGER)
        await others.messages.put_many([("b", "text")], LOGGER)
        shutil.copytree(live, left)
    if harm == "emptied":
        (left / "messages.sqlite").write_bytes(b"")
    else:
        (left / f"messages.sqlite{'-wal' if harm == 'log lost' else ''}").unlink()
    with pytest.raises(StoreLost, match=r"messages\.id"):
        async with open_stores(Settings(data_dir=left)):
            pass
    async with open_stores(Settings(data_dir=live)) as stores:
        assert [row.id for row in (await stores.messages.page(None, 10)).rows] == ["a", "b"]


@pytest.mark.parametrize("table", ["messages", "consumed", "queue", "claims"])
async def test_a_table_that_is_gone_is_told_and_not_made_anew(tmp_path: Path, table: str) -> None:
    settings = Settings(data_dir=tmp_path)
    async with open_stores(settings) as stores:
        await stores.messages.put_many([("a", "text")], LOGGER)
    with contextlib.closing(sqlite3.connect(tmp_path / "messages.sqlite")) as connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(Conflict, match=f"its table {table} is missing.*good copy"):
        async with open_stores(settings):
            pass


@pytest.mark.parametrize(
    "what", ["directory", "messages.sqlite", "messages.sqlite-wal", "messages.sqlite-shm"]
)
async def test_no_message_is_taken_into_a_deleted_file(tmp_path: Path, what: str) -> None:
    directory = tmp_path / "data"
    async with open_stores(Settings(data_dir=directory)) as stores:
        await stores.messages.put_many([("a", "text")], LOGGER)
        if what == "directory":
            shutil.rmtree(directory)
        else:
            (directory / what).unlink()
        with pytest.raises(StoreGone, match="is gone, or another file is in its place"):
            await stores.messages.put_many([("b", "text")], LOGGER)


async def test_who_uses_a_deleted_index_takes_nothing_from_who_opened_the_store_after_that(
    tmp_path: Path,
) -> None:
    live, left = tmp_path / "live", tmp_path / "left"
    async with open_stores(Settings(data_dir=live)) as stores:
        await stores.messages.put_many([("a", "text")], LOGGER)
        (live / "messages.sqlite-shm").unlink()
        command = [sys.executable, "-m", process.__name__, "writer", "2", str(live)]
        writer = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        printed, _ = await writer.communicate()
    shutil.copytree(live, left)  # a file of its own: this process has the other one open still
    async with open_stores(Settings(data_dir=left)) as stores:
        rows = (await stores.messages.page(None, 1000)).rows
        assert len(rows) == 1 + json.loads(printed)["new"]


async def test_a_store_that_is_damaged_under_it_is_unavailable(tmp_path: Path) -> None:
    async with open_stores(Settings(data_dir=tmp_path)) as stores:
        await stores.messages.put_many([("a", "text")], LOGGER)
        with sqlite3.connect(tmp_path / "messages.sqlite") as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        other.close()
        size = (tmp_path / "messages.sqlite").stat().st_size
        with (tmp_path / "messages.sqlite").open("r+b") as file:
            file.write(b"\xff" * size)
        with pytest.raises(Unavailable, match=r"cannot be written now: .* It is damaged: "):
            await stores.messages.put_many([("b", "text")], LOGGER)
        with pytest.raises(Unavailable, match=r"cannot be read now: .* It is damaged: "):
            await stores.messages.page(None, 10)


async def post_and_consume(stores: Stores, name: str, count: int) -> None:
    await stores.messages.put_many([(f"{name}{n}", "text") for n in range(count)], LOGGER)
    while (claim := await stores.queue.claim("msg.messages.1", 1000, 10)) is not None:
        await stores.consumed.add(claim)
        await stores.queue.done(claim)


@pytest.mark.parametrize("since", [0, 3, 6, 60])
async def test_a_cursor_of_what_an_older_copy_does_not_have_is_refused(
    tmp_path: Path, since: int
) -> None:
    live, copy = tmp_path / "live", tmp_path / "copy"
    async with open_stores(Settings(data_dir=live)) as stores:
        await post_and_consume(stores, "before", 5)
        shutil.copytree(live, copy)
        await post_and_consume(stores, "lost", 6)
        kept = [(await page(None, 5)).next for page in (stores.messages.page, stores.consumed.page)]
        lost = [(await page(None, 9)).next for page in (stores.messages.page, stores.consumed.page)]
    (copy / "messages.id").unlink()  # to go on with it on purpose
    async with open_stores(Settings(data_dir=copy)) as stores:
        await post_and_consume(stores, "since", since)
        for number, page in enumerate((stores.messages.page, stores.consumed.page)):
            with pytest.raises(LogBegunAnew, match=r"older copy.*without after"):
                await page(lost[number], 10)
            ids = [row.id for row in (await page(kept[number], 1000)).rows]
            assert ids == [f"since{n}" for n in range(since)]


async def test_a_cursor_without_a_mark_is_taken_as_it_is(tmp_path: Path) -> None:
    async with open_stores(Settings(data_dir=tmp_path)) as stores:
        await post_and_consume(stores, "a", 5)
        for page in (stores.messages.page, stores.consumed.page):
            assert [row.id for row in (await page("3", 10)).rows] == ["a3", "a4"]

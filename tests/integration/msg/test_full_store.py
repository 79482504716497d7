"""A message that finds no room is refused as such, and nothing is done."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from rmi_msg import MessageGateway
from rmi_msg.stores.opening import open_stores
from rmi_msg.stores.sqlite import SqliteMessageStore
from rmi_msg.stores.sqlite import open_stores as open_sqlite
from rmi_runtime import Settings, errors
from rmi_torture.disks import FailingDisk
from rmi_torture.vfs import Vfs
from tests.integration.msg.system import message_system
from tests.support import eventually

LOGGER = "msg.logger.1"
LARGE = "x" * 200_000


async def fill(store: SqliteMessageStore) -> None:
    """Let a store's file grow no more."""

    def fill_the_disk(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    await store._database._writer.run(fill_the_disk)


async def test_a_disk_that_is_full_at_any_write_is_told_as_such_and_changes_nothing(
    tmp_path: Path,
) -> None:
    disk = FailingDisk()
    # The store opens its file by its path alone: so every file is on this disk for a while.
    vfs = Vfs("rmi-full-for-messages", disk, default=True)
    step, full = 0, True
    try:
        while full:
            settings = Settings(data_dir=tmp_path / str(step))
            async with open_sqlite(settings, log_pages=0) as stores:
                put = stores.messages.put_many
                assert await put([("a", "one")], LOGGER) == ["new"]
                disk.fail(step, 1, "full")
                [told] = await asyncio.gather(put([("b", "two")], LOGGER), return_exceptions=True)
                full = not disk.times  # or the step is beyond those of a commit
                disk.fail(-1, 0, "full")
                if full:
                    assert isinstance(told, errors.StoreFull)
                    assert (told.definite, told.http_status) == (True, 503)
                    assert "messages.sqlite cannot take more: " in told.message
                    page = await stores.messages.page(None, 10)
                    assert [row.id for row in page.rows] == ["a"]
                assert await put([("b", "two")], LOGGER) == ["new" if full else "same"]
            async with open_stores(settings) as stores:
                page = await stores.messages.page(None, 10)
                assert [row.id for row in page.rows] == ["a", "b"]
            step += 1
    finally:
        vfs.unregister()
    assert step > 2  # a commit has several writes


async def test_a_full_store_is_told_through_the_facade_whichever_logger_finds_it(
    tmp_path: Path,
) -> None:
    async def full(messages: object, logger: str) -> None:
        raise errors.StoreFull("no room")

    async with message_system(tmp_path) as system:
        for number in (1, 2):
            logger = await system.logger(number)
            logger.object._store.put_many = full
        facade = await system.facade()
        await eventually(lambda: len(facade.object._loggers.view()) == 2)
        async with system.endpoints("msg.facade.") as facades:
            gateway = MessageGateway(facades)
            with pytest.raises(errors.StoreFull, match="no room"):
                await gateway.post("text", "id")
            # Nobody gets fewer calls for it: what is there can be read.
            assert [logger.set_aside for logger in facade.object._loggers.view()] == [False] * 2
            assert (await gateway.page())["messages"] == []
            await gateway.aclose()


async def test_what_is_there_already_is_told_so_when_nothing_more_can_be_stored(
    tmp_path: Path,
) -> None:
    async with message_system(tmp_path) as system:
        logger = await system.logger(1)
        facade = await system.facade()
        await eventually(facade.object._loggers.view)
        async with system.endpoints("msg.facade.") as facades:
            gateway = MessageGateway(facades)
            assert await gateway.post("one", "a") == "new"
            await fill(logger.object._store)
            # All of them go as one call, and to the store as one transaction.
            posts = [gateway.post(*pair) for pair in [("one", "a"), (LARGE, "b"), ("two", "a")]]
            repeated, refused, reused = await asyncio.gather(*posts, return_exceptions=True)
            assert (repeated, reused) == ("same", "other")
            assert isinstance(refused, errors.StoreFull)
            post_many = [["b", LARGE], ["a", "one"], ["c", LARGE], ["a", "two"]]
            words = await facades.call("post_many", post_many)
            assert words == ["full", "same", "full", "other"]
            with pytest.raises(errors.StoreFull, match=r"messages\.sqlite cannot take more"):
                await facades.call("post_many", [["b", LARGE]])
            assert [m["id"] for m in (await gateway.page())["messages"]] == ["a"]
            await gateway.aclose()

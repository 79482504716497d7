"""The name keeper: what is on disk, when it is written, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from Pyro5.errors import NamingError

from rmi_runtime.errors import Conflict
from rmi_runtime.registry import NameKeeper, NameServer, namestore
from rmi_runtime.registry.nametable import Registration
from tests.support import Clock, eventually

A = "PYRO:a@127.0.0.1:1001"
B = "PYRO:b@127.0.0.1:1002"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "names.sqlite"


def rows(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as database:
        return dict(database.execute("SELECT name, uri FROM names"))


async def test_names_survive_a_restart(path: Path) -> None:
    async with NameKeeper(path) as keeper:
        keeper.table.register("x", A, ["one", "two"])
        keeper.table.announce("y", B, 2.0)
    async with NameKeeper(path) as keeper:
        assert keeper.table.entries() == {
            "x": Registration(A, frozenset({"one", "two"})),
            "y": Registration(B, frozenset(), 2.0),
        }


async def test_a_disk_that_hangs_does_not_hold_up_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    again = threading.Event()
    monkeypatch.setattr(namestore, "_store", lambda database, changes: again.wait())
    monkeypatch.setattr(namestore, "END_WAIT_S", 0.05, raising=False)
    try:
        async with asyncio.timeout(5):
            async with NameKeeper(path) as keeper:
                keeper.table.register("x", A)
                keeper.save_soon()
    finally:
        again.set()
    assert "names.sqlite does not answer" in caplog.text


async def test_a_second_keeper_of_the_same_file_is_refused(path: Path) -> None:
    async with NameKeeper(path) as keeper:
        keeper.table.register("x", A)
        with pytest.raises(Conflict, match="another process"):
            async with NameKeeper(path):
                pytest.fail("it was let in")
    async with NameKeeper(path) as keeper:
        assert list(keeper.table.entries()) == ["x"]


async def test_a_keeper_that_cannot_start_lets_the_file_go(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(Conflict, match="damaged"):
        async with NameKeeper(path):
            pytest.fail("it was let in")
    path.unlink()
    async with NameKeeper(path) as keeper:
        assert keeper.table.entries() == {}


def cut_off(path: Path) -> None:
    os.truncate(path, 5000)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(range(256)) * 8)


def garble(path: Path, change: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE names SET {change} WHERE name = 'x7'")


@pytest.mark.parametrize(
    "damage",
    [
        cut_off,
        overwrite,
        partial(garble, change="metadata = '{'"),
        partial(garble, change="metadata = 'null'"),
        partial(garble, change="metadata = '[1]'"),
        partial(garble, change="uri = x'00'"),
        partial(garble, change="lease_s = 'soon'"),
    ],
)
async def test_a_damaged_file_is_refused_in_words(
    path: Path, damage: Callable[[Path], None]
) -> None:
    async with NameKeeper(path) as keeper:
        for number in range(50):
            keeper.table.register(f"x{number}", A, ["one", "two"])
    damage(path)
    with pytest.raises(Conflict, match="damaged"):
        async with NameKeeper(path):
            pytest.fail("it was let in")


async def test_saved_changes_survive_a_crash(path: Path) -> None:
    async with NameKeeper(path) as keeper:
        keeper.table.register("x", A)
        keeper.table.register("y", B)
        await keeper.save()
        keeper.table.remove("y")
        await keeper.save()
        assert rows(path) == {"x": A}


async def test_renewals_are_not_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    store = namestore._store

    def counted(*args: object) -> None:
        nonlocal writes
        writes += 1
        store(*args)

    monkeypatch.setattr(namestore, "_store", counted)
    async with NameKeeper(path, sweep_s=60) as keeper:
        for _ in range(20):
            keeper.table.announce("x", A, 2.0)
            keeper.save_soon()
            await keeper.save()
    assert writes == 1


async def test_dead_names_vanish_from_the_disk_without_being_asked_for(path: Path) -> None:
    clock = Clock(0.0)
    async with NameKeeper(path, clock=clock, sweep_s=0.001) as keeper:
        keeper.table.announce("x", A, 2.0)
        await keeper.save()
        assert rows(path) == {"x": A}
        clock.now_s = 3
        await eventually(lambda: rows(path) == {})


async def test_a_disk_that_fails_does_not_stop_the_names_and_is_made_up_for_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with NameKeeper(path, sweep_s=0.001) as keeper:
        server = NameServer(keeper)
        with monkeypatch.context() as patched:
            patched.setattr(namestore, "_store", full)
            with pytest.raises(NamingError, match="disk is full"):
                await server.register("x", A)
            server.announce("y", B, 60.0)
            assert str(server.lookup("x")) == A
            assert server.list() == {"x": A, "y": B}
        await eventually(lambda: rows(path) == {"x": A, "y": B})
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


@pytest.mark.parametrize("end", ["", "-wal"])
async def test_names_are_not_said_to_be_on_disk_while_their_file_is_gone(
    path: Path, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    file, elsewhere = path.with_name(path.name + end), path.with_name("elsewhere")
    async with NameKeeper(path, sweep_s=0.001) as keeper:
        server = NameServer(keeper)
        await server.register("x", A)
        file.rename(elsewhere)
        with pytest.raises(NamingError, match=f"a restart .* would undo it: .*{file.name} is gone"):
            await server.register("y", B)
        assert server.list() == {"x": A, "y": B}
        elsewhere.rename(file)
        await eventually(lambda: len(caplog.records) == 2)
        assert rows(path) == {"x": A, "y": B}
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_disk_that_hangs_for_long_does_not_stop_the_names(path: Path) -> None:
    begun, over = threading.Event(), threading.Event()

    def hang(database: sqlite3.Connection) -> None:
        begun.set()
        over.wait(60)

    async with NameKeeper(path) as keeper:
        server = NameServer(keeper)
        assert keeper._database is not None
        hanging = asyncio.ensure_future(keeper._database.run(hang))
        await eventually(begun.is_set)
        server.announce("x", A, 60.0)
        await asyncio.sleep(0)  # its write has begun, and waits behind the other
        for _ in range(20_000):
            server.announce("x", A, 60.0)
        server.announce("x", B, 60.0)
        over.set()
        await hanging
        await eventually(lambda: rows(path) == {"x": B})


async def test_without_a_file_names_live_in_memory() -> None:
    async with NameKeeper() as keeper:
        await NameServer(keeper).register("x", A)
        assert keeper.table.get("x").uri == A

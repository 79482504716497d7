"""A ledger that was lost, emptied or deleted is not taken for a new one; see store_files."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rmi_bank import SqliteLedger, open_data
from rmi_bank.demo import seed_demo
from rmi_bank.errors import StoreFull
from rmi_bank.operations import CASH
from rmi_bank.rules import NewOutcome, Posting
from rmi_bank.stores import NewToken, Record
from rmi_runtime.errors import Conflict, Interrupted, Unavailable
from rmi_runtime.files import StoreGone, StoreLost, store_files
from rmi_torture.disks import FailingDisk, RecordingDisk
from rmi_torture.power import cuts, lay_out, scratch
from rmi_torture.vfs import Vfs
from tests.support import eventually


async def used_and_killed(directory: Path) -> Path:
    """Return the directory of a demonstration bank as SIGKILL leaves it: all in the log."""
    live = directory / "live"
    live.mkdir()
    ledger = SqliteLedger(live / "bank.sqlite")
    await ledger.start()
    try:
        assert await seed_demo(ledger, live)
        await ledger.commit(deposit())
        left = directory / "left"
        shutil.copytree(live, left)
    finally:
        await ledger.close()
    assert (left / "bank.sqlite-wal").stat().st_size > 0
    return left


def deposit() -> Record:
    return Record([Posting(CASH, 1, 5)])


async def balance_of_1(directory: Path) -> int | None:
    ledger = SqliteLedger(directory / "bank.sqlite")
    await ledger.start()
    try:
        assert not await seed_demo(ledger, directory)
        return ledger.balances([1])[0]
    finally:
        await ledger.close()


def emptied(left: Path) -> None:
    (left / "bank.sqlite").write_bytes(b"")


def removed(left: Path) -> None:
    (left / "bank.sqlite").unlink()


def all_removed(left: Path) -> None:
    for path in left.glob("bank.sqlite*"):
        path.unlink()


def log_removed(left: Path) -> None:
    (left / "bank.sqlite-wal").unlink()


def log_of_junk(left: Path) -> None:
    (left / "bank.sqlite-wal").write_bytes(os.urandom(50_000))


def another(left: Path) -> None:
    all_removed(left)
    connection = sqlite3.connect(left / "bank.sqlite")
    connection.execute("CREATE TABLE something (x)")
    connection.close()


@pytest.mark.parametrize("harm", [emptied, removed, all_removed, log_removed, log_of_junk, another])
async def test_a_harmed_ledger_is_refused_and_opens_again_when_its_copy_is_back(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    left = await used_and_killed(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(left, copy)
    harm(left)
    before = {path.name: path.read_bytes() for path in left.iterdir() if "shm" not in path.name}
    for _ in range(2):
        with pytest.raises(StoreLost, match=r"bank\.id"):
            await SqliteLedger(left / "bank.sqlite").start()
    assert (left / "demo-tokens.json").read_bytes() == before["demo-tokens.json"]
    assert (left / "bank.id").read_bytes() == before["bank.id"]
    if harm in (emptied, removed):
        log = (left / "bank.sqlite-wal").read_bytes()
        assert log == before["bank.sqlite-wal"], "the log that held everything was thrown away"
    for path in copy.glob("bank.sqlite*"):
        shutil.copy(path, left)
    assert await balance_of_1(left) == 1005


def _overwrite_root(path: Path, table: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        sql = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = connection.execute(sql, (table,)).fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)


async def test_damage_in_the_middle_of_a_ledger_is_told_with_its_file_and_what_to_do(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bank.sqlite"
    ledger = SqliteLedger(path)
    await ledger.start()
    await seed_demo(ledger, tmp_path)
    await ledger.close()
    _overwrite_root(path, "accounts")
    with pytest.raises(Conflict, match=r"bank\.sqlite is damaged, .*good copy"):
        await SqliteLedger(path).start()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("UPDATE accounts SET balance = 'x'", "do not balance"),
        ("UPDATE accounts SET balance = x'ff'", "do not balance"),
        ("UPDATE journal SET amount = 'x' WHERE line = 2", "do not balance"),
        ("DELETE FROM state", "do not balance"),
        ("UPDATE accounts SET account = -1 WHERE account = 9", "its first account is -1"),
        ("UPDATE state SET epoch = 4294967296", "it has been opened 4294967297 times"),
        ("UPDATE state SET commit_no = 'x'", "it is numbered 'x', not 0 to"),
        ("UPDATE state SET commit_no = 9223372036854775807", "it is numbered 9223372036854775807"),
        ("UPDATE state SET indexed_outcome = 1.5", "it is numbered 1.5, not 0 to"),
        ("UPDATE outcomes SET outcome = 9223372036854775807", "it is numbered 9223372036854775807"),
        ("UPDATE journal SET line = 9223372036854775807 WHERE line = 11", "it is numbered 92233"),
        ("UPDATE state SET folded_line = 4096", "line 4096 was folded, and the last one is"),
        ("UPDATE outcomes SET request_id = CAST(x'ff' AS TEXT)", "is damaged, .*good copy"),
        ("UPDATE identity SET stamp = 'x'", "identity should have .* and a stamp, .*good copy"),
        ("DELETE FROM identity", "identity should have an id .*good copy"),
        ("DROP TABLE state", "its table state is missing.*good copy"),
        ("DROP TABLE tokens", "its table tokens is missing.*good copy"),
        ("ALTER TABLE journal RENAME at TO x", "journal has the columns .*good copy"),
    ],
)
async def test_a_ledger_that_holds_what_nobody_wrote_is_told_to_be_damaged(
    tmp_path: Path, harm: str, told: str
) -> None:
    path = tmp_path / "bank.sqlite"
    ledger = SqliteLedger(path)
    await ledger.start()
    await seed_demo(ledger, tmp_path)
    await ledger.commit(Record([Posting(1, 2, 5, 0)], [NewOutcome("1:r", "op", "995")]))
    await ledger.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(harm)
    with pytest.raises(Conflict, match=told):
        await SqliteLedger(path).start()


async def test_a_page_of_the_journal_that_is_damaged_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bank.sqlite"
    ledger = SqliteLedger(path)
    await ledger.start()
    await seed_demo(ledger, tmp_path)
    await ledger.close()
    await ledger.start()
    _overwrite_root(path, "journal")
    with pytest.raises(StoreGone, match=r"this part of the books is damaged .*good copy"):
        await ledger.statement(1, 0, 10)
    await ledger.close()


@pytest.mark.parametrize("number", ["'x'", "x'00'"])
async def test_a_journal_line_that_follows_none_is_told_to_be_damaged(
    tmp_path: Path, number: str
) -> None:
    path = tmp_path / "bank.sqlite"
    ledger = SqliteLedger(path)
    await ledger.start()
    await seed_demo(ledger, tmp_path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE OR IGNORE journal SET credit_before = {number}")
    with pytest.raises(StoreGone, match=r"account 1 is damaged above line 0, .*good copy"):
        await ledger.statement(1, 0, 10)
    await ledger.close()


async def test_a_log_without_its_file_is_not_thrown_away_even_without_a_marker(
    tmp_path: Path,
) -> None:
    left = await used_and_killed(tmp_path)
    (left / "bank.id").unlink()
    emptied(left)
    with pytest.raises(StoreLost, match="would be thrown away"):
        await SqliteLedger(left / "bank.sqlite").start()
    assert (left / "bank.sqlite-wal").stat().st_size > 0


async def test_who_removes_the_marker_goes_on_with_the_seeds_that_the_main_file_has(
    tmp_path: Path,
) -> None:
    left = await used_and_killed(tmp_path)
    log_removed(left)
    (left / "bank.id").unlink()
    assert await balance_of_1(left) == 1000  # and not seeded again, with other tokens


async def test_a_ledger_made_before_there_were_markers_is_adopted(tmp_path: Path) -> None:
    left = await used_and_killed(tmp_path)
    (left / "bank.id").unlink()
    connection = sqlite3.connect(left / "bank.sqlite")
    connection.execute("DROP TABLE identity")
    connection.commit()
    connection.close()
    assert await balance_of_1(left) == 1005
    emptied(left)
    with pytest.raises(StoreLost):
        await SqliteLedger(left / "bank.sqlite").start()


@pytest.mark.parametrize("text", ["", "nonsense", "0" * 32 + " -1", "\xff" * 900])
async def test_a_marker_that_holds_no_id_is_named(tmp_path: Path, text: str) -> None:
    left = await used_and_killed(tmp_path)
    (left / "bank.id").write_text(text)
    with pytest.raises(StoreLost, match=r"bank\.id does not hold"):
        await SqliteLedger(left / "bank.sqlite").start()


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory where a sync is nothing: the disk that counts is our own."""
    with scratch("rmi-lost-") as made:
        yield Path(made)


async def test_a_power_cut_at_any_step_leaves_a_ledger_and_a_marker_that_open(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RecordingDisk()
    markers: list[tuple[int, str]] = []
    write = store_files.write_private

    def note(path: Path, text: str) -> None:
        write(path, text)
        markers.append((len(disk.happenings), text))

    monkeypatch.setattr(store_files, "write_private", note)
    vfs = Vfs("rmi-marked", disk)
    live = memory / "live"
    live.mkdir()
    try:
        for _ in range(2):
            ledger = SqliteLedger(f"file:{live / 'bank.sqlite'}?vfs=rmi-marked", uri=True)
            await ledger.start()
            await seed_demo(ledger, live)
            await ledger.commit(deposit())
            await ledger.close()
    finally:
        vfs.unregister()
    monkeypatch.undo()
    assert len(markers) == 3  # opened, seeded, opened
    left = memory / "left"
    tried = 0
    for cut in cuts(disk.happenings, seed=1):
        lay_out(left, cut.files)
        written = [text for step, text in markers if step <= cut.step]
        if written:
            (left / "bank.id").write_text(written[-1])
        again = SqliteLedger(left / "bank.sqlite")
        await again.start()  # raises StoreLost if the marker is ahead of the ledger
        await again.close()
        tried += bool(written)
    assert tried > 10


async def test_a_full_disk_is_told_to_who_makes_and_who_revokes_a_token(tmp_path: Path) -> None:
    disk = FailingDisk()
    vfs = Vfs("rmi-full-for-tokens", disk)
    try:
        path = f"file:{tmp_path / 'bank.sqlite'}?vfs=rmi-full-for-tokens"
        async with open_data(SqliteLedger(path, uri=True)) as opened:
            data: Any = opened
            made = await data.token_create(1, "teller")
            disk.fail(0, 1000, "full")
            with pytest.raises(StoreFull, match="disk of the store is full"):
                await data.token_create(2, "teller")
            with pytest.raises(StoreFull, match="disk of the store is full"):
                await data.token_revoke(made["id"])
            disk.fail(-1, 0, "full")
            assert [row["client"] for row in (await data.token_list())["tokens"]] == [1]
            await data.token_revoke(made["id"])
    finally:
        vfs.unregister()


@pytest.mark.parametrize("name", ["bank.sqlite", "bank.sqlite-wal", "bank.sqlite-shm"])
async def test_nothing_is_acknowledged_that_is_in_a_deleted_file(tmp_path: Path, name: str) -> None:
    ledger = SqliteLedger(tmp_path / "bank.sqlite")
    await ledger.start()
    await seed_demo(ledger, tmp_path)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(StoreGone, match=f"{name} is gone"):
        await ledger.commit(deposit())
    assert ledger.broken
    with pytest.raises(Unavailable):
        await ledger.add_token(NewToken("a" * 64, 1, "teller"))
    await ledger.close()


async def test_a_file_deleted_while_it_is_written_ends_the_commit_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = SqliteLedger(tmp_path / "bank.sqlite")
    await ledger.start()
    await seed_demo(ledger, tmp_path)
    from rmi_bank.stores import sqlite as module

    write = module._write

    def write_and_lose(connection: sqlite3.Connection, plan: Any) -> None:
        write(connection, plan)
        (tmp_path / "bank.sqlite").unlink()

    monkeypatch.setattr(module, "_write", write_and_lose)
    with pytest.raises(Interrupted, match="is gone"):
        await ledger.commit(deposit())
    await ledger.close()


async def test_a_bank_whose_directory_is_deleted_says_so_and_never_begins_anew(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    async with open_data(SqliteLedger(directory / "bank.sqlite")) as opened:
        data: Any = opened
        await data.open_account(1, 1000)
        shutil.rmtree(directory)
        with pytest.raises(StoreGone, match="is gone"):
            await data.open_account(2, 1000)
        directory.mkdir()  # somebody makes it again, empty
        refusals: list[str] = []

        def refused() -> bool:
            with pytest.raises((Unavailable, StoreGone)) as caught:
                data.balances([1])
            refusals.append(str(caught.value))
            return "it was open here" in refusals[-1]

        await eventually(refused)
        assert list(directory.iterdir()) == []

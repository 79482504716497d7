"""The layer below SQLite, and the disks that steer it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from rmi_torture import power
from rmi_torture.disks import FailingDisk, ForgetfulDisk, Happening, PlainDisk, RecordingDisk
from rmi_torture.power import Disks
from rmi_torture.vfs import Vfs

ROWS = 2000


@pytest.fixture
def vfs() -> Iterator[Vfs]:
    made = Vfs("rmi-test", PlainDisk())
    yield made
    made.unregister()


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory that nobody waits for."""
    with power.scratch("rmi-disks-") as made:
        yield Path(made)


def connect(path: Path, synchronous: str = "FULL") -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{path}?vfs=rmi-test", uri=True, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    return connection


def fill(connection: sqlite3.Connection, rows: int = ROWS) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS t (a, b)")
    for n in range(rows):
        connection.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 300))


def count(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (found,) = connection.execute("SELECT count(*) FROM t").fetchone()
        return int(found)


@pytest.mark.parametrize("disk", [PlainDisk, RecordingDisk, ForgetfulDisk])
def test_sqlite_works_on_every_disk(vfs: Vfs, disk: type[PlainDisk], memory: Path) -> None:
    vfs.disk = disk()
    first = connect(memory / "x")
    fill(first)
    second = connect(memory / "x")
    assert second.execute("SELECT count(*) FROM t").fetchone() == (ROWS,)
    second.close()
    first.close()
    assert count(memory / "x") == ROWS


@pytest.mark.parametrize(("synchronous", "kept"), [("FULL", 50), ("OFF", 0)])
def test_a_forgetful_disk_keeps_what_was_synced_and_nothing_else(
    vfs: Vfs, synchronous: str, kept: int, tmp_path: Path
) -> None:
    vfs.disk = ForgetfulDisk()
    connection = connect(tmp_path / "x")
    fill(connection, 0)
    connection.execute(f"PRAGMA synchronous={synchronous}")
    fill(connection, 50)
    # What another process would find if this one died now.
    for name in ("x", "x-wal"):
        (tmp_path / f"left-{name}").write_bytes((tmp_path / name).read_bytes())
    assert count(tmp_path / "left-x") == kept
    connection.close()


@pytest.mark.parametrize(("code", "words"), [("full", "full"), ("error", "I/O error")])
def test_a_failing_disk_fails_as_often_as_it_was_told(
    vfs: Vfs, code: str, words: str, tmp_path: Path
) -> None:
    disk = FailingDisk()
    vfs.disk = disk
    connection = connect(tmp_path / "x")
    fill(connection, 5)
    disk.fail(0, 1, code)  # type: ignore[arg-type]
    with pytest.raises(sqlite3.OperationalError, match=words):
        fill(connection, 1)
    fill(connection, 1)
    connection.close()
    assert count(tmp_path / "x") == 6


def test_a_recording_disk_remembers_writes_and_syncs(vfs: Vfs, tmp_path: Path) -> None:
    disk = RecordingDisk()
    vfs.disk = disk
    connection = connect(tmp_path / "x")
    fill(connection, 1)
    connection.close()
    kinds = [happening.what for happening in disk.happenings]
    assert {"write", "sync", "delete"} <= set(kinds)
    assert sum(len(h.data) for h in disk.happenings if h.what == "write") > 4096


def cut(way: str, *happenings: Happening) -> dict[str, bytes]:
    disks = Disks()
    for happening in happenings:
        disks.take(happening)
    return disks.cut(way, Random(1))


A = Happening("write", "f", 0, b"aaaa")
B = Happening("write", "f", 2, b"bbbb")
SYNC = Happening("sync", "f")
DELETE = Happening("delete", "f")
TRUNCATE = Happening("truncate", "f", 1)


@pytest.mark.parametrize(
    ("way", "happenings", "left"),
    [
        ("lost", [A], {}),
        ("lost", [A, SYNC, B], {"f": b"aaaa"}),
        ("kept", [A, SYNC, B], {"f": b"aabbbb"}),
        ("torn", [A, SYNC, B], {"f": b"aabb"}),
        ("lost", [A, SYNC, TRUNCATE], {"f": b"aaaa"}),
        ("kept", [A, SYNC, TRUNCATE], {"f": b"a"}),
        ("lost", [A, SYNC, DELETE], {"f": b"aaaa"}),
        ("kept", [A, SYNC, DELETE], {}),
        ("kept", [A, SYNC, DELETE, B], {"f": b"\0\0bbbb"}),
    ],
)
def test_a_power_cut_leaves_what_was_synced(
    way: str, happenings: list[Happening], left: dict[str, bytes]
) -> None:
    assert cut(way, *happenings) == left


def test_a_deletion_lasts_once_a_new_file_beside_it_was_synced() -> None:
    other = Happening("write", "g", 0, b"x")
    assert cut("lost", A, SYNC, DELETE, other, Happening("sync", "g")) == {"g": b"x"}


@pytest.mark.parametrize("there", [True, False])
def test_what_is_only_looked_at_is_kept_in_memory_where_that_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    memory = tmp_path / "memory"
    if there:
        memory.mkdir()
    monkeypatch.setattr(power, "MEMORY", memory)
    with power.scratch("rmi-test-") as made:
        assert (Path(made).parent == memory) == there
        assert Path(made).is_dir()

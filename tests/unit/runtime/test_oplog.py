"""The operation log: gapless numbers across restarts, torn lines and full disks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_runtime import errors
from rmi_runtime.files import oplog
from rmi_runtime.files.log_files import LogLimits
from rmi_runtime.files.oplog import OperationLog, operation_number

AT = datetime(2021, 10, 31, 13, 18, 18, 13317)


def lines(first: int, at: datetime, entries: Iterable[str]) -> list[str]:
    start = f"Timestamp:{at} - OperationNumber: "
    return [f"{start}{number} - Text: {entry}" for number, entry in enumerate(entries, first)]


def new_log(path: Path) -> OperationLog[str]:
    return OperationLog(path, lines, now=lambda: AT)


def numbers(path: Path) -> list[int | None]:
    return [operation_number(text) for text in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "bank.data.log"


def test_lines_are_numbered_from_one(path: Path) -> None:
    with new_log(path) as log:
        log.append(["a", "b"])
        log.append(["c"])
    assert path.read_text().splitlines() == [
        "Timestamp:2021-10-31 13:18:18.013317 - OperationNumber: 1 - Text: a",
        "Timestamp:2021-10-31 13:18:18.013317 - OperationNumber: 2 - Text: b",
        "Timestamp:2021-10-31 13:18:18.013317 - OperationNumber: 3 - Text: c",
    ]


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    for _ in range(3):
        with new_log(path) as log:
            log.append("xy")
    assert numbers(path) == [1, 2, 3, 4, 5, 6]


def test_a_batch_is_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = os.write
    monkeypatch.setattr(oplog.os, "write", lambda fd, d: writes.append(len(d)) or write(fd, d))
    with new_log(path) as log:
        log.append(str(n) for n in range(1000))
        log.append([])
    assert len(writes) == 1


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be asked to")
def test_the_system_is_asked_to_write_out_each_part_of_a_file_once_it_has_come(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it kept for half a minute, it wrote all at once, and the disk did nothing else."""
    asked: list[tuple[int, int]] = []
    advise = os.posix_fadvise

    def recorded(fd: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        asked.append((start, start + length))
        advise(fd, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", recorded)
    monkeypatch.setattr(oplog, "WRITE_OUT_BYTES", 10_000)
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    limits = LogLimits(size_bytes_max=60_000)
    with OperationLog(path, lines, now=lambda: AT, limits=limits) as log:
        while not path.with_name(f"{path.name}.1").exists():
            log.append(["x" * 100] * 9)
        first = list(asked)
        asked.clear()
        while path.stat().st_size < 30_000:
            log.append(["x" * 100] * 9)
        second = list(asked)
    with OperationLog(path, lines, now=lambda: AT, limits=limits) as log:
        asked.clear()
        size_bytes = path.stat().st_size
        log.append(["x" * 10_000])
    assert len(first) > 3
    assert len(second) > 1
    for parts in (first, second):
        assert parts[0][0] == 0
        assert all(end == start for (_, end), (start, _) in pairwise(parts))
        assert not any(end % page_bytes for _, end in parts)
    assert [start for start, _ in asked] == [size_bytes]


def test_a_torn_last_line_is_cut_off_and_its_number_used_again(path: Path) -> None:
    with new_log(path) as log:
        log.append("abc")
    whole = path.read_bytes()
    path.write_bytes(whole + b"Timestamp:2021-10-31 13:18:18.0133 - OperationNumber: 4 - Te")
    with new_log(path) as log:
        assert log.number == 3
        assert path.read_bytes() == whole
        log.append("d")
    assert numbers(path) == [1, 2, 3, 4]


def test_a_file_of_nothing_but_a_torn_line_starts_again_at_one(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"Timestamp:2021 - OperationNumber: 7" + b"x" * 200_000)
    with new_log(path) as log:
        log.append("a")
    assert numbers(path) == [1]


def test_only_the_end_of_a_large_file_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with new_log(path) as log:
        for _ in range(100):
            log.append("x" * 100 for _ in range(500))
    assert path.stat().st_size > 5_000_000
    read_bytes = 0
    pread = os.pread

    def counted(fd: int, count: int, offset: int) -> bytes:
        nonlocal read_bytes
        read_bytes += count
        return pread(fd, count, offset)

    monkeypatch.setattr(oplog.os, "pread", counted)
    with new_log(path) as log:
        assert log.number == 50_000
    assert read_bytes < 200_000


def test_a_last_line_longer_than_a_block_is_read_whole(path: Path) -> None:
    with new_log(path) as log:
        log.append(["short", "y" * 300_000])
    with new_log(path) as log:
        assert log.number == 2


def test_a_number_inside_the_text_of_a_long_line_is_not_taken_for_its_own(path: Path) -> None:
    with new_log(path) as log:
        log.append(["x" * 100_000 + " OperationNumber: 99 "])
    with new_log(path) as log:
        assert log.number == 1


def test_lines_without_a_number_at_the_end_are_skipped(path: Path) -> None:
    with new_log(path) as log:
        log.append("ab")
    with path.open("a") as file:
        file.write("a remark\n" * 10_000)
    with new_log(path) as log:
        assert log.number == 2


def test_line_breaks_in_an_entry_cannot_forge_a_line(path: Path) -> None:
    with new_log(path) as log:
        log.append(["a\nTimestamp: - OperationNumber: 99 - Text: forged", "b\r\nc"])
        log.append(["d"])
        log.append(["e\rf"])
    assert numbers(path) == [1, 2, 3, 4]
    assert b"\r" not in path.read_bytes()


class FullDisk:
    """Stands for ``os.write`` on a disk that takes *room_bytes* more."""

    def __init__(self, room_bytes: int) -> None:
        self.room_bytes = room_bytes
        self.write: Callable[[int, bytes], int] = os.write

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.room_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.write(fd, bytes(data[: self.room_bytes]))
        self.room_bytes -= taken
        return taken


def test_a_full_disk_loses_entries_but_no_operation_and_no_number(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with new_log(path) as log:
        log.append("a")
        with monkeypatch.context() as patched:
            patched.setattr(oplog.os, "write", FullDisk(room_bytes=10))
            log.append("bc")
            log.append("d")
            assert numbers(path) == [1]
        log.append("e")
        assert log.lost == 3
    assert numbers(path) == [1, 2]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_half_a_line_that_could_not_be_taken_back_is_cut_off_before_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int, size_bytes: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with new_log(path) as log:
        log.append("a")
        with monkeypatch.context() as patched:
            patched.setattr(oplog.os, "write", FullDisk(room_bytes=10))
            patched.setattr(oplog.os, "ftruncate", broken)
            log.append("b")
        log.append("c")
    assert path.read_text().splitlines() == lines(1, AT, ["a", "c"])


def test_a_closed_log_counts_what_it_loses(path: Path) -> None:
    log = new_log(path)
    log.append("ab")
    assert log.lost == 2
    assert not path.exists()


def test_a_second_writer_is_refused(path: Path) -> None:
    with new_log(path), pytest.raises(errors.Conflict, match="another process"):
        new_log(path).open()
    with new_log(path):
        pass


@settings(max_examples=50, deadline=None)
@given(batches=st.lists(st.lists(st.text(max_size=80), max_size=5), max_size=8), data=st.data())
def test_whatever_is_cut_off_the_end_numbers_stay_gapless(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "x.log"
    for batch in batches:
        with new_log(path) as log:
            log.append(batch)
        kept = path.stat().st_size - data.draw(st.integers(0, min(200, path.stat().st_size)))
        os.truncate(path, kept)
    with new_log(path) as log:
        log.append(["end"])
    written = path.read_bytes().decode().split("\n")[:-1]
    assert [operation_number(text) for text in written] == list(range(1, len(written) + 1))

"""The files of an operation log: bounded, in order, gapless wherever a rotation is stopped."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_runtime import LogLimits, OperationLog
from rmi_runtime.files import log_files
from tests.processes import descriptors
from tests.support import eventually
from tests.unit.runtime.small_logs import (
    SIZE_BYTES_MAX,
    STEPS,
    assert_gapless,
    fill,
    kept,
    new_log,
    numbers,
    older,
    steps,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.data.log"


class Stopped(BaseException):
    """The process is no more."""


def test_a_file_never_passes_its_bound_and_numbers_go_on_in_the_next(path: Path) -> None:
    with new_log(path, files_max=100) as log:
        fill(log, 3500)
        assert [len(numbers(file)) for file in [*older(path), path]] == [10, 10, 10, 5]
        assert_gapless(path, 35)
        assert len(kept(path)) == 35


def test_a_file_is_filled_to_its_bound(path: Path) -> None:
    with new_log(path) as log:
        fill(log, SIZE_BYTES_MAX)
        assert path.stat().st_size == SIZE_BYTES_MAX
        assert not older(path)


@pytest.mark.parametrize("files_max", [2, 3, 5])
def test_so_many_files_are_kept_and_the_oldest_go(path: Path, files_max: int) -> None:
    with new_log(path, files_max=files_max) as log:
        fill(log, 8500)
        assert len(older(path)) == files_max - 1
        assert_gapless(path, 85)
        assert len(kept(path)) == 10 * (files_max - 1) + 5


def test_a_batch_larger_than_the_bound_has_a_file_of_its_own(path: Path) -> None:
    with new_log(path, files_max=4) as log:
        for batch in (["a"], ["x" * 300] * 5, ["x" * 300] * 5, ["b"]):
            log.append(batch)
        assert [numbers(file) for file in [*older(path), path]] == [
            [1],
            [2, 3, 4, 5, 6],
            [7, 8, 9, 10, 11],
            [12],
        ]


def test_a_file_from_before_there_was_a_bound_is_set_aside_whole(path: Path) -> None:
    with new_log(path, size_bytes_max=10**9) as log:
        fill(log, 5000)
    with new_log(path) as log:
        log.append(["next"])
    assert [numbers(file) for file in [*older(path), path]] == [list(range(1, 51)), [51]]


def test_files_beyond_a_lowered_number_are_removed_at_the_next_start(path: Path) -> None:
    with new_log(path, files_max=6) as log:
        fill(log, 5500)
    mine = path.with_name(f"{path.name}.20261122")
    mine.write_text("a copy of the operator's\n")
    with new_log(path, files_max=2) as log:
        assert log.number == 55
    assert older(path) == [mine, path.with_name(f"{path.name}.1")]


def test_the_end_of_the_current_file_missing_or_torn_numbers_go_on_from_the_older(
    path: Path,
) -> None:
    with new_log(path) as log:
        fill(log, 2000)
    newest = older(path)[-1]
    for left in (None, b"", b"OperationNumber: 77 - to", b"a remark\n"):
        path.unlink()
        if left is not None:
            path.write_bytes(left)
        with new_log(path) as log:
            assert log.number == 10
            log.append(["y"])
        assert numbers(newest) == list(range(1, 11))
        assert numbers(path)[-1] == 11


def test_an_older_file_with_a_torn_end_tells_its_last_whole_line(path: Path) -> None:
    path.with_name(f"{path.name}.1").write_text("OperationNumber: 4 - a\nOperationNumber: 5")
    with new_log(path) as log:
        assert log.number == 4


def test_wherever_a_rotation_is_stopped_numbers_go_on_after_it(path: Path, tmp_path: Path) -> None:
    counted = 0

    def count(name: str, after: bool) -> None:
        nonlocal counted
        counted += 1

    def prepared(name: str) -> OperationLog[str]:
        log = new_log(tmp_path / name / path.name, files_max=4)
        log.open()
        fill(log, 6000)
        return log

    whole = prepared("whole")
    with whole, steps(count):
        whole.append(["first of the next file"])
    # Open and unlink the oldest, two shifts, the current file, the new file; each before and after.
    assert counted == 12
    for place in range(counted):
        left = place

        def stop(name: str, after: bool) -> None:
            nonlocal left
            if not left:
                raise Stopped
            left -= 1

        log = prepared(f"stopped-{place}")
        with steps(stop), pytest.raises(Stopped):
            log.append(["never written"])
        log.close()
        with new_log(log.path, files_max=4) as log:
            assert log.number == 60
            fill(log, 900)
            assert_gapless(log.path, 69)
            assert set(range(31, 61)) <= set(kept(log.path)), place
            fill(log, 3000)
            assert_gapless(log.path, 99)
            assert len(older(log.path)) == 3


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("place", range(3))
def test_a_rotation_that_fails_loses_entries_but_no_operation_and_no_number(
    path: Path, name: str, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[str] = []

    def fail(step: str, after: bool) -> None:
        if step == name and not after:
            failed.append(step)
            if len(failed) > place:
                raise OSError(errno.ENOSPC, "No space left on device")

    with new_log(path) as log:
        fill(log, 3000)
        with steps(fail):
            for _ in range(3):
                log.append(["lost, if that step is failing"])
        lost = log.lost
        assert lost == (3 if len(failed) > place else 0)
        log.append(["written"])
        assert log.lost == lost
        assert_gapless(path, log.number)
        assert log.number == 30 + (3 - lost) + 1
        assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"][: lost * 2]
    with new_log(path) as log:
        assert log.number == 34 - lost


def test_half_a_line_is_cut_off_before_its_file_is_set_aside(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, bytes(data[: len(data) - 5]))

    def broken(fd: int, size_bytes: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with new_log(path) as log:
        fill(log, 900)
        with monkeypatch.context() as patched:
            patched.setattr(log_files.os, "write", full)
            patched.setattr(log_files.os, "ftruncate", broken)
            log.append(["torn"])
        log.append(["x" * 200])
    assert [len(numbers(file)) for file in [*older(path), path]] == [9, 1]
    assert_gapless(path, 10)
    assert b"torn" not in older(path)[0].read_bytes()


async def test_files_that_were_set_aside_or_removed_are_not_kept_open(path: Path) -> None:
    with new_log(path, files_max=2) as log:
        fill(log, 2500)
        before = descriptors()
        fill(log, 20_000)
        # The space of those that went is given back in threads.
        await eventually(lambda: descriptors() <= before)


def test_without_a_thread_the_oldest_file_goes_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    with new_log(path, files_max=2) as log:
        fill(log, 3500)
        assert log.lost == 0
    assert numbers(older(path)[0]) == list(range(21, 31))


@pytest.mark.parametrize("limits", [(0, 2), (-1, 2), (1, 1), (1, 0)])
def test_a_log_without_a_bound_or_an_older_file_is_refused(limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="needed"):
        LogLimits(*limits)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), files_max=st.integers(2, 4))
def test_whatever_is_written_and_wherever_it_is_killed_files_are_bounded_and_gapless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, files_max: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "x.log"
    batches = st.lists(st.lists(st.text("ab\n", max_size=60), min_size=1, max_size=6), max_size=12)
    last = 0
    for _ in range(data.draw(st.integers(1, 4))):
        left = data.draw(st.integers(0, 40))
        written = data.draw(batches)

        def stop(name: str, after: bool) -> None:
            nonlocal left
            if not left:
                raise Stopped
            left -= 1

        log = new_log(path, size_bytes_max=200, files_max=files_max)
        log.open()
        assert log.number == last
        with contextlib.suppress(Stopped), steps(stop):
            for batch in written:
                log.append(batch)
                assert path.stat().st_size <= 200 or numbers(path)[0] == log.number - len(batch) + 1
        last = log.number
        log.close()
        assert_gapless(path, last)
        assert len(older(path)) < files_max

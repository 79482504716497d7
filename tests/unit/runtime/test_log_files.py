"""The files of an operation log: bounded, in order, gapless wherever a rotation is stopped."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_runtime import LogLimits, OperationLog, errors, log_files
from rmi_runtime.oplog import operation_number
from tests.processes import descriptors
from tests.support import eventually

SIZE_BYTES_MAX = 1000
STEPS = ("open", "rename", "unlink")
"""What changes the files of a log, other than writing lines."""


def lines(first: int, at: datetime, entries: Iterable[str]) -> list[str]:
    return [
        f"OperationNumber: {number:03d} - {entry}" for number, entry in enumerate(entries, first)
    ]


def new_log(
    path: Path, size_bytes_max: int = SIZE_BYTES_MAX, files_max: int = 3
) -> OperationLog[str]:
    return OperationLog(path, lines, limits=LogLimits(size_bytes_max, files_max))


def fill(log: OperationLog[str], size_bytes: int) -> None:
    """Write at least so much, in batches of one line of a hundred bytes."""
    for _ in range(size_bytes // 100):
        log.append(["x" * (100 - len("OperationNumber: 100 - \n"))])


def older(path: Path) -> list[Path]:
    """The older files, the oldest first."""
    found = [file for file in path.parent.glob("*.log.*") if file.suffix[1:].isdigit()]
    return sorted(found, key=lambda file: -int(file.suffix[1:]))


def numbers(file: Path) -> list[int | None]:
    return [operation_number(text) for text in file.read_text().splitlines()]


def kept(path: Path) -> list[int | None]:
    """The numbers in all files, in the order of the files."""
    files = [*older(path), *([path] if path.exists() else [])]
    return [number for file in files for number in numbers(file)]


def assert_gapless(path: Path, last: int) -> None:
    found = kept(path)
    assert found == list(range(last - len(found) + 1, last + 1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.data.log"


class Stopped(BaseException):
    """The process is no more."""


@contextlib.contextmanager
def steps(on_step: Callable[[str, bool], None]) -> Iterator[None]:
    """Call *on_step* with the name of each step, before it (False) and after it (True)."""
    with pytest.MonkeyPatch.context() as patched:
        for name in STEPS:
            patched.setattr(log_files.os, name, _observed(name, on_step))
        yield


def _observed(name: str, on_step: Callable[[str, bool], None]) -> Callable[..., Any]:
    step = getattr(os, name)

    def observed(*args: Any, **options: Any) -> Any:
        on_step(name, False)
        result = step(*args, **options)
        on_step(name, True)
        return result

    return observed


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


CONTENDER = """
import sys
from rmi_runtime import OperationLog, errors

for _ in sys.stdin:
    log = OperationLog(sys.argv[1], lambda first, at, entries: [])
    try:
        log.open()
    except errors.Conflict:
        print("refused", flush=True)
    else:
        print("admitted", flush=True)
        log.close()
"""


class Contender:
    """Another process that tries to open the log whenever it is told to."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=20)

    def tries(self) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("try\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


def test_another_process_is_refused_at_every_step_of_a_rotation(path: Path) -> None:
    answers: list[str] = []
    with Contender(path) as contender:
        with new_log(path) as log:
            fill(log, 3000)
            with steps(lambda name, after: answers.append(contender.tries())):
                fill(log, 2000)
            answers.append(contender.tries())
            assert len(answers) == 1 + 2 * 10
            assert set(answers) == {"refused"}
        assert contender.tries() == "admitted"


def test_a_second_writer_in_the_same_process_is_refused_after_a_rotation(path: Path) -> None:
    with new_log(path) as log:
        fill(log, 1500)
        with pytest.raises(errors.Conflict, match="another process"):
            new_log(path).open()
        fill(log, 100)
        assert log.lost == 0


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


WRITER = """
import sys
from rmi_runtime import LogLimits, OperationLog

def lines(first, at, entries):
    return [f"OperationNumber: {number} - {entry}" for number, entry in enumerate(entries, first)]

with OperationLog(sys.argv[1], lines, limits=LogLimits(1000, 3)) as log:
    while True:
        log.append(["x" * 70] * (log.number % 5 + 1))
        print(log.number, flush=True)
"""


@pytest.mark.parametrize("lives", [1, 400, 1001, 2022])
def test_what_a_killed_process_has_written_is_there_and_numbers_go_on(
    path: Path, lives: int
) -> None:
    with new_log(path) as log:
        fill(log, 2500)
    last = 25
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            for _ in range(lives):
                last = int(writer.stdout.readline())
            writer.kill()
        with new_log(path) as log:
            assert log.number >= last
            assert_gapless(path, log.number)
        assert len(older(path)) <= 2


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

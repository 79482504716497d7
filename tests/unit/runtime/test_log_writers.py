"""The one writer of an operation log: real processes that would be a second one, or are killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rmi_runtime import errors
from tests.unit.runtime.small_logs import assert_gapless, fill, new_log, older, steps


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.data.log"


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

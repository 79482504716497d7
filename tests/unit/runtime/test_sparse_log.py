"""What strangers cause is logged, and does not fill the disk."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from rmi_runtime.sparse_log import Sparingly, sparse_logger


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def log(clock: list[float], caplog: pytest.LogCaptureFixture) -> logging.Logger:
    made = logging.getLogger("tests.sparse")
    made.filters.clear()
    made.addFilter(Sparingly(3, lambda: clock[0]))
    caplog.set_level(logging.INFO)
    return made


def test_lines_in_a_second_are_bounded_and_the_rest_is_counted(
    log: logging.Logger, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        log.info("line %d", number)
    assert caplog.messages == ["line 0", "line 1", "line 2"]
    clock[0] += 1.0
    log.info("100%% of %s", "them")
    log.info("another")
    assert caplog.messages[3:] == ["100% of them (7 more lines were left out)", "another"]


def test_warnings_always_get_through(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        log.warning("mind")
    assert caplog.messages == ["mind"] * 10


def test_a_logger_is_made_sparse_once() -> None:
    assert sparse_logger("tests.sparse.once") is sparse_logger("tests.sparse.once")
    assert len(logging.getLogger("tests.sparse.once").filters) == 1


def test_a_program_that_set_up_no_logging_is_not_written_to() -> None:
    program = "import logging, rmi_runtime; logging.getLogger('rmi_runtime.daemon').error('x')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""

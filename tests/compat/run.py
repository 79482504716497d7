"""Runs rows in directions, and says what came of it."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.compat.rows  # noqa: F401  (adds the rows)
from tests.compat.table import DIRECTIONS, ROWS, Direction, Row
from tests.compat.world import Servers, World

PASSED, FAILED, SKIPPED, NOT_RUN = "passed", "failed", "skipped", "not run"


def cases() -> Iterator[tuple[Row, Direction]]:
    """Return every row with every direction in which it makes sense."""
    for row in ROWS:
        for direction in DIRECTIONS:
            if row.check_for(direction) is not None:
                yield row, direction


def run(row: Row, direction: Direction, servers: Servers, directory: Path) -> None:
    """Run one row in one direction. Raises whatever its check raises."""
    check = row.check_for(direction)
    assert check is not None
    with World(direction, servers, directory) as world:
        check(world)


def run_all() -> Iterator[tuple[Row, dict[Direction, str], list[str]]]:
    """Run everything; yield each row with what came of it and the errors."""
    servers = Servers()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for row in ROWS:
                outcomes, problems = {}, []
                for direction in DIRECTIONS:
                    outcome, problem = _outcome(row, direction, servers, Path(name))
                    outcomes[direction] = outcome
                    problems += [f"{row.name} ({direction}): {problem}"] if problem else []
                yield row, outcomes, problems
        finally:
            servers.close()


def _outcome(row: Row, direction: Direction, servers: Servers, directory: Path) -> tuple[str, str]:
    if row.check_for(direction) is None:
        return NOT_RUN, ""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            run(row, direction, servers, directory)
    except pytest.skip.Exception:
        return SKIPPED, ""
    except (Exception, pytest.fail.Exception) as error:
        return FAILED, f"{type(error).__name__}: {error}"
    return PASSED, ""

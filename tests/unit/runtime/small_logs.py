"""What the tests of a log's files share: logs with small bounds, and an eye on each step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rmi_runtime import LogLimits, OperationLog
from rmi_runtime.files import log_files
from rmi_runtime.files.oplog import operation_number

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

"""The files of one log: the current one, older ones, and a lock.

    NAME.log         is written now
    NAME.log.1       was written before; NAME.log.2 before that, and so on
    NAME.log.lock    is locked by the writer. It is never renamed or removed, so there is one lock
                     for the log's name, whatever happens to the files beside it

Files are moved so that a stop between any two steps leaves the files in their order, and leaves no
line out but those of the oldest file, which goes. Whoever goes on from there does the rest.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How much of a log is kept: the current file and some older ones.

    Attributes:
        size_bytes_max: of one file. A batch is not divided: one that is larger than this has a
            file of its own.
        files_max: the current file and the older ones. At least 2: while the current one is empty,
            only an older one tells the last number.

    Raises:
        ValueError: one of them is too small.
    """

    size_bytes_max: int = 1024 * 1024 * 1024
    files_max: int = 2

    def __post_init__(self) -> None:
        if self.size_bytes_max < 1:
            raise ValueError(f"size_bytes_max is {self.size_bytes_max}; at least 1 is needed")
        if self.files_max < 2:
            raise ValueError(
                f"files_max is {self.files_max}; at least 2 are needed: the current and an older"
            )


def open_current(path: Path) -> int:
    """Open the current file for appending, make it if it is missing; return the descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def older_files(path: Path, files_max: int) -> list[Path]:
    """Return where the older files of the log at *path* are or would be, the newest first."""
    return [_numbered(path, number) for number in range(1, files_max)]


def set_aside(path: Path, files_max: int) -> None:
    """Make the current file the newest of the older ones; the oldest goes if there are too many.

    Does nothing if there is no current file: then this was done before.

    Args:
        path: the current file.
        files_max: how many files there may be when a new current one is begun.

    Raises:
        OSError: a file cannot be moved. Call it again to go on.
    """
    if not path.exists():
        return
    older = older_files(path, files_max)
    # A place that is free, because there are few files or a shift was broken off, ends the shift.
    free = next((place for place, file in enumerate(older) if not file.exists()), None)
    if free is None:
        free = len(older) - 1
        _remove(older[free])
    for place in range(free, 0, -1):
        os.rename(older[place - 1], older[place])
    os.rename(path, older[0])


def remove_beyond(path: Path, files_max: int) -> None:
    """Remove the older files that a larger *files_max* has left, as far as that is possible."""
    beyond = itertools.takewhile(
        Path.is_file, map(partial(_numbered, path), itertools.count(files_max))
    )
    # From the last one on: what is left when this is broken off is found the next time.
    for file in reversed(list(beyond)):
        try:
            _remove(file)
        except OSError as error:
            log.warning("cannot remove %s, which is one file too many: %s", file, error)
            return


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _remove(file: Path) -> None:
    """Remove *file*'s name now, and give its space back in a thread.

    The space of a gibibyte takes the better part of a second, which an event loop has not. A
    rename onto the name would take as long, and on ext4 write the renamed file out besides.
    """
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.unlink(file)
    finally:
        try:
            threading.Thread(target=os.close, args=(fd,), daemon=True).start()
        except RuntimeError:  # no thread to be had
            os.close(fd)

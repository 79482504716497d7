"""An operation log: one line per operation, numbered without a gap or a repeat.

Numbers go on where the file ends, also after ``kill -9``: a last line that was torn is cut off when
the log is opened. A log that cannot be written (a full disk) never fails the operation that is
logged: the entries are counted in :attr:`OperationLog.lost`, the log says so once, and numbering
goes on without a gap when writing works again.

The line format is the caller's business; by default a line's number is found as the bank's logs
write it: ``... - OperationNumber: 9 - ...``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from rmi_runtime import errors

Entry = TypeVar("Entry")

log = logging.getLogger(__name__)

_BLOCK_BYTES = 64 * 1024
_TAIL_BYTES_MAX = 1024 * 1024
"""How far back from the end of the file a number is looked for."""

_OPERATION_NUMBER = re.compile(r"OperationNumber: ([0-9]{1,18})\b")


def operation_number(line: str) -> int | None:
    """Return the number in a line that says ``OperationNumber: 9``, or None if it says none."""
    found = _OPERATION_NUMBER.search(line)
    return int(found.group(1)) if found else None


class OperationLog(Generic[Entry]):
    """One log file with one writer.

    Args:
        path: the file; it and its directory are made if missing.
        format_lines: makes the lines (without line ends) of a batch: given the number of the first,
            the time of logging and the entries. Line breaks inside a line are written as ``\\n``,
            so that an entry stays one line.
        read_number: finds the number in such a line, or None; used once, when the file is opened.
        now: the clock of the lines.

    Attributes:
        number: number of the last line in the file; 0 if there is none.
        lost: entries that could not be written since the log was opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        format_lines: Callable[[int, datetime, Iterable[Entry]], list[str]],
        *,
        read_number: Callable[[str], int | None] = operation_number,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.path = Path(path)
        self.number = 0
        self.lost = 0
        self._format_lines = format_lines
        self._read_number = read_number
        self._now = now
        self._fd = -1
        self._size_bytes = 0  # of the whole lines in the file
        self._failing = False

    def __enter__(self) -> OperationLog[Entry]:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the file for appending, cut off a torn last line and find the last number.

        Raises:
            Conflict: another process writes this file.
            OSError: the file cannot be opened.
        """
        if self._fd >= 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            _lock(fd, self.path)
            self.number, self._size_bytes = self._read_end(fd)
            if os.fstat(fd).st_size > self._size_bytes:
                os.ftruncate(fd, self._size_bytes)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def append(self, entries: Iterable[Entry]) -> None:
        """Write one line per entry, all in one write. Never fails because of the disk.

        Args:
            entries: what happened, in order.
        """
        lines = self._format_lines(self.number + 1, self._now(), entries)
        if not lines:
            return
        text = "\n".join(lines) + "\n"
        if text.count("\n") != len(lines) or "\r" in text:
            text = "\n".join(map(_one_line, lines)) + "\n"
        if self._write(text.encode("utf-8", "backslashreplace")):
            self.number += len(lines)
        else:
            self.lost += len(lines)

    def close(self) -> None:
        """Close the file. Entries appended later are lost, and counted as such."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, data: bytes) -> bool:
        """Write *data* wholly or leave the file as it was; return whether it was written."""
        try:
            if self._fd < 0:
                raise OSError(errno.EBADF, "the log is not open")
            if self._failing:
                # The last write may have left half a line behind.
                os.ftruncate(self._fd, self._size_bytes)
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, memoryview(data)[written:])
        except OSError as error:
            self._say_lost(error)
            return False
        self._size_bytes += len(data)
        if self._failing:
            self._failing = False
            log.warning("%s is written again; %d entries were lost so far", self.path, self.lost)
        return True

    def _say_lost(self, error: OSError) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size_bytes)
        if not self._failing:
            self._failing = True
            log.error(
                "cannot write %s: %s. Operations go on unlogged; free some space", self.path, error
            )

    def _read_end(self, fd: int) -> tuple[int, int]:
        """Return the last whole line's number (0 if none) and where that line ends, in bytes."""
        size_bytes = os.fstat(fd).st_size
        tail = b""
        start = size_bytes
        whole_end = -1  # where the last whole line ends
        while start > 0:
            step = min(_BLOCK_BYTES, start)
            start -= step
            tail = os.pread(fd, step, start) + tail
            if whole_end < 0:
                whole_end_in_tail = tail.rfind(b"\n") + 1
                tail = tail[:whole_end_in_tail]  # what is torn is not kept, however long
                whole_end = start + whole_end_in_tail if tail else -1
            if whole_end >= 0:
                number = self._last_number(tail, starts_whole=start == 0)
                if number is not None:
                    return number, whole_end
                if whole_end - start >= _TAIL_BYTES_MAX:
                    return 0, whole_end
        return 0, max(whole_end, 0)

    def _last_number(self, tail: bytes, *, starts_whole: bool) -> int | None:
        lines = tail.split(b"\n")[:-1]
        if not starts_whole:
            lines = lines[1:]  # its beginning is in the block before
        for line in reversed(lines):
            number = self._read_number(line.decode("utf-8", "replace"))
            if number is not None:
                return number
        return None


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise errors.Conflict(
            f"{path} is being written by another process, and two writers would repeat numbers; "
            "is the same service running twice?",
            path=str(path),
        ) from None
    except OSError as error:
        # Some network file systems cannot lock; the log works there as well.
        log.warning("cannot lock %s: %s", path, error)

"""An operation log: one line per operation, numbered without a gap or a repeat.

Numbers go on where the file ends, also after ``kill -9``: a last line that was torn is cut off when
the log is opened. A log that cannot be written (a full disk) never fails the operation that is
logged: the entries are counted in :attr:`OperationLog.lost`, the log says so once, and numbering
goes on without a gap when writing works again.

A file has a bound. When the next batch would pass it, the file becomes ``NAME.log.1`` and a new one
is begun, in which the numbers go on (see :mod:`rmi_runtime.files.log_files`).

The line format is the caller's business; by default a line's number is found as the bank's logs
write it: ``... - OperationNumber: 9 - ...``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from rmi_runtime.files import log_files
from rmi_runtime.files.file_lock import lock_beside
from rmi_runtime.files.log_files import LogLimits

Entry = TypeVar("Entry")

log = logging.getLogger(__name__)

WRITE_OUT_BYTES = 1024 * 1024
"""The system is asked to begin writing the log out when so much of it has come. Left to itself, it
would gather for half a minute, and keep the disk busy with that for a tenth of a second, in which
no commit comes through."""

_BLOCK_BYTES = 64 * 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TAIL_BYTES_MAX = 1024 * 1024
"""How far back from the end of the file a number is looked for."""

DEFAULT_LIMITS = LogLimits()

_OPERATION_NUMBER = re.compile(r"OperationNumber: ([0-9]{1,18})\b")


def operation_number(line: str) -> int | None:
    """Return the number in a line that says ``OperationNumber: 9``, or None if it says none."""
    found = _OPERATION_NUMBER.search(line)
    return int(found.group(1)) if found else None


class OperationLog(Generic[Entry]):
    """One log with one writer.

    Args:
        path: the current file; it and its directory are made if missing.
        format_lines: makes the lines (without line ends) of a batch: given the number of the first,
            the time of logging and the entries. Line breaks inside a line are written as ``\\n``,
            so that an entry stays one line.
        read_number: finds the number in such a line, or None; used once, when the file is opened.
        now: the clock of the lines.
        limits: how much is kept.

    Attributes:
        number: number of the last line; 0 if there is none.
        lost: entries that could not be written since the log was opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        format_lines: Callable[[int, datetime, Iterable[Entry]], list[str]],
        *,
        read_number: Callable[[str], int | None] = operation_number,
        now: Callable[[], datetime] = datetime.now,
        limits: LogLimits = DEFAULT_LIMITS,
    ) -> None:
        self.path = Path(path)
        self.number = 0
        self.lost = 0
        self._format_lines = format_lines
        self._read_number = read_number
        self._now = now
        self._limits = limits
        self._size_bytes_max = limits.size_bytes_max
        self._lock_fd = -1
        self._fd = -1
        self._size_bytes = 0  # of the whole lines in the file
        self._written_out = 0  # up to here the system has been asked to write the file out
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
            Conflict: another process writes this log.
            OSError: a file cannot be opened.
        """
        if self._fd >= 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_fd = lock_beside(self.path, "two writers would repeat numbers")
        try:
            self._fd = log_files.open_current(self.path)
            number, self._size_bytes = self._read_end(self._fd)
            if os.fstat(self._fd).st_size > self._size_bytes:
                os.ftruncate(self._fd, self._size_bytes)
            self._written_out = self._size_bytes
            self.number = self._read_older() if number is None else number
        except BaseException:
            self.close()
            raise
        log_files.remove_beyond(self.path, self._limits.files_max)

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
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1

    def _write(self, data: bytes) -> bool:
        """Write *data* wholly or leave the file as it was; return whether it was written."""
        try:
            if self._fd < 0:
                raise OSError(errno.EBADF, "the log is not open")
            if self._failing:
                # The last write may have left half a line behind.
                os.ftruncate(self._fd, self._size_bytes)
            if self._size_bytes + len(data) > self._size_bytes_max and self._size_bytes:
                self._begin_file()
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, memoryview(data)[written:])
        except OSError as error:
            self._say_lost(error)
            return False
        self._size_bytes += len(data)
        if self._size_bytes - self._written_out >= WRITE_OUT_BYTES:
            self._write_out()
        if self._failing:
            self._failing = False
            log.warning("%s is written again; %d entries were lost so far", self.path, self.lost)
        return True

    def _write_out(self) -> None:
        """Ask the system to begin with all whole pages; nobody waits for the disk."""
        end = self._size_bytes - self._size_bytes % _PAGE_BYTES
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                # Nobody reads them soon: they are no use in memory either.
                length = end - self._written_out
                os.posix_fadvise(self._fd, self._written_out, length, os.POSIX_FADV_DONTNEED)
        self._written_out = end

    def _begin_file(self) -> None:
        """Set the file aside and go on in a new one; what fails is tried again with the next batch.

        Until the new file is there, the old one stays open.
        """
        log_files.set_aside(self.path, self._limits.files_max)
        fd = log_files.open_current(self.path)
        old_fd, self._fd = self._fd, fd
        self._size_bytes = self._written_out = 0
        with contextlib.suppress(OSError):  # its lines were written
            os.close(old_fd)

    def _say_lost(self, error: OSError) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size_bytes)
        if not self._failing:
            self._failing = True
            log.error(
                "cannot write %s: %s. Operations go on unlogged; free some space", self.path, error
            )

    def _read_older(self) -> int:
        """Return the last number in the older files; 0 if there is none.

        The current file says none when it was just begun, or is still missing.
        """
        for path in log_files.older_files(self.path, self._limits.files_max):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                number, _ = self._read_end(file.fileno())
                if number is not None:
                    return number
        return 0

    def _read_end(self, fd: int) -> tuple[int | None, int]:
        """Return the last number, None if none is found, and where the last whole line ends."""
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
                    return None, whole_end
        return None, max(whole_end, 0)

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

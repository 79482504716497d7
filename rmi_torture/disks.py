"""Disks for :mod:`rmi_torture.vfs`: one that remembers, one that fails, one that forgets."""

from __future__ import annotations

import threading
from typing import Literal, NamedTuple

from rmi_torture.vfs import FULL, IOERR_FSYNC, IOERR_WRITE, OK, RawFile

BLOCK = 4096


class PlainDisk:
    """Does what it is asked."""

    def opened(self, path: str, raw: RawFile) -> None:
        """Take note of nothing."""

    def read(self, path: str, raw: RawFile, size: int, offset: int) -> bytes | int:
        """Read."""
        return raw.read(size, offset)

    def write(self, path: str, raw: RawFile, data: bytes, offset: int) -> int:
        """Write."""
        return raw.write(data, offset)

    def truncate(self, path: str, raw: RawFile, size: int) -> int:
        """Cut off."""
        return raw.truncate(size)

    def sync(self, path: str, raw: RawFile) -> int:
        """Sync."""
        return raw.sync()

    def size(self, path: str, raw: RawFile) -> int:
        """Return the size in bytes."""
        return raw.size()

    def delete(self, path: str) -> None:
        """Take note of nothing."""


class Happening(NamedTuple):
    """Something that was done to a disk.

    Attributes:
        what: ``write``, ``truncate``, ``sync`` or ``delete``.
        path: of the file.
        offset: where it was written; where it was cut off.
        data: what was written.
    """

    what: Literal["write", "truncate", "sync", "delete"]
    path: str
    offset: int = 0
    data: bytes = b""


class RecordingDisk(PlainDisk):
    """Does what it is asked, and remembers all of it.

    Attributes:
        happenings: in order.
    """

    def __init__(self) -> None:
        self.happenings: list[Happening] = []

    def write(self, path: str, raw: RawFile, data: bytes, offset: int) -> int:
        """Write, and remember."""
        self.happenings.append(Happening("write", path, offset, data))
        return raw.write(data, offset)

    def truncate(self, path: str, raw: RawFile, size: int) -> int:
        """Cut off, and remember."""
        self.happenings.append(Happening("truncate", path, size))
        return raw.truncate(size)

    def sync(self, path: str, raw: RawFile) -> int:
        """Sync, and remember."""
        code = raw.sync()
        self.happenings.append(Happening("sync", path))
        return code

    def delete(self, path: str) -> None:
        """Remember."""
        self.happenings.append(Happening("delete", path))


class FailingDisk(PlainDisk):
    """Fails from some write or sync on, as often as it is told to.

    Attributes:
        after: how many more writes and syncs succeed; -1: all.
        times: how many of the following fail; then all is well again.
        code: ``full`` or ``error``.
        count: writes and syncs so far.
    """

    def __init__(self) -> None:
        self.after = -1
        self.times = 0
        self.code: Literal["full", "error"] = "error"
        self.count = 0

    def fail(self, after: int, times: int, code: Literal["full", "error"]) -> None:
        """Succeed *after* more times, then fail *times* times."""
        self.after, self.times, self.code = after, times, code

    def _fails(self) -> bool:
        self.count += 1
        if self.after < 0 or not self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True

    def write(self, path: str, raw: RawFile, data: bytes, offset: int) -> int:
        """Write, or fail; half of what an input/output error spoils is written."""
        if not self._fails():
            return raw.write(data, offset)
        if self.code == "full":
            return FULL
        raw.write(data[: len(data) // 2], offset)
        return IOERR_WRITE

    def sync(self, path: str, raw: RawFile) -> int:
        """Sync, or fail. A full disk does not fail a sync."""
        if self.code == "error" and self._fails():
            return IOERR_FSYNC
        return raw.sync()


class ForgetfulDisk(PlainDisk):
    """Keeps what is written in memory until it is synced: who is killed loses it.

    So a SIGKILL to the process that uses it is a power cut to its files, as long as no other
    process reads them. (The index of SQLite's log is shared memory, which SQLite makes anew.)
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._blocks: dict[str, dict[int, bytearray]] = {}
        self._sizes: dict[str, int] = {}

    def opened(self, path: str, raw: RawFile) -> None:
        """Take note of the size, if nobody has it open yet."""
        with self._lock:
            self._blocks.setdefault(path, {})
            self._sizes.setdefault(path, raw.size())

    def read(self, path: str, raw: RawFile, size: int, offset: int) -> bytes | int:
        """Read what was written, synced or not."""
        with self._lock:
            blocks = self._blocks[path]
            found = raw.read(size, offset)
            if not blocks or isinstance(found, int):
                return found
            end = min(offset + size, self._sizes[path])
            buffer = bytearray(max(0, end - offset))
            buffer[: len(found)] = found[: len(buffer)]
            for number in range(offset // BLOCK, -(-end // BLOCK)):
                block = blocks.get(number)
                if block is not None:
                    start = max(offset, number * BLOCK)
                    stop = min(end, (number + 1) * BLOCK)
                    part = block[start - number * BLOCK : stop - number * BLOCK]
                    buffer[start - offset : stop - offset] = part
            return bytes(buffer)

    def write(self, path: str, raw: RawFile, data: bytes, offset: int) -> int:
        """Keep it in memory."""
        with self._lock:
            blocks = self._blocks[path]
            end = offset + len(data)
            for number in range(offset // BLOCK, -(-end // BLOCK)):
                base = number * BLOCK
                block = blocks.get(number)
                if block is None:
                    found = raw.read(BLOCK, base)
                    if isinstance(found, int):
                        return found
                    block = blocks[number] = bytearray(found.ljust(BLOCK, b"\0"))
                start, stop = max(offset, base), min(end, base + BLOCK)
                block[start - base : stop - base] = data[start - offset : stop - offset]
            self._sizes[path] = max(self._sizes[path], end)
            return OK

    def truncate(self, path: str, raw: RawFile, size: int) -> int:
        """Cut off, at once."""
        with self._lock:
            code = self._flush(path, raw)
            self._sizes[path] = size
            return code or raw.truncate(size)

    def sync(self, path: str, raw: RawFile) -> int:
        """Write what is in memory, and sync it."""
        with self._lock:
            return self._flush(path, raw) or raw.sync()

    def _flush(self, path: str, raw: RawFile) -> int:
        blocks = self._blocks[path]
        size = self._sizes[path]
        for number in sorted(blocks):
            base = number * BLOCK
            code = raw.write(bytes(blocks[number][: max(0, size - base)]), base)
            if code != OK:
                return code
        blocks.clear()
        return OK

    def size(self, path: str, raw: RawFile) -> int:
        """Return the size of what was written, synced or not."""
        with self._lock:
            return self._sizes[path]

    def delete(self, path: str) -> None:
        """Forget it."""
        with self._lock:
            self._blocks.pop(path, None)
            self._sizes.pop(path, None)

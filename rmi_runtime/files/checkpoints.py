"""Moves a write-ahead log into its database before a commit has to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

from rmi_runtime.errors import Unavailable
from rmi_runtime.files.sqlite import SqliteThread

log = logging.getLogger(__name__)

# The format of the log: https://www.sqlite.org/fileformat2.html#walformat
_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_PAGE_SIZE: Final = slice(8, 12)  # in the log's header
_SALTS: Final = slice(16, 24)
_FRAME_SALTS_AT: Final = 8  # in a frame's header
_SALTS_BYTES: Final = 8


class EarlyCheckpoints:
    """Copies most of a write-ahead log into its database, beside the commits.

    The commit that finds the log full (``PRAGMA wal_autocheckpoint``) copies it, and all that come
    after it wait: five milliseconds for 4,096 pages. When most of them were copied shortly before,
    on a connection that commits nothing, it has only the rest to copy. What goes wrong here is left
    to that commit, as it would be without.

    Args:
        path: the database. If that is no file with a log beside it, nothing is done.
        frames: begin when the log holds so many pages; a little less than what is full.
    """

    def __init__(self, path: str | Path, frames: int) -> None:
        self._path = path
        self._frames = frames
        self._thread: SqliteThread | None = None
        self._copied = b""  # the salts of the log that was copied last; a new one has others
        self._copying: asyncio.Task[None] | None = None
        self._fd = -1

    def start(self, thread: SqliteThread) -> None:
        """Begin to look at the log, which must have been opened.

        Args:
            thread: of a connection that commits nothing; started.
        """
        self._thread, self._copied = thread, b""
        with contextlib.suppress(OSError):
            self._fd = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)

    def look(self) -> None:
        """Begin if it is time to. Call this after each transaction: it takes microseconds."""
        if self._thread is None or self._fd < 0 or self._copying is not None:
            return
        try:
            header = os.pread(self._fd, _HEADER_BYTES, 0)
            page_bytes, salts = int.from_bytes(header[_PAGE_SIZE], "big"), header[_SALTS]
            if salts == self._copied:
                return
            frame_at = _HEADER_BYTES + (self._frames - 1) * (_FRAME_HEADER_BYTES + page_bytes)
            found = os.pread(self._fd, _SALTS_BYTES, frame_at + _FRAME_SALTS_AT)
        except OSError:
            return
        # Else it is of an earlier log. If of a transaction rolled back, this only comes too soon.
        if len(salts) == _SALTS_BYTES and found == salts:
            self._copied = salts
            self._copying = asyncio.get_running_loop().create_task(self._copy(self._thread))

    async def aclose(self) -> None:
        """Wait for what is under way, after the thread was closed. May be called twice."""
        if self._copying is not None:
            await self._copying
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _copy(self, thread: SqliteThread) -> None:
        try:
            await thread.run(_checkpoint)
        except (sqlite3.Error, Unavailable) as error:
            log.debug("no early checkpoint: %s", error)
        finally:
            self._copying = None


def _checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # waits for nobody

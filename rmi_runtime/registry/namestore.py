"""A name table that survives a restart: what changes is on disk, renewals never touch it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rmi_runtime.coalesce import Coalescer
from rmi_runtime.files.file_lock import lock_beside
from rmi_runtime.files.sqlite import SqliteThread
from rmi_runtime.registry.nametable import NameLimits, NameTable, Registration

log = logging.getLogger(__name__)

_LEASE = (float, type(None))

SWEEP_S = 0.5
"""Pause between two searches for leases that have run out."""

END_WAIT_S = 5.0
"""How long a disk may take over the last changes before the end no longer waits for it."""


class NameKeeper:
    """Keeps a name table on disk and drops what has expired; an async context manager.

    Changes of one moment are written together. A disk that cannot be written does not stop the
    look-ups or the announcements: what is missing is written as soon as it can be.

    Args:
        path: the SQLite file; None keeps the names in memory only.
        clock: monotonic, in seconds.
        limits: bounds of the table.
        sweep_s: pause between two searches for leases that have run out.

    Attributes:
        table: the names.

    Raises:
        Conflict: on entering: another process keeps its names in *path*, or the file is damaged.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        limits: NameLimits | None = None,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self.table = NameTable(clock, limits)
        self._sweep_s = sweep_s
        self._path = path
        self._lock_fd = -1
        self._database = SqliteThread(path, self._read) if path else None
        self._stored: dict[str, Registration] = {}
        self._files: dict[Path, int | None] = {}  # that are open, and which they are
        self._unwritten: dict[str, Registration | None] = {}
        self._writes: Coalescer[None, None] = Coalescer(self._write)
        self._failing = False
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> NameKeeper:
        if self._path and self._database:
            self._lock_fd = lock_beside(self._path, "two would undo each other's changes")
            try:
                await self._database.start()
                self.table.restore(self._stored)
            except BaseException:
                await self._close()
                raise
        self._sweeper = asyncio.create_task(self._sweep_for_ever())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sweeper:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        self.save_soon()
        try:
            async with asyncio.timeout(END_WAIT_S):
                await self._writes.aclose()
                await self._close()
        except TimeoutError:
            # The lock stays: what the disk has begun it may still do.
            log.warning("%s does not answer; its last changes may be lost", self._path)

    def _read(self, database: sqlite3.Connection) -> None:
        _create_table(database)
        self._stored = _load(database)
        if self._path:
            log_path = self._path.with_name(f"{self._path.name}-wal")
            self._files = {path: _which(path) for path in (self._path, log_path)}

    async def _close(self) -> None:
        if self._database:
            await self._database.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    async def save(self) -> None:
        """Return when all changes made so far are on disk.

        Raises:
            sqlite3.Error: they could not be written; that is tried again later.
        """
        await self._writes.submit(None)

    def save_soon(self) -> None:
        """See to it that the changes made so far get written, without waiting for it."""
        # A write that has not begun will have them too.
        if (self.table.changed or self._unwritten) and not self._writes.waiting:
            self._writes.submit_nowait(None).add_done_callback(_forget_error)

    async def _write(self, askers: list[None]) -> list[None]:
        self._unwritten.update(self.table.take_changes())
        if self._unwritten and self._database:
            try:
                await self._database.run(self._keep, self._unwritten)
            except Exception as error:
                if not self._failing:
                    self._failing = True
                    log.error("names cannot be written to disk: %s. Trying again", error)
                raise
        if self._failing:
            self._failing = False
            log.warning("names are written to disk again")
        self._unwritten = {}
        return askers

    def _keep(
        self, database: sqlite3.Connection, changes: Mapping[str, Registration | None]
    ) -> None:
        _store(database, changes)
        for path, opened in self._files.items():
            if _which(path) != opened:
                raise sqlite3.OperationalError(
                    f"{path} is gone, or another file is in its place; put it back, or start the "
                    "name server again and register anew what nobody announces"
                )

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_s)
            if dropped := self.table.sweep():
                log.info("%d names were dropped: their leases ran out", dropped)
            self.save_soon()


def _which(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _forget_error(write: asyncio.Future[None]) -> None:
    if not write.cancelled():
        write.exception()  # it was logged where it happened


def _create_table(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TABLE IF NOT EXISTS names (name TEXT PRIMARY KEY, uri TEXT NOT NULL,"
        " metadata TEXT NOT NULL, lease_s REAL) WITHOUT ROWID"
    )


def _load(database: sqlite3.Connection) -> dict[str, Registration]:
    rows = database.execute("SELECT name, uri, metadata, lease_s FROM names")
    try:
        return {row[0]: _registration(*row) for row in rows}
    except (TypeError, ValueError) as error:  # a file that was cut off reads as empty pages
        raise sqlite3.DatabaseError(f"the table of names makes no sense: {error}") from error


def _registration(name: Any, uri: Any, metadata: Any, lease_s: Any) -> Registration:
    tags = json.loads(metadata)
    texts = [name, uri, *tags]
    if not all(isinstance(text, str) for text in texts) or not isinstance(lease_s, _LEASE):
        raise ValueError(f"{name!r}, {uri!r}, {tags!r}, {lease_s!r}")
    return Registration(uri, frozenset(tags), lease_s)


def _store(database: sqlite3.Connection, changes: Mapping[str, Registration | None]) -> None:
    gone = [(name,) for name, registration in changes.items() if registration is None]
    there = [
        (name, known.uri, json.dumps(sorted(known.metadata)), known.lease_s)
        for name, known in changes.items()
        if known is not None
    ]
    database.execute("BEGIN IMMEDIATE")
    database.executemany("DELETE FROM names WHERE name = ?", gone)
    database.executemany("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)", there)
    database.execute("COMMIT")

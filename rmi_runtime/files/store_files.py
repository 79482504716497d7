"""Tells a lost store from a new one, and a deleted file from one that is still there.

SQLite makes a file that is missing, takes an empty one for a new database, and reads a database
without its log (``-wal``) as it was before. For a store that has promised to keep something all
three are losses, and must not pass in silence. So each store has an identity: a random number in a
table of its own, and beside the file in a *marker*, such as ``bank.id`` beside ``bank.sqlite``.
With it goes a *stamp*, which rises whenever the store is opened::

    bank.sqlite   table identity: id, stamp            written first, synced
    bank.id       "ID STAMP", one line of text         then this, whole, synced; then it is open

The order makes the marker the older of the two wherever the power fails: a store whose stamp is
below its marker's has lost something. A store without a marker (it was made before there were
markers, or the power failed in between) gets one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from rmi_runtime.errors import Conflict, Definite
from rmi_runtime.files.sqlite import check_tables

_ID_BYTES = 16
_MARKER = re.compile(r"([0-9a-f]{32}) ([0-9]{1,18})\n?")
_MARKER_SIZE_BYTES_MAX = 256

_TABLE = """
CREATE TABLE IF NOT EXISTS identity (  -- one row; the file NAME.id beside the store has the same
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,                  -- which store this is
    stamp INTEGER NOT NULL             -- rises whenever it is opened
)
"""
_INSERT = "INSERT INTO identity VALUES (1, ?, 0) ON CONFLICT (one) DO NOTHING"
_STAMP = "UPDATE identity SET stamp = stamp + 1"
_MARK = "SELECT id, stamp FROM identity"
_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'identity'"


class StoreLost(Conflict):
    """The store that should be here is missing, empty, older than it was, or another one."""

    code = "store_lost"


class StoreGone(Definite):
    """The store's files were deleted, replaced or damaged: what is not there cannot be had.

    No other service of the system can help, so that a caller is told at once.
    """

    code = "store_gone"
    http_status = 503
    builtin = OSError


class Mark(NamedTuple):
    """Which store it is, and how often it has been stamped."""

    id: str
    stamp: int


class StoreFiles:
    """The files of one SQLite store as one process uses them.

    Before the file is opened: :meth:`refuse_lost`. With the first connection: :meth:`admit`, then
    the schema may be made, then :meth:`stamp`. From then on :meth:`missing` tells whether what is
    written still goes to the files of that name.

    Args:
        path: the database file, or an SQLite URI if *uri* is true.
        uri: read *path* as a URI.

    Attributes:
        path: the database file.
        marker: the file beside it.
    """

    def __init__(self, path: str | Path, *, uri: bool = False) -> None:
        self.path = Path(unquote(urlsplit(str(path)).path)) if uri else Path(path)
        self.marker = self.path.with_suffix(".id")
        self._log = self.path.with_name(f"{self.path.name}-wal")
        self._index = self.path.with_name(f"{self.path.name}-shm")
        self._expected: Mark | None = None
        self._opened: dict[str, tuple[int, int]] = {}

    def refuse_lost(self) -> None:
        """Refuse to let SQLite make a new file where a store was. Does not open it.

        Raises:
            StoreLost: the file is missing or empty, although there was a store.
            OSError: the files cannot be looked at.
        """
        # What this process has had open itself counts, whatever has become of the marker.
        self._expected = self._expected or self._read_marker()
        size_bytes = _size_bytes(self.path)
        if size_bytes:
            return
        state = "is missing" if size_bytes is None else "is empty"
        if self._expected is not None:
            told = f"{self.marker.name} beside it tells that it was there"
            raise self._lost(f"{state}, but {told if self.marker.exists() else 'it was open here'}")
        if _size_bytes(self._log):
            raise StoreLost(
                f"{self.path} {state}, but its log {self._log.name} is not, and would be thrown "
                f"away; put {self.path.name} back beside it, or remove the log to begin anew",
                path=str(self.path),
            )

    def admit(self, connection: sqlite3.Connection) -> None:
        """Refuse a store that is not the one the marker tells of, or lost something. Only reads.

        Raises:
            StoreLost: it is another one, has no identity, or is older than it was.
            sqlite3.DatabaseError: its identity is none.
        """
        found = None
        if connection.execute(_HAS_TABLE).fetchone():
            found = _mark(connection)
        expected = self._expected
        if expected is None:
            return
        if found is None:
            raise self._lost(f"is not the store that {self.marker.name} tells of: it has no id")
        if found.id != expected.id:
            raise self._lost(f"is not the store that {self.marker.name} tells of: its id differs")
        if found.stamp < expected.stamp:
            raise self._lost(
                f"is older than it was (stamp {found.stamp}, and {self.marker.name} says "
                f"{expected.stamp}): its log {self._log.name} was lost, or an old copy put back"
            )

    def stamp(self, connection: sqlite3.Connection, *, settle: bool = False) -> None:
        """Give the store its identity if it has none, raise its stamp, and write the marker.

        The stamp goes to the log and stays out of the main file for a while; so if the log is lost,
        the main file shows it.

        Args:
            connection: with synchronous=FULL, in no transaction.
            settle: have all that was written so far in the main file first, as it is for a store
                that had no identity.

        Raises:
            OSError: the marker cannot be written.
            sqlite3.Error: the store cannot be.
        """
        if not connection.execute(_HAS_TABLE).fetchone():
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(_INSERT, (secrets.token_hex(_ID_BYTES),))
            connection.execute("COMMIT")
            settle = True
        if settle:
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_STAMP)
        mark = Mark(*connection.execute(_MARK).fetchone())
        connection.execute("COMMIT")
        write_private(self.marker, f"{mark.id} {mark.stamp}\n")
        self._expected = mark
        self._opened = {str(path): _which(path.stat()) for path in (self.path, self._log)}
        # The index is what processes agree by on what the log holds. Whoever opens the store after
        # it was deleted makes another, and both would write over each other's commits.
        with contextlib.suppress(FileNotFoundError):  # who has the file alone may do without
            self._opened[str(self._index)] = _which(self._index.stat())

    def missing(self) -> str | None:
        """Say what is wrong if the opened files are not there under their names any more.

        Three looks at the file system, a few microseconds.

        Returns:
            A sentence, or None if they are there, or were never opened.
        """
        for path, opened in self._opened.items():
            try:
                gone = _which(os.stat(path)) != opened
            except OSError:
                gone = True
            if gone:
                return (
                    f"{path} is gone, or another file is in its place: what is written now would "
                    "be lost. Stop the system, put the data directory back, and start again"
                )
        return None

    def _read_marker(self) -> Mark | None:
        try:
            with self.marker.open("rb") as file:
                text = file.read(_MARKER_SIZE_BYTES_MAX).decode(errors="replace")
        except FileNotFoundError:
            return None
        found = _MARKER.fullmatch(text)
        if found is None:
            raise StoreLost(
                f"{self.marker} does not hold the id of a store and a number; put a copy of it "
                f"back, or remove it to go on with {self.path.name} as it is",
                path=str(self.marker),
            )
        return Mark(found[1], int(found[2]))

    def _lost(self, what: str) -> StoreLost:
        return StoreLost(
            f"{self.path} {what}. Put the newest copy back, with its {self._log.name} if there is "
            f"one; or remove {self.marker} to go on with what is there now; or begin anew in "
            "another data directory",
            path=str(self.path),
        )


def _mark(connection: sqlite3.Connection) -> Mark:
    """Return what the table of the identity says.

    Raises:
        sqlite3.DatabaseError: nothing that was ever written there.
    """
    check_tables(connection, [_TABLE])
    row = connection.execute(_MARK).fetchone() or (None, None)
    if not isinstance(row[1], int) or not _MARKER.fullmatch(f"{row[0]} {row[1]}"):
        raise sqlite3.DatabaseError(
            f"its table identity should have an id of 32 hex digits and a stamp, and has {row}"
        )
    return Mark(*row)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all, and on disk.

    Args:
        path: the file; replaced if it is there, its directory is made if it is not.
        text: of the file.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _which(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino

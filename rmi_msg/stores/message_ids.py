"""Which message has an id: the latest ids in memory, the others in a table.

Messages are appended to theirs in the order they come. Ids come in no order: an index that is kept
up with every message costs a page of the disk for each of them. So they are *indexed* behind. A
*pass* takes all ids that came before it began, sorts them by their hashes into :data:`SLICES`
slices, and writes a few slices along with each transaction, so that neighbours share their pages.
What is not in the table yet every process that stores messages keeps in memory.

Several processes store into one file, in turns. How far the pass has come is in the file, one row;
which ids belong to a slice follows from that and from the messages. So each process goes on where
another stopped. A process takes note only of what it reads from the file as its turn begins: a
transaction that fails leaves nothing behind, there or in memory.

An id's hash is 64 bits of BLAKE2b. Ids that share one are told apart by the messages themselves.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

PASS_IDS: Final = 65_536
"""A pass begins when so many ids have come since the last."""

SLICES: Final = 1024
"""Slices of a pass, by the highest bits of the hashes."""

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS message_ids (
        hash INTEGER NOT NULL, -- of the message's id
        seq  INTEGER NOT NULL, -- of the message
        PRIMARY KEY (hash, seq)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS indexing (
        one      INTEGER PRIMARY KEY CHECK (one = 1),
        indexed  INTEGER NOT NULL, -- every message up to this seq is in message_ids
        pass_end INTEGER NOT NULL, -- those up to here are being entered
        slices   INTEGER NOT NULL  -- and so many slices of them are in
    )""",
    "INSERT INTO indexing VALUES (1, 0, 0, 0) ON CONFLICT (one) DO NOTHING",
)

_SHIFT: Final = 64 - (SLICES.bit_length() - 1)
_HALF: Final = SLICES // 2  # hashes are signed

_SINCE: Final = "SELECT hash, seq FROM messages WHERE seq > ? ORDER BY seq"
_IN_TABLE: Final = "SELECT seq FROM json_each(?) CROSS JOIN message_ids ON hash = value"
_WITH_IDS: Final = "SELECT seq, messages.id FROM json_each(?) CROSS JOIN messages ON seq = value"

_encode = msgspec.json.Encoder().encode


class Progress(NamedTuple):
    """How far the ids are indexed: the row of the table ``indexing``.

    Attributes:
        indexed: every message up to this seq is in the table.
        pass_end: those up to this one are being entered; equal to *indexed* if no pass is on.
        slices: how many slices of them are in.
    """

    indexed: int
    pass_end: int
    slices: int


def id_hash(id: str) -> int:
    """Return the hash of an id: a signed 64-bit integer."""
    digest = hashlib.blake2b(id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def index_all(connection: sqlite3.Connection) -> None:
    """Enter all messages at once.

    Args:
        connection: in a write transaction, and with an empty table.
    """
    connection.execute("INSERT INTO message_ids SELECT hash, seq FROM messages ORDER BY hash, seq")
    (last,) = connection.execute("SELECT ifnull(max(seq), 0) FROM messages").fetchone()
    connection.execute("UPDATE indexing SET indexed = ?, pass_end = ?, slices = 0", (last, last))


class MessageIds:
    """What one process keeps of the ids. For use within write transactions only, in turn."""

    def __init__(self) -> None:
        self._slices: list[dict[int, int]] = [{} for _ in range(SLICES)]  # hash -> seq
        self._clashes: list[tuple[int, int]] = []  # (hash, seq) whose hash another has there
        self._read = 0  # all messages up to here are in the slices or in the table
        self._progress = Progress(0, 0, 0)  # as it was in our last turn

    def find(self, connection: sqlite3.Connection, hashes: Mapping[str, int]) -> dict[str, int]:
        """Tell which ids have a message, and learn what other processes have stored.

        Args:
            connection: in a write transaction, in which nothing was stored yet.
            hashes: the ids, each with its hash.

        Returns:
            The seq of each that has one, by id.
        """
        self._catch_up(connection)
        slices = self._slices
        seqs = [seq for _, seq in self._clashes]
        for hash in hashes.values():
            if (seq := slices[(hash >> _SHIFT) + _HALF].get(hash)) is not None:
                seqs.append(seq)
        if self._progress.pass_end:
            found = connection.execute(_IN_TABLE, (_json([*hashes.values()]),))
            seqs += [seq for (seq,) in found]
        if not seqs:
            return {}
        rows = connection.execute(_WITH_IDS, (_json(seqs),))
        return {id: seq for seq, id in rows if id in hashes}

    def index(self, connection: sqlite3.Connection, stored: int) -> None:
        """Enter some of what is in memory into the table, with messages that were just stored.

        Twice as many as those, so that a pass ends before the next one is due.

        Args:
            connection: in the transaction in which :meth:`find` was called.
            stored: how many messages it has stored, at least one.
        """
        indexed, end, done = self._progress
        if indexed == end:
            if self._read - indexed < PASS_IDS:
                return
            end = self._read
        upto = min(SLICES, done - (-2 * stored * SLICES // (end - indexed)))
        rows = [row for number in range(done, upto) for row in self._slice_rows(number, end)]
        connection.executemany("INSERT OR IGNORE INTO message_ids VALUES (?, ?)", rows)
        if upto == SLICES:
            indexed, upto = end, 0
        connection.execute(
            "UPDATE indexing SET indexed = ?, pass_end = ?, slices = ?", (indexed, end, upto)
        )

    def _slice_rows(self, number: int, end: int) -> list[tuple[int, int]]:
        """Return (hash, seq) of what memory has of a slice up to *end*, in order."""
        rows = [row for row in self._slices[number].items() if row[1] <= end]
        rows += [row for row in self._clashes if _slice(row) == number and row[1] <= end]
        rows.sort()
        return rows

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Read what was stored since our last turn, and forget what is in the table by now."""
        row = connection.execute("SELECT indexed, pass_end, slices FROM indexing").fetchone()
        progress, before = Progress(*row), self._progress
        if progress.indexed > before.indexed:
            self._forget(range(SLICES), progress.indexed)
            before = Progress(progress.indexed, progress.pass_end, 0)
        self._forget(range(before.slices, progress.slices), progress.pass_end)
        self._progress = progress
        self._read = max(self._read, progress.indexed)
        rows = connection.execute(_SINCE, (self._read,)).fetchall()
        slices = self._slices
        for hash, seq in rows:
            if slices[(hash >> _SHIFT) + _HALF].setdefault(hash, seq) != seq:
                self._clashes.append((hash, seq))
        if rows:
            self._read = rows[-1][1]

    def _forget(self, numbers: range, upto: int) -> None:
        """Forget what some slices have up to a seq; it is in the table."""
        for number in numbers:
            kept = {hash: seq for hash, seq in self._slices[number].items() if seq > upto}
            self._slices[number] = kept
        if self._clashes:
            self._clashes = [
                row for row in self._clashes if row[1] > upto or _slice(row) not in numbers
            ]


def _slice(row: tuple[int, int]) -> int:
    return (row[0] >> _SHIFT) + _HALF


def _json(values: list[int]) -> str:
    return _encode(values).decode()

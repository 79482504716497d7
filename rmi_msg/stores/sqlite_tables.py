"""The tables of ``messages.sqlite`` and what is done to them, on a plain sqlite3 connection.

Each function below runs inside a transaction that its caller begins and commits. No clock in here.

The messages table is a log: ``seq`` is given out inside the one write transaction there can be at a
time, so the order of ``seq`` is the order of commits. Two things follow. A reader who has seen
number n will never find a smaller one that was not there, so a page is a range of ``seq``, and its
cursor the last number on it. And the queue needs no rows of its own: it is a ``head`` (everything
above waits) and a few claims, each a range of ``seq``; storing a message *is* offering it. Which
ids there are is kept apart (:mod:`~rmi_msg.stores.message_ids`).

A claim's end is a time of the machine's monotonic clock, which all processes share and nobody can
set. It starts anew at a reboot, when no holder of a claim is alive: an end further away than any
lease may last is therefore one from before the reboot, and counts as past.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from rmi_msg.checks import bad_cursor, log_begun_anew
from rmi_msg.stores import Claim, Consumed, Message, Page, Word, message_ids
from rmi_msg.stores.message_ids import MessageIds, id_hash
from rmi_runtime import check_tables, errors

TEXT_CHARS_MAX: Final = 4 * 1024 * 1024
"""Most characters of text on one page or in one claim, if it is more than one message."""

LEASE_S_MAX: Final = 300.0
"""Longest lease of a claim, in seconds."""

SCHEMA_VERSION: Final = 2

_MESSAGES: Final = """(
    seq         INTEGER PRIMARY KEY, -- rising, as nothing is ever deleted
    id          TEXT NOT NULL, -- no two are the same
    hash        INTEGER NOT NULL, -- of the id
    text        TEXT NOT NULL,
    received_at INTEGER NOT NULL, -- microseconds since 1970, UTC
    logger      TEXT NOT NULL
)"""

_SCHEMA: Final = (
    f"CREATE TABLE IF NOT EXISTS messages {_MESSAGES}",
    *message_ids.SCHEMA,
    """CREATE TABLE IF NOT EXISTS consumed (
        seq         INTEGER PRIMARY KEY, -- rising, as nothing is ever deleted
        message     INTEGER NOT NULL UNIQUE REFERENCES messages (seq),
        consumed_at INTEGER NOT NULL, -- microseconds since 1970, UTC
        consumer    TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS queue (
        one  INTEGER PRIMARY KEY CHECK (one = 1),
        head INTEGER NOT NULL -- the last seq ever claimed; all above it wait
    )""",
    """CREATE TABLE IF NOT EXISTS claims (
        number    INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice: the fencing token
        seq_first INTEGER NOT NULL,
        seq_last  INTEGER NOT NULL,
        holder    TEXT,    -- NULL: offered again
        until_ns  INTEGER  -- of the monotonic clock
    )""",
    "INSERT INTO queue VALUES (1, 0) ON CONFLICT (one) DO NOTHING",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_LAST_SEQ: Final = {
    "messages": "SELECT ifnull(max(seq), 0) FROM messages",
    "consumed": "SELECT ifnull(max(seq), 0) FROM consumed",
}

_ID_AT: Final = {
    "messages": "SELECT id FROM messages WHERE seq = ?",
    "consumed": "SELECT id FROM consumed JOIN messages ON messages.seq = consumed.message"
    " WHERE consumed.seq = ?",
}

_CURSOR: Final = re.compile("([0-9]{1,18})(-[0-9a-f]{16})?")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables that are missing, and bring those of an earlier format up to date.

    Args:
        connection: in a write transaction.

    Raises:
        Conflict: the file was made by a later version of this program.
        sqlite3.DatabaseError: a table is missing, or not as it was made.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise errors.Conflict(
            f"the messages database has format {version}, and this program knows up to "
            f"{SCHEMA_VERSION}: run the program that made it, or another data directory"
        )
    if version == 1:
        _take_apart_format_1(connection)
    if version == SCHEMA_VERSION:  # made anew, a table that is gone would be a loss in silence
        check_tables(connection, _SCHEMA)
    for statement in _SCHEMA:
        connection.execute(statement)
    if version == 1:
        connection.execute("INSERT INTO consumed SELECT * FROM consumed_1")
        connection.execute("DROP TABLE consumed_1")
        message_ids.index_all(connection)


def _take_apart_format_1(connection: sqlite3.Connection) -> None:
    """Put messages into a table without an index of its own on their ids, as format 1 had."""
    connection.create_function("id_hash", 1, id_hash, deterministic=True)
    connection.execute(f"CREATE TABLE messages_2 {_MESSAGES}")
    connection.execute(
        "INSERT INTO messages_2 SELECT seq, id, id_hash(id), text, received_at, logger"
        " FROM messages ORDER BY seq"
    )
    connection.execute("CREATE TABLE consumed_1 AS SELECT * FROM consumed ORDER BY seq")
    connection.execute("DROP TABLE consumed")  # it refers to the next one
    connection.execute("DROP TABLE messages")
    connection.execute("ALTER TABLE messages_2 RENAME TO messages")


def put_many(
    connection: sqlite3.Connection,
    ids: MessageIds,
    messages: Sequence[tuple[str, str]],
    logger: str,
    received_at_us: int,
) -> list[Word]:
    """Insert the messages whose ids are not there yet.

    Args:
        connection: in a write transaction.
        ids: what this process keeps of the ids.
        messages: (id, text) pairs.
        logger: Pyro name of the logger.
        received_at_us: microseconds since 1970.

    Returns:
        A word per message, in order.
    """
    hashes = {id: id_hash(id) for id, _ in messages}
    known = ids.find(connection, hashes)
    new: dict[str, str] = {}
    for id, text in messages:
        if id not in known:
            new.setdefault(id, text)
    if new:
        connection.executemany(
            "INSERT INTO messages (id, hash, text, received_at, logger) VALUES (?, ?, ?, ?, ?)",
            [(id, hashes[id], text, received_at_us, logger) for id, text in new.items()],
        )
        ids.index(connection, len(new))
    if len(new) == len(messages):
        return ["new"] * len(messages)
    return _words(connection, messages, new, known)


def known(
    connection: sqlite3.Connection, ids: MessageIds, messages: Sequence[tuple[str, str]]
) -> list[Word]:
    """Tell which messages are there, and store none; see :meth:`MessageStore.known`."""
    there = ids.find(connection, {id: id_hash(id) for id, _ in messages})
    found = iter(_words(connection, [pair for pair in messages if pair[0] in there], {}, there))
    return [next(found) if id in there else "full" for id, _ in messages]


def _words(
    connection: sqlite3.Connection,
    messages: Sequence[tuple[str, str]],
    new: dict[str, str],
    known: dict[str, int],
) -> list[Word]:
    """Tell the new from the known: *new* are the texts by id, *known* the seqs."""
    words: list[Word] = []
    told: set[str] = set()
    for id, text in messages:
        if id in new and id not in told:
            told.add(id)
            words.append("new")
            continue
        if id in new:
            same = text == new[id]
        else:
            sql = "SELECT text = ? FROM messages WHERE seq = ?"
            (same,) = connection.execute(sql, (text, known[id])).fetchone()
        words.append("same" if same else "other")
    return words


def messages_page(connection: sqlite3.Connection, after: str | None, limit: int) -> Page[Message]:
    """Read the messages behind a cursor, in order; see :meth:`MessageStore.page`."""
    seq = _passed(connection, "messages", after)
    found = connection.execute(
        "SELECT seq, id, text, received_at, logger FROM messages"
        " WHERE seq > ? ORDER BY seq LIMIT ?",
        (seq, limit + 1),
    )
    rows, next = _cut(found, limit)
    return Page([Message(id, text, _iso(at), logger) for _, id, text, at, logger in rows], next)


def consumed_page(connection: sqlite3.Connection, after: str | None, limit: int) -> Page[Consumed]:
    """Read what was consumed behind a cursor, in order; see :meth:`ConsumedStore.page`."""
    seq = _passed(connection, "consumed", after)
    found = connection.execute(
        "SELECT consumed.seq, id, text, consumed_at, consumer"
        " FROM consumed JOIN messages ON messages.seq = consumed.message"
        " WHERE consumed.seq > ? ORDER BY consumed.seq LIMIT ?",
        (seq, limit + 1),
    )
    rows, next = _cut(found, limit)
    return Page([Consumed(id, text, _iso(at), by) for _, id, text, at, by in rows], next)


_Found = tuple[int, str, str, int, str]


def _cut(found: Iterable[_Found], limit: int) -> tuple[list[_Found], str | None]:
    """Take rows up to the limit and the bound on characters; return them and the cursor."""
    rows: list[_Found] = []
    chars = 0
    for row in found:
        chars += len(row[2])
        if rows and (len(rows) == limit or chars > TEXT_CHARS_MAX):
            return rows, _cursor(rows[-1][0], rows[-1][1])
        rows.append(row)
    return rows, None


def waiting(connection: sqlite3.Connection) -> bool:
    """Tell whether there is anything to claim."""
    (found,) = connection.execute(
        "SELECT (SELECT head FROM queue) < (SELECT ifnull(max(seq), 0) FROM messages)"
        " OR EXISTS (SELECT * FROM claims WHERE holder IS NULL)"
    ).fetchone()
    return bool(found)


def claim(
    connection: sqlite3.Connection, by: str, limit: int, lease_ns: int, now_ns: int
) -> Claim | None:
    """Claim the oldest range that is offered again, or else the next messages above the head.

    Args:
        connection: in a write transaction.
        by: Pyro name of the messages service.
        limit: most messages to take.
        lease_ns: how long the claim lasts, in nanoseconds.
        now_ns: the monotonic clock.

    Returns:
        The claim, or None if nothing waits. Its token is (number, first seq, last seq).
    """
    again = connection.execute(
        "SELECT number, seq_first, seq_last FROM claims WHERE holder IS NULL"
        " ORDER BY seq_first LIMIT 1"
    ).fetchone()
    if again is None:
        (head,) = connection.execute("SELECT head FROM queue").fetchone()
        first, end = head + 1, _last_seq(connection, "messages")
    else:
        number, first, end = again
        connection.execute("DELETE FROM claims WHERE number = ?", (number,))
    messages, last = _range(connection, first, end, limit)
    if not messages:
        return None
    if again is None:
        connection.execute("UPDATE queue SET head = ?", (last,))
    elif last < end:
        connection.execute(
            "INSERT INTO claims (seq_first, seq_last) VALUES (?, ?)", (last + 1, end)
        )
    number = connection.execute(
        "INSERT INTO claims (seq_first, seq_last, holder, until_ns) VALUES (?, ?, ?, ?)",
        (first, last, by, now_ns + lease_ns),
    ).lastrowid
    return Claim(messages, by, (int(number or 0), first, last))


def _range(
    connection: sqlite3.Connection, first: int, end: int, limit: int
) -> tuple[list[tuple[str, str]], int]:
    """Read messages from *first* to *end*, within the bounds; return them and the last seq."""
    messages: list[tuple[str, str]] = []
    last = end
    chars = 0
    for seq, id, text in connection.execute(
        "SELECT seq, id, text FROM messages WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
        (first, end, limit),
    ):
        chars += len(text)
        if messages and chars > TEXT_CHARS_MAX:
            break
        messages.append((id, text))
        last = seq
    return messages, last


def add(connection: sqlite3.Connection, claim: Claim, consumed_at_us: int) -> list[bool]:
    """Enter a claim's messages as consumed; see :meth:`ConsumedStore.add`.

    Args:
        connection: in a write transaction.
        claim: one that :func:`claim` made, whether or not it still holds.
        consumed_at_us: microseconds since 1970.
    """
    _, first, last = claim.token
    before = _last_seq(connection, "consumed")
    added = connection.execute(
        "INSERT INTO consumed (message, consumed_at, consumer)"
        " SELECT seq, ?, ? FROM messages WHERE seq BETWEEN ? AND ? ORDER BY seq"
        " ON CONFLICT (message) DO NOTHING",
        (consumed_at_us, claim.by, first, last),
    ).rowcount
    if added == len(claim.messages):
        return [True] * added
    return [
        bool(new)
        for (new,) in connection.execute(
            "SELECT seq > ? FROM consumed WHERE message BETWEEN ? AND ? ORDER BY message",
            (before, first, last),
        )
    ]


def done(connection: sqlite3.Connection, claim: Claim) -> bool:
    """Forget a claim; False if it was given to another. See :meth:`MessageQueue.done`."""
    number = claim.token[0]
    return connection.execute("DELETE FROM claims WHERE number = ?", (number,)).rowcount == 1


def give_back(connection: sqlite3.Connection, by: str) -> int:
    """Offer again all that *by* holds; return how many claims."""
    return connection.execute("UPDATE claims SET holder = NULL WHERE holder = ?", (by,)).rowcount


def any_run_out(connection: sqlite3.Connection, now_ns: int) -> bool:
    """Tell whether :func:`sweep` would find anything."""
    found = connection.execute(
        "SELECT 1 FROM claims WHERE holder IS NOT NULL AND NOT until_ns BETWEEN ? AND ?",
        _living_ends(now_ns),
    ).fetchone()
    return found is not None


def sweep(connection: sqlite3.Connection, now_ns: int) -> int:
    """Offer again what was claimed and not done in time; return how many claims."""
    return connection.execute(
        "UPDATE claims SET holder = NULL WHERE holder IS NOT NULL AND NOT until_ns BETWEEN ? AND ?",
        _living_ends(now_ns),
    ).rowcount


def _living_ends(now_ns: int) -> tuple[int, int]:
    """Return the first and last end that a living claim can have."""
    return now_ns, now_ns + int(LEASE_S_MAX * 1e9)


def _last_seq(connection: sqlite3.Connection, table: str) -> int:
    (last,) = connection.execute(_LAST_SEQ[table]).fetchone()
    return int(last)


def _cursor(seq: int, id: str) -> str:
    """Return the cursor behind a row, with a mark: another file has another message there."""
    return f"{seq}-{id_hash(id) & (1 << 64) - 1:016x}"


def _passed(connection: sqlite3.Connection, table: str, after: str | None) -> int:
    """Return the seq that a cursor is behind.

    Args:
        connection: to be read from.
        table: that the cursor is of.
        after: a cursor, with its mark or, as they were before, without; None: the beginning.

    Raises:
        InvalidRequest: it is none.
        LogBegunAnew: it is of another file, or of what this one has lost.
    """
    if after is None:
        return 0
    if not (found := _CURSOR.fullmatch(after)):
        raise bad_cursor(after)
    seq = int(found[1])
    if found[2]:
        row = connection.execute(_ID_AT[table], (seq,)).fetchone()
        if row is None or _cursor(seq, row[0]) != f"{seq}{found[2]}":
            raise log_begun_anew()
    return seq


@lru_cache(maxsize=1024)
def _iso(unix_us: int) -> str:
    """Return ``2026-01-31T12:00:00.000000Z`` for microseconds since 1970."""
    at = _EPOCH + timedelta(microseconds=unix_us)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

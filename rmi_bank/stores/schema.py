"""The SQLite schema of the books, and the statements that write and read them.

A group of commits is one transaction of a few statements that insert many rows each: see
:func:`insert_rows`. A statement is a single call into the library, during which Python's
interpreter lock is free. (With a statement per row the store's thread has to win that lock back
after every row, from a loop that is busy with other connections.)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

from rmi_bank.operations import ACCOUNT_MAX, BALANCE_END
from rmi_runtime import check_tables
from rmi_runtime.errors import Conflict

FORMAT = 2
"""Version of the schema, kept in ``PRAGMA user_version``."""

CACHE_KIB = 65536
"""Pages SQLite keeps in memory."""

LOG_PAGES_MAX = 4096
"""Pages in the write-ahead log before they go to the file itself, 16 MiB of them. Many commits
touch a page before it is written there once, and the sync that this takes is rare."""

EARLY_PAGES = LOG_PAGES_MAX * 15 // 16
"""With so many they begin to go there beside the commits, so that none waits for all of them."""


_SCHEMA = f"""
CREATE TABLE state (               -- one row
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL,        -- how often the store has been opened
    commit_no INTEGER NOT NULL,    -- the last commit
    folded_line INTEGER NOT NULL,  -- every journal line up to here is in accounts
    indexed_outcome INTEGER NOT NULL,  -- every outcome up to here is in request_ids
    transactions INTEGER NOT NULL  -- how many transactions the commits took
);
INSERT INTO state VALUES (1, 0, 0, 0, 0, 0);

CREATE TABLE accounts (            -- as of last_line; the view balances shows the present
    account INTEGER PRIMARY KEY CHECK (account BETWEEN 0 AND {ACCOUNT_MAX}),
    balance INTEGER NOT NULL,
    owner INTEGER,                 -- a client, or nobody
    last_line INTEGER NOT NULL,
    CHECK (account = 0 OR balance BETWEEN 0 AND {BALANCE_END - 1})
);
INSERT INTO accounts VALUES (0, 0, NULL, 0);

CREATE TABLE journal (             -- append only
    line INTEGER PRIMARY KEY,
    commit_no INTEGER NOT NULL,
    at INTEGER NOT NULL,           -- microseconds since 1970, UTC
    debit INTEGER NOT NULL,        -- the amount is taken from here
    credit INTEGER NOT NULL,       -- and given to here
    amount INTEGER NOT NULL CHECK (amount > 0),
    outcome INTEGER,               -- of the request that caused it, if one did
    debit_before INTEGER NOT NULL, -- the line before this one on the debited account, or 0
    credit_before INTEGER NOT NULL,
    CHECK (debit <> credit)
);

CREATE TABLE marks (               -- sign-posts in the chains of journal lines
    account INTEGER NOT NULL,
    line INTEGER NOT NULL,
    PRIMARY KEY (account, line)
) WITHOUT ROWID;

CREATE TABLE outcomes (            -- append only
    outcome INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,      -- 'client:id'
    commit_no INTEGER NOT NULL,
    operation TEXT NOT NULL,       -- what was asked: 'transfer 1 2 50'
    result TEXT NOT NULL           -- the balance it led to, or the refusal as JSON
);

CREATE TABLE request_ids (         -- of the outcomes up to indexed_outcome, and some above
    request_id TEXT PRIMARY KEY,
    outcome INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE tokens (
    id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,     -- SHA-256 in hex; the token itself is kept nowhere
    client INTEGER NOT NULL,
    role TEXT NOT NULL,
    created_at INTEGER NOT NULL,   -- microseconds since 1970, UTC, like the next two
    expires_at INTEGER,
    revoked_at INTEGER
);

CREATE VIEW balances AS            -- for people who look into the file
SELECT account, sum(change) AS balance FROM (
    SELECT account, balance AS change FROM accounts
    UNION ALL
    SELECT debit, -amount FROM journal JOIN accounts ON account = debit
    WHERE line > (SELECT folded_line FROM state) AND line > last_line
    UNION ALL
    SELECT credit, amount FROM journal JOIN accounts ON account = credit
    WHERE line > (SELECT folded_line FROM state) AND line > last_line
) GROUP BY account;
"""  # noqa: S608 (what is put in are constants of this program)

_ROWS = tuple(2**power for power in range(10, -1, -1))  # of a statement; at most 32,766 values
_FOLD = (
    "ON CONFLICT (account) DO UPDATE SET balance = excluded.balance, last_line = excluded.last_line"
)


def _inserts(table: str, columns: int, after: str = "", verb: str = "INSERT") -> dict[int, str]:
    row = f"({', '.join('?' * columns)})"
    return {rows: f"{verb} INTO {table} VALUES {', '.join([row] * rows)} {after}" for rows in _ROWS}


OPEN = _inserts("accounts (account, balance, owner, last_line)", 4)
JOURNAL = _inserts("journal", 9)
OUTCOMES = _inserts("outcomes", 5)
INDEX = _inserts("request_ids", 2, verb="INSERT OR IGNORE")
MARKS = _inserts("marks", 2)
FOLD = _inserts("accounts (account, balance, last_line)", 3, _FOLD)

STATE = """
UPDATE state SET commit_no = ?, folded_line = ?, indexed_outcome = ?,
    transactions = transactions + 1
"""


def insert_rows(
    connection: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert *rows*, as many with each statement as it takes.

    Args:
        connection: in a transaction.
        statements: number of rows -> statement, from the largest down to 1: :data:`JOURNAL` and
            its like.
        rows: what to insert.
    """
    at = 0
    for count, statement in statements.items():
        while len(rows) - at >= count:
            connection.execute(statement, tuple(chain.from_iterable(rows[at : at + count])))
            at += count


ACCOUNTS = """
SELECT count(*), min(account), max(account),
    json_group_array(balance), json_group_array(last_line),
    json_group_array(account) FILTER (WHERE owner IS NOT NULL),
    json_group_array(owner) FILTER (WHERE owner IS NOT NULL)
FROM (SELECT * FROM accounts ORDER BY account)
"""
"""All accounts by number: how many, the first and the last one, JSON arrays of their balances and
last lines; and those that somebody owns, with their owners."""

NUMBERS = "SELECT json_group_array(account) FROM (SELECT account FROM accounts ORDER BY account)"
"""The numbers of all accounts, as a JSON array."""

TOKENS_PAGE = """
SELECT id, client, role, created_at, expires_at, revoked_at FROM tokens
WHERE id > ? ORDER BY id LIMIT ?
"""

IDENTIFY = """
SELECT client, role FROM tokens
WHERE hash = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)
"""
"""Whose token it is, if it is good."""

ACCOUNTS_PAGE = "SELECT account, owner FROM accounts WHERE account > ? ORDER BY account LIMIT ?"

INDEXED = """
SELECT outcome FROM json_each(?) CROSS JOIN request_ids ON request_id = value
"""
"""Numbers of the outcomes of the request ids in a JSON array, those that are in the table."""

KNOWN = """
SELECT request_id, operation, result, commit_no
FROM json_each(?) CROSS JOIN outcomes ON outcome = value
"""
"""Outcomes by their numbers, in a JSON array."""

RECENT = "SELECT request_id, outcome FROM outcomes WHERE outcome > ? ORDER BY outcome"
"""The outcomes above a mark."""

MARK = "SELECT line FROM marks WHERE account = ? AND line > ? ORDER BY line LIMIT 1 OFFSET ?"
"""A sign-post of an account, some marks above a line."""

CHAIN = """
WITH RECURSIVE chain (line, before) AS (
    SELECT line, iif(debit = :account, debit_before, credit_before)
    FROM journal WHERE line = :last AND line > :after AND :account IN (debit, credit)
    UNION ALL
    SELECT j.line, iif(j.debit = :account, j.debit_before, j.credit_before)
    FROM chain JOIN journal AS j ON j.line = chain.before
    WHERE chain.before > :after AND :account IN (j.debit, j.credit)
)
SELECT j.line, j.commit_no, at, debit, credit, amount, request_id, before
FROM chain JOIN journal AS j USING (line) LEFT JOIN outcomes AS o ON o.outcome = j.outcome
ORDER BY line LIMIT :limit
"""
"""The first lines of an account above :after, by walking its chain back from :last; and with each
the number of the one before it. The walk ends at a line of others, which is damage."""


def set_up(connection: sqlite3.Connection) -> None:
    """Make the schema if the file is new, and begin a new epoch.

    Raises:
        Conflict: the file was made by another version of this program.
        sqlite3.DatabaseError: a table is missing, or not as it was made.
    """
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES_MAX}")
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        for statement in _statements(_SCHEMA):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    elif version != FORMAT:
        raise Conflict(
            f"the store has format {version}, and this program reads format {FORMAT}; "
            "use the version of the program that made it, or begin in another data directory",
            format=version,
        )
    else:
        check_tables(connection, _statements(_SCHEMA))
    connection.execute("UPDATE state SET epoch = epoch + 1")
    connection.execute("COMMIT")


def _statements(script: str) -> list[str]:
    """Split a script, leaving the statements inside a trigger together.

    ``executescript`` would commit before it begins, and a half-made schema could stay behind.
    """
    statements, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement)
            statement = ""
    return statements

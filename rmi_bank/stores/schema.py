"""The SQLite schema of the books, and the one statement that writes them.

A group of commits is written by inserting one row into the view ``commit_group``, whose trigger
unfolds the JSON arrays in it into the tables. SQLite runs that as one statement in one transaction:
the whole of it, up to the disk's answer, is a single call into the library, during which Python's
interpreter lock is free. (With a statement per row the store thread has to win that lock back
after every row, from a loop that is busy with other connections: measured at 100 rows, that takes
up to a thousand times as long as the rows do.)
"""

from __future__ import annotations

import sqlite3

from rmi_bank.operations import ACCOUNT_MAX, BALANCE_END
from rmi_runtime.errors import Conflict

FORMAT = 1
"""Version of the schema, kept in ``PRAGMA user_version``."""

CACHE_KIB = 65536
"""Pages SQLite keeps in memory."""

LOG_PAGES_MAX = 8192
"""Pages in the write-ahead log before they go to the file itself, 32 MiB of them. Many commits
touch a page before it is written there once, and the sync that this takes is rare."""


def _columns(count: int) -> str:
    return ", ".join(f"json_extract(value, '$[{i}]')" for i in range(count))


_SCHEMA = f"""
CREATE TABLE state (               -- one row
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL,        -- how often the store has been opened
    commit_no INTEGER NOT NULL,    -- the last commit
    folded_line INTEGER NOT NULL,  -- every journal line up to here is in accounts
    transactions INTEGER NOT NULL  -- how many transactions the commits took
);
INSERT INTO state VALUES (1, 0, 0, 0, 0);

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
    request_id TEXT,
    debit_before INTEGER NOT NULL, -- the line before this one on the debited account, or 0
    credit_before INTEGER NOT NULL,
    CHECK (debit <> credit)
);

CREATE TABLE marks (               -- sign-posts in the chains of journal lines
    account INTEGER NOT NULL,
    line INTEGER NOT NULL,
    PRIMARY KEY (account, line)
) WITHOUT ROWID;

CREATE TABLE outcomes (
    request_id TEXT PRIMARY KEY,   -- 'client:id'
    commit_no INTEGER NOT NULL,
    operation TEXT NOT NULL,       -- what was asked: 'transfer 1 2 50'
    result TEXT NOT NULL           -- the balance it led to, or the refusal as JSON
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

CREATE VIEW commit_group AS
SELECT '' AS journal, '' AS outcomes, '' AS opened, '' AS marks, '' AS folds,
       0 AS commit_no, 0 AS folded_line;

CREATE TRIGGER write_commit_group INSTEAD OF INSERT ON commit_group BEGIN
    INSERT INTO accounts (account, balance, owner, last_line)
        SELECT json_extract(value, '$[0]'), 0, json_extract(value, '$[1]'), 0
        FROM json_each(NEW.opened);
    INSERT INTO journal SELECT {_columns(9)} FROM json_each(NEW.journal);
    INSERT INTO outcomes SELECT {_columns(4)} FROM json_each(NEW.outcomes);
    INSERT INTO marks SELECT {_columns(2)} FROM json_each(NEW.marks);
    INSERT INTO accounts (account, balance, last_line)
        SELECT {_columns(3)} FROM json_each(NEW.folds) WHERE true
        ON CONFLICT (account) DO UPDATE
        SET balance = excluded.balance, last_line = excluded.last_line;
    UPDATE state SET commit_no = NEW.commit_no, folded_line = NEW.folded_line,
        transactions = transactions + 1;
END;
"""  # noqa: S608 (what is put in are constants of this program)

WRITE_GROUP = "INSERT INTO commit_group VALUES (?, ?, ?, ?, ?, ?, ?)"
"""Writes a group of commits; see the columns of ``commit_group``."""

ACCOUNTS = """
SELECT json_group_array(account), json_group_array(balance), json_group_array(last_line),
    json_group_array(owner) FROM accounts
"""
"""All accounts, one JSON array per column, in the same order."""

KNOWN = """
SELECT request_id, operation, result, commit_no FROM outcomes
WHERE request_id IN (SELECT value FROM json_each(?))
"""
"""Outcomes of the request ids in a JSON array."""

MARK = "SELECT line FROM marks WHERE account = ? AND line > ? ORDER BY line LIMIT 1 OFFSET ?"
"""A sign-post of an account, some marks above a line."""

CHAIN = """
WITH RECURSIVE chain (line, before) AS (
    SELECT line, iif(debit = :account, debit_before, credit_before)
    FROM journal WHERE line = :last AND line > :after
    UNION ALL
    SELECT j.line, iif(j.debit = :account, j.debit_before, j.credit_before)
    FROM chain JOIN journal AS j ON j.line = chain.before
    WHERE chain.before > :after
)
SELECT j.line, commit_no, at, debit, credit, amount, request_id
FROM chain JOIN journal AS j USING (line) ORDER BY line LIMIT :limit
"""
"""The first lines of an account above :after, by walking its chain back from :last."""


def set_up(connection: sqlite3.Connection) -> None:
    """Make the schema if the file is new, and begin a new epoch.

    Raises:
        Conflict: the file was made by another version of this program.
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
            "use the version of the program that made it",
            format=version,
        )
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

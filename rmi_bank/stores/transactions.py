"""What is done to the file of the books, on a plain sqlite3 connection. No clock in here."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from rmi_bank.locks import EPOCH_MAX
from rmi_bank.stores import Line, NewToken, Token, schema
from rmi_bank.stores.accounts import Accounts
from rmi_bank.stores.books import MARK_EVERY, Books, Plan, damaged
from rmi_bank.stores.request_index import RequestIndex
from rmi_runtime import StoreGone

log = logging.getLogger(__name__)

_NUMBER_END = 2**62  # of commits, lines and outcomes: far more than there can be

_decode = msgspec.json.Decoder(list[Any]).decode


def load(connection: sqlite3.Connection) -> tuple[int, Books]:
    """Return the epoch, and the books as they are on disk.

    Raises:
        Conflict: they do not balance, or hold what nobody writes: the file was damaged or edited.
    """
    try:
        return _load(connection)
    except (TypeError, ValueError) as error:  # a value that is none of its column's, or no row
        raise damaged(str(error)) from error
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
            raise  # the file's trouble, not a value's
        raise damaged(str(error)) from error


def _load(connection: sqlite3.Connection) -> tuple[int, Books]:
    numbers = connection.execute(
        "SELECT epoch, commit_no, folded_line, indexed_outcome,"
        " (SELECT ifnull(max(line), 0) FROM journal),"
        " (SELECT ifnull(max(outcome), 0) FROM outcomes) FROM state"
    ).fetchone()
    for number in numbers:  # else the first commit would fail on it, and all after it
        if type(number) is not int or not 0 <= number < _NUMBER_END:
            raise damaged(f"it is numbered {number!r}, not 0 to {_NUMBER_END - 1}")
    epoch, commit_no, folded_line, indexed_outcome, last_line, _ = numbers
    if epoch > EPOCH_MAX:
        raise damaged(f"it has been opened {epoch} times, which nobody has")
    if folded_line > last_line:  # what is above it would not be looked for
        raise damaged(f"line {folded_line} was folded, and the last one is {last_line}")
    accounts = _accounts(connection)
    books = Books(
        accounts,
        commit_no=commit_no,
        folded_line=folded_line,
        index=RequestIndex(connection.execute(schema.RECENT, (indexed_outcome,)), indexed_outcome),
    )
    sql = "SELECT line, debit, credit, amount FROM journal WHERE line > ? ORDER BY line"
    books.replay(connection.execute(sql, (folded_line,)))
    return epoch, books


def _accounts(connection: sqlite3.Connection) -> Accounts:
    # Columns as JSON arrays: a third of the time of a million rows.
    count, first, last, *columns = connection.execute(schema.ACCOUNTS).fetchone()
    if first != 0:  # one below it would put all balances off by one account
        raise damaged(f"its first account is {first}, not 0, which is cash")
    balances, last_lines, owned, owners = map(_decode, columns)
    numbers: Sequence[int] = range(count)
    if last != count - 1:
        numbers = _decode(*connection.execute(schema.NUMBERS).fetchone())
    return Accounts.of(numbers, balances, last_lines, dict(zip(owned, owners, strict=True)))


def insert(connection: sqlite3.Connection, plan: Plan) -> None:
    """Write a plan, within a transaction."""
    opened = [(account, 0, owner, 0) for account, owner in plan.opened]
    for statements, rows in (
        (schema.OPEN, opened),
        (schema.JOURNAL, plan.journal),
        (schema.OUTCOMES, plan.outcomes),
        (schema.INDEX, plan.index),
        (schema.MARKS, plan.marks),
        (schema.FOLD, plan.folds),
    ):
        if rows:
            schema.insert_rows(connection, statements, rows)
    connection.execute(schema.STATE, (plan.commit_no, plan.folded_line, plan.indexed_outcome))


def fetch(connection: sqlite3.Connection, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
    """Return all rows of a query."""
    return connection.execute(sql, parameters).fetchall()


def statement(
    connection: sqlite3.Connection, account: int, after: int, limit: int, last: int
) -> list[Line]:
    """Return at most *limit* lines of *account* above line *after*; *last* is its last one.

    Raises:
        StoreGone: its chain of lines is broken: the file was damaged or edited.
    """
    lines: list[Line] = []
    while len(lines) < limit and after < last:
        left = limit - len(lines)
        mark = connection.execute(schema.MARK, (account, after, left // MARK_EVERY)).fetchone()
        rows = connection.execute(
            schema.CHAIN,
            {
                "account": account,
                "after": after,
                "last": mark[0] if mark else last,
                "limit": left,
            },
        ).fetchall()
        before = rows[0][-1] if rows else None
        if not isinstance(before, int) or before > after:  # the walk did not come so far
            log.error("the journal of account %d is damaged above line %d", account, after)
            raise StoreGone(
                f"the journal of account {account} is damaged above line {after}, and cannot be "
                "read on from there: put a good copy of the books in place"
            )
        lines.extend(Line(*row) for *row, _ in rows)
        after = lines[-1].line
    return lines


def seed(
    connection: sqlite3.Connection,
    plan: Plan,
    tokens: Sequence[NewToken],
    at_us: int,
) -> bool:
    """Write a plan and tokens in one transaction, unless there are tokens; return whether."""
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("SELECT 1 FROM tokens LIMIT 1").fetchone():
        connection.execute("ROLLBACK")
        return False
    insert(connection, plan)
    for token in tokens:
        add_token(connection, token, at_us)
    connection.execute("COMMIT")
    return True


def add_token(connection: sqlite3.Connection, token: NewToken, at_us: int) -> Token:
    """Keep a token."""
    cursor = connection.execute(
        "INSERT INTO tokens (hash, client, role, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
        (token.token_hash, token.client, token.role, at_us, token.expires_at_us),
    )
    token_id = cursor.lastrowid or 0
    return Token(token_id, token.client, token.role, at_us, token.expires_at_us, None)


def revoke_token(connection: sqlite3.Connection, token_id: int, at_us: int) -> bool:
    """Revoke a token; return whether it was there, and good."""
    cursor = connection.execute(
        "UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (at_us, token_id)
    )
    return cursor.rowcount == 1

"""The books in one SQLite file: group commit, on disk before it is answered.

Commits that arrive while a transaction is being written wait, and go together into the next one.
Memory changes only after the disk has answered, so what anybody reads here is on disk.

When a write fails, what is on disk is either known or not. A full disk is: SQLite stops before the
end of the transaction is written. An input/output error is not: the transaction may come back when
the log is read after a crash. Then the commits of that group end as *indefinite*, and nothing is
taken for true until the file has been opened anew and says what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rmi_bank.errors import BalanceLimit, StoreFull
from rmi_bank.rules import Known
from rmi_bank.stores import Line, NewToken, Record, Token, schema
from rmi_bank.stores.books import MARK_EVERY, Books, Plan
from rmi_bank.stores.request_index import RequestIndex
from rmi_runtime import Coalescer, SqliteThread, open_reader
from rmi_runtime.errors import Conflict, Interrupted, RmiError, Unavailable

log = logging.getLogger(__name__)

GROUP_MAX = 256
"""Most commits in one transaction."""

COMMITS_WAITING_MAX = 4096

_TOKENS = """
SELECT id, client, role, created_at, expires_at, revoked_at FROM tokens
WHERE id > ? ORDER BY id LIMIT ?
"""
_IDENTIFY = """
SELECT client, role FROM tokens
WHERE hash = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Any]).decode


def now_us() -> int:
    """Return the time of day, in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


class SqliteLedger:
    """A :class:`~rmi_bank.stores.Ledger` in one SQLite file.

    Args:
        path: the file, or an SQLite URI (which may name another VFS) if *uri* is true.
        uri: read *path* as a URI.
        clock_us: time of day, in microseconds since 1970 (UTC).

    Attributes:
        epoch: number of this opening; higher than all before.
        broken: a write failed so that nobody knows what is on disk; only :meth:`reopen` helps.
        transactions: transactions that wrote commits since the store was opened.
    """

    def __init__(
        self, path: str | Path, *, uri: bool = False, clock_us: Callable[[], int] = now_us
    ) -> None:
        self.epoch = 0
        self.broken = False
        self.transactions = 0
        self._path = path
        self._uri = uri
        self._clock_us = clock_us
        self._books = Books({0: 0}, {}, {})
        self._writer = self._thread()
        self._pages = self._thread()  # reads that are too long for the event loop
        self._reader: sqlite3.Connection | None = None
        self._commits = self._coalescer()

    def _thread(self, setup: Callable[[sqlite3.Connection], None] | None = None) -> SqliteThread:
        return SqliteThread(self._path, setup, uri=self._uri)

    def _coalescer(self) -> Coalescer[Record, int]:
        return Coalescer(self._write, batch_max=GROUP_MAX, queue_max=COMMITS_WAITING_MAX)

    async def start(self) -> None:
        """Open the file, making it if it is not there, and read the balances.

        Raises:
            Conflict: it was made by another version, or its books do not balance.
            sqlite3.Error: it cannot be opened.
        """
        self._writer = self._thread(schema.set_up)
        await self._writer.start()
        try:
            self.epoch, self._books = await self._writer.run(_load)
            self._pages = self._thread()
            await self._pages.start()
            self._reader = open_reader(self._path, uri=self._uri)
        except BaseException:
            await self.close()
            raise
        self._commits = self._coalescer()
        self.transactions = 0
        self.broken = False

    async def close(self) -> None:
        """Write what waits, and close the file."""
        await self._commits.aclose()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        await self._pages.close()
        await self._writer.close()

    async def reopen(self) -> None:
        """Close the file and open it again: what it holds then is the truth.

        Raises:
            sqlite3.Error, Conflict: as :meth:`start`; try again later.
        """
        self.broken = True
        with contextlib.suppress(sqlite3.Error):
            await self.close()
        await self.start()

    @property
    def commit_no(self) -> int:
        """Number of the last commit on disk."""
        return self._books.commit_no

    def balances(self, accounts: Iterable[int]) -> list[int | None]:
        """Return the balances on disk, None for accounts never opened."""
        return list(map(self._books.balances.get, accounts))

    def owners(self, accounts: Iterable[int]) -> list[int | None]:
        """Return the client that owns each account, None for nobody."""
        return list(map(self._books.owners.get, accounts))

    def known(self, request_ids: Sequence[str]) -> dict[str, Known]:
        """Return what is stored for those of *request_ids* that are known.

        Point look-ups on the event loop: about a microsecond each.
        """
        numbers, others = self._books.index.find(request_ids)
        if others:
            numbers += [row[0] for row in self._read(schema.INDEXED, (_json(others),))]
        if not numbers:
            return {}
        rows = self._read(schema.KNOWN, (_json(numbers),))
        return {row[0]: Known(row[1], row[2], row[3]) for row in rows}

    def check(
        self, record: Record, locked: Collection[int | str], settled: Collection[str] = ()
    ) -> None:
        """Refuse a record that breaks a rule; see :meth:`Books.check`."""
        self._books.check(record, locked, settled)

    def commit(self, record: Record) -> asyncio.Future[int]:
        """Write a record that was checked.

        Returns:
            A future of its commit number, done when it is on disk. It fails with ``StoreFull``,
            ``BalanceLimit`` or ``Conflict`` (nothing was written) or ``Interrupted`` (the store is
            *broken*, and nobody knows).

        Raises:
            Overloaded: too many commits wait.
            Unavailable: the store is *broken*.
        """
        if self.broken:
            raise Unavailable("the store failed and has to be opened anew; try again shortly")
        if record.balances is None:
            self._books.take_unchecked(record)
        return self._commits.submit_nowait(record)

    async def statement(self, account: int, after: int, limit: int) -> list[Line]:
        """Return at most *limit* journal lines of *account* above line *after*, in order."""
        last = self._books.last_line(account)
        return await self._pages.run(_statement, account, after, limit, last)

    async def accounts(self, after: int, limit: int) -> list[tuple[int, int | None]]:
        """Return at most *limit* (account, owner) above *after*, in order."""
        sql = "SELECT account, owner FROM accounts WHERE account > ? ORDER BY account LIMIT ?"
        return await self._pages.run(_fetch, sql, (after, limit))

    async def seed(self, record: Record, tokens: Sequence[NewToken]) -> bool:
        """Write *record* and *tokens* in one transaction into an empty store.

        Only before anything is committed.

        Returns:
            False, and nothing is written, if there were commits or tokens before.
        """
        if self._books.commit_no:
            return False
        self._books.check(record, {account for account, _ in record.opened})
        now = self._clock_us()
        plan = self._books.plan([record], now)
        written = await self._writer.run(_seed, plan, tokens, now)
        if written:
            self._books.apply(plan)
        return written

    async def add_token(self, token: NewToken) -> Token:
        """Keep a token."""
        return await self._writer.run(_add_token, token, self._clock_us())

    async def tokens(self, after: int, limit: int) -> list[Token]:
        """Return at most *limit* tokens with an id above *after*."""
        return [Token(*row) for row in await self._pages.run(_fetch, _TOKENS, (after, limit))]

    async def revoke_token(self, token_id: int) -> bool:
        """Revoke a token.

        Returns:
            False if there is none of that id, or it was revoked before.
        """
        return await self._writer.run(_revoke_token, token_id, self._clock_us())

    def identify(self, token_hash: str) -> tuple[int, str] | None:
        """Return client and role of a token that is good now, else None."""
        rows = self._read(_IDENTIFY, (token_hash, self._clock_us()))
        return rows[0] if rows else None

    def figures(self) -> dict[str, Any]:
        """Return what has been written, as plain values."""
        return {
            "commit": self._books.commit_no,
            "lines": self._books.line,
            "accounts": len(self._books.balances) - 1,
            "transactions": self.transactions,
            "epoch": self.epoch,
        }

    def _read(self, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        if self._reader is None:
            raise Unavailable("the store is closed")
        # Fetched to the end: a read left open would keep the log from being folded away.
        return self._reader.execute(sql, parameters).fetchall()

    async def _write(self, records: list[Record]) -> Sequence[int | BaseException]:
        """Write what has come together, in one transaction if that is possible."""
        results: list[int | BaseException] = []
        while records:
            fitting = self._books.fitting(records)
            if fitting:
                results += await self._write_group(records[:fitting])
            else:
                fitting = 1
                results.append(BalanceLimit("the bank cannot hold that much; nothing was written"))
            records = records[fitting:]
        return results

    async def _write_group(self, records: list[Record]) -> Sequence[int | BaseException]:
        """Write one transaction, or each commit alone, if one of them spoils it."""
        if self.broken:
            return [Unavailable("the store failed before this was written")] * len(records)
        plan = self._books.plan(records, self._clock_us())
        try:
            await self._writer.run(_write, plan)
        except sqlite3.IntegrityError as error:
            if len(records) > 1:
                return [(await self._write_group([record]))[0] for record in records]
            return [Conflict(f"the store refuses this commit: {error}; nothing was written")]
        except sqlite3.Error as error:
            return [self._failed(error)] * len(records)
        self._books.apply(plan)
        self.transactions += 1
        return plan.commits

    def _failed(self, error: sqlite3.Error) -> RmiError:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            log.error("the disk is full: %s", error)
            return StoreFull("the disk of the store is full; nothing was written: free some space")
        log.critical("the store failed, and is opened anew: %s", error)
        self.broken = True
        return Interrupted(
            f"the store failed while writing ({error}), so nobody knows whether this was written; "
            "ask again with the same request ids"
        )


def _json(values: Sequence[int] | Sequence[str]) -> str:
    return _encode(values).decode()


def _load(connection: sqlite3.Connection) -> tuple[int, Books]:
    state = connection.execute(
        "SELECT epoch, commit_no, folded_line, indexed_outcome FROM state"
    ).fetchone()
    epoch, commit_no, folded_line, indexed_outcome = state
    # Columns as JSON arrays: half the time of a million rows, and the numbers of the accounts are
    # the same objects in all three dictionaries.
    columns = map(_decode, connection.execute(schema.ACCOUNTS).fetchone())
    accounts, balances, last_lines, owners = columns
    books = Books(
        dict(zip(accounts, balances, strict=True)),
        {account: line for account, line in zip(accounts, last_lines, strict=True) if line},
        {a: owner for a, owner in zip(accounts, owners, strict=True) if owner is not None},
        commit_no=commit_no,
        folded_line=folded_line,
        index=RequestIndex(connection.execute(schema.RECENT, (indexed_outcome,)), indexed_outcome),
    )
    sql = "SELECT line, debit, credit, amount FROM journal WHERE line > ? ORDER BY line"
    books.replay(connection.execute(sql, (folded_line,)))
    return epoch, books


def _write(connection: sqlite3.Connection, plan: Plan) -> None:
    connection.execute("BEGIN IMMEDIATE")
    _insert(connection, plan)
    connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, plan: Plan) -> None:
    opened = [(account, 0, owner, 0) for account, owner in plan.opened]
    for statements, rows in (
        (schema.OPEN, opened),
        (schema.JOURNAL, plan.journal),
        (schema.OUTCOMES, plan.outcomes),
        (schema.INDEX, plan.index),
        (schema.MARKS, plan.marks),
        (schema.FOLD, plan.folds),
    ):
        schema.insert_rows(connection, statements, rows)
    connection.execute(schema.STATE, (plan.commit_no, plan.folded_line, plan.indexed_outcome))


def _fetch(connection: sqlite3.Connection, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
    return connection.execute(sql, parameters).fetchall()


def _statement(
    connection: sqlite3.Connection, account: int, after: int, limit: int, last: int
) -> list[Line]:
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
        if not rows:
            raise Conflict(f"the journal of account {account} is damaged above line {after}")
        lines.extend(Line(*row) for row in rows)
        after = lines[-1].line
    return lines


def _seed(
    connection: sqlite3.Connection,
    plan: Plan,
    tokens: Sequence[NewToken],
    at_us: int,
) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("SELECT 1 FROM tokens LIMIT 1").fetchone():
        connection.execute("ROLLBACK")
        return False
    _insert(connection, plan)
    for token in tokens:
        _add_token(connection, token, at_us)
    connection.execute("COMMIT")
    return True


def _add_token(connection: sqlite3.Connection, token: NewToken, at_us: int) -> Token:
    cursor = connection.execute(
        "INSERT INTO tokens (hash, client, role, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
        (token.token_hash, token.client, token.role, at_us, token.expires_at_us),
    )
    token_id = cursor.lastrowid or 0
    return Token(token_id, token.client, token.role, at_us, token.expires_at_us, None)


def _revoke_token(connection: sqlite3.Connection, token_id: int, at_us: int) -> bool:
    cursor = connection.execute(
        "UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (at_us, token_id)
    )
    return cursor.rowcount == 1

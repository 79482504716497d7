"""The books in one SQLite file: group commit, on disk before it is answered.

Commits that arrive while a transaction is being written wait, and go together into the next one.
Memory changes only after the disk has answered, so what anybody reads here is on disk.

When a write fails, what is on disk is either known or not. A full disk is: SQLite stops before the
end of the transaction is written. An input/output error is not: the transaction may come back when
the log is read after a crash. Then the commits of that group end as *indefinite*, and nothing is
taken for true until the file has been opened anew and says what it holds.

A file that was lost, emptied or deleted is told from a new one
(:mod:`rmi_runtime.files.store_files`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rmi_bank.errors import BalanceLimit, StoreFull
from rmi_bank.rules import Known
from rmi_bank.stores import Line, NewToken, Record, Token, schema, transactions
from rmi_bank.stores.accounts import Accounts
from rmi_bank.stores.books import Books, Plan
from rmi_runtime import (
    Coalescer,
    EarlyCheckpoints,
    SqliteThread,
    StoreFiles,
    StoreGone,
    lengthen_log,
    open_reader,
)
from rmi_runtime.errors import Conflict, Interrupted, RmiError, Unavailable

T = TypeVar("T")

log = logging.getLogger(__name__)

GROUP_MAX = 256
"""Most commits in one transaction."""

COMMITS_WAITING_MAX = 4096

_ANEW = "the store failed and has to be opened anew; try again shortly"

_encode = msgspec.json.Encoder().encode


def now_us() -> int:
    """Return the time of day, in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


class SqliteLedger:
    """A :class:`~rmi_bank.stores.Ledger` in one SQLite file.

    Args:
        path: the file, or an SQLite URI (which may name another VFS) if *uri* is true.
        uri: read *path* as a URI.
        clock_us: time of day, in microseconds since 1970 (UTC).
        log_pages: make the log as long as this when it is opened, which makes commits faster (see
            :func:`rmi_runtime.lengthen_log`), and starting a little slower; 0: let it grow.

    Attributes:
        epoch: number of this opening; higher than all before.
        broken: a write failed so that nobody knows what is on disk; only :meth:`reopen` helps.
        transactions: transactions that wrote commits since the store was opened.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        uri: bool = False,
        clock_us: Callable[[], int] = now_us,
        log_pages: int = 0,
    ) -> None:
        self.epoch = 0
        self.broken = False
        self.transactions = 0
        self._path = path
        self._files = StoreFiles(path, uri=uri)
        self._uri = uri
        self._clock_us = clock_us
        self._log_pages = log_pages
        self._books = Books(Accounts())
        self._writer = self._thread()
        self._pages = self._thread()  # reads that are too long for the event loop
        self._reader: sqlite3.Connection | None = None
        self._checkpoints = EarlyCheckpoints(path, schema.EARLY_PAGES)
        self._commits = self._coalescer()

    def _thread(self, setup: Callable[[sqlite3.Connection], None] | None = None) -> SqliteThread:
        return SqliteThread(self._path, setup, uri=self._uri)

    def _coalescer(self) -> Coalescer[Record, int]:
        return Coalescer(self._write, batch_max=GROUP_MAX, queue_max=COMMITS_WAITING_MAX)

    async def start(self) -> None:
        """Open the file, making it if it is not there, and read the balances.

        Raises:
            Conflict: it was made by another version, is damaged, its books do not balance, or it is
                not the store that was here before (``StoreLost``).
            sqlite3.Error, OSError: it cannot be opened.
        """
        await asyncio.to_thread(self._files.refuse_lost)
        loaded: list[tuple[int, Books]] = []
        # All of it as it is opened, so that the file is named where it is damaged further on.
        self._writer = self._thread(lambda connection: loaded.append(self._load(connection)))
        await self._writer.start()
        try:
            ((self.epoch, self._books),) = loaded
            self._pages = self._thread()
            await self._pages.start()
            self._reader = open_reader(self._path, uri=self._uri)
            self._checkpoints.start(self._pages)
        except BaseException:
            await self.close()
            raise
        self._commits = self._coalescer()
        self.transactions = 0
        self.broken = False

    def _load(self, connection: sqlite3.Connection) -> tuple[int, Books]:
        self._files.admit(connection)
        schema.set_up(connection)
        if self._log_pages:
            lengthen_log(connection, self._log_pages)
        self._files.stamp(connection)
        return transactions.load(connection)

    async def close(self) -> None:
        """Write what waits, and close the file."""
        await self._commits.aclose()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        await self._pages.close()
        await self._checkpoints.aclose()
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

    def missing(self) -> str | None:
        """Say in a sentence what is wrong if the opened files are not there any more."""
        return self._files.missing()

    @property
    def commit_no(self) -> int:
        """Number of the last commit on disk."""
        return self._books.commit_no

    @property
    def last_outcome(self) -> int:
        """Number of the last outcome on disk; the later an outcome, the higher its number."""
        return self._books.index.last

    def balances(self, accounts: Iterable[int]) -> list[int | None]:
        """Return the balances on disk, None for accounts never opened."""
        return self._books.accounts.balances(accounts)

    def owners(self, accounts: Iterable[int]) -> list[int | None]:
        """Return the client that owns each account, None for nobody."""
        return self._books.accounts.owners(accounts)

    def known(self, request_ids: Sequence[str], none_up_to: int = 0) -> dict[str, Known]:
        """Return what is stored for those of *request_ids* that are known.

        Point look-ups on the event loop: about a microsecond each. None of them need be looked up
        if none is among the outcomes up to *none_up_to* and memory has all that came since.
        """
        numbers, others = self._books.index.find(request_ids, none_up_to)
        if others:
            numbers += [row[0] for row in self._read(schema.INDEXED, (_encode(others).decode(),))]
        if not numbers:
            return {}
        rows = self._read(schema.KNOWN, (_encode(numbers).decode(),))
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
            raise Unavailable(_ANEW)
        if record.balances is None:
            self._books.take_unchecked(record)
        return self._commits.submit_nowait(record)

    async def statement(self, account: int, after: int, limit: int) -> list[Line]:
        """Return at most *limit* journal lines of *account* above line *after*, in order.

        Raises:
            StoreGone: they are damaged.
            Unavailable: the store cannot be read now.
        """
        last = self._books.accounts.last_line(account)
        return await self._page(transactions.statement, account, after, limit, last)

    def accounts(self, after: int, limit: int) -> list[tuple[int, int | None]]:
        """Return at most *limit* (account, owner) above *after*, in order.

        On the event loop, so that nothing is opened meanwhile; what the disk has and memory does
        not know yet is among them.
        """
        return self._read(schema.ACCOUNTS_PAGE, (after, limit))

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
        written = await self._writer.run(transactions.seed, plan, tokens, now)
        if written:
            self._books.apply(plan)
            # Into the main file: it is to show more than an empty bank, should its log be lost.
            await self._writer.run(self._files.stamp, settle=True)
        return written

    async def add_token(self, token: NewToken) -> Token:
        """Keep a token.

        Raises:
            StoreFull, StoreGone, Unavailable: it was not kept.
            Interrupted: nobody knows; the store is *broken*.
        """
        return await self._settled(transactions.add_token, token, self._clock_us())

    async def tokens(self, after: int, limit: int) -> list[Token]:
        """Return at most *limit* tokens with an id above *after*."""
        rows = await self._page(transactions.fetch, schema.TOKENS_PAGE, (after, limit))
        return [Token(*row) for row in rows]

    async def revoke_token(self, token_id: int) -> bool:
        """Revoke a token.

        Returns:
            False if there is none of that id, or it was revoked before.

        Raises:
            StoreFull, StoreGone, Unavailable, Interrupted: as :meth:`add_token`.
        """
        return await self._settled(transactions.revoke_token, token_id, self._clock_us())

    def identify(self, token_hash: str) -> tuple[int, str] | None:
        """Return client and role of a token that is good now, else None."""
        rows = self._read(schema.IDENTIFY, (token_hash, self._clock_us()))
        return rows[0] if rows else None

    def figures(self) -> dict[str, Any]:
        """Return what has been written, as plain values."""
        return {
            "commit": self._books.commit_no,
            "lines": self._books.line,
            "accounts": max(0, len(self._books.accounts) - 1),
            "transactions": self.transactions,
            "epoch": self.epoch,
        }

    def _read(self, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        if self._reader is None:
            raise Unavailable("the store is closed")
        try:
            # Fetched to the end: a read left open would keep the log from being folded away.
            return self._reader.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise _unreadable(error) from error

    async def _page(self, function: Callable[..., T], *args: Any) -> T:
        """Read with *function* on a thread, for what is too long for the event loop."""
        try:
            return await self._pages.run(function, *args)
        except sqlite3.Error as error:
            if type(error) is sqlite3.DatabaseError:  # no reason to turn from all the rest as well
                log.error("a part of the store is damaged: %s", error)
                raise StoreGone(
                    f"this part of the books is damaged ({error}): put a good copy in place"
                ) from error
            raise _unreadable(error) from error

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
        asyncio.get_running_loop().call_soon(self._books.index.sort)  # while the disk is busy
        try:
            await self._writer.run(self._guarded, _write, plan)
        except sqlite3.IntegrityError as error:
            if len(records) > 1:
                return [(await self._write_group([record]))[0] for record in records]
            return [Conflict(f"the store refuses this commit: {error}; nothing was written")]
        except sqlite3.Error as error:
            return [self._failed(error)] * len(records)
        except RmiError as error:
            return [error] * len(records)
        self._books.apply(plan)
        self.transactions += 1
        self._checkpoints.look()
        return plan.commits

    async def _settled(self, function: Callable[..., T], *args: Any) -> T:
        """Write with *function*; what goes wrong is told as for a commit."""
        if self.broken:
            raise Unavailable(_ANEW)
        try:
            return await self._writer.run(self._guarded, function, *args)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _guarded(self, connection: sqlite3.Connection, function: Callable[..., T], *args: Any) -> T:
        """Write on the store's thread, but acknowledge nothing that is in a deleted file."""
        if gone := self._files.missing():
            self._break(gone)
            raise StoreGone(f"nothing was written: {gone}")
        result = function(connection, *args)
        if gone := self._files.missing():
            self._break(gone)
            raise Interrupted(f"it was written, but {gone}")
        return result

    def _break(self, why: object) -> None:
        log.critical("the store failed, and is opened anew: %s", why)
        self.broken = True

    def _failed(self, error: sqlite3.Error) -> RmiError:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            log.error("the disk is full: %s", error)
            return StoreFull("the disk of the store is full; nothing was written: free some space")
        self._break(error)
        return Interrupted(
            f"the store failed while writing ({error}), so nobody knows whether this was written; "
            "ask again with the same request ids"
        )


def _write(connection: sqlite3.Connection, plan: Plan) -> None:
    connection.execute("BEGIN IMMEDIATE")
    transactions.insert(connection, plan)
    connection.execute("COMMIT")


def _unreadable(error: sqlite3.Error) -> Unavailable:
    log.error("the store cannot be read: %s", error)
    return Unavailable(f"the store cannot be read now: {error}")

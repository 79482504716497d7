"""Messages in one SQLite file, shared by all loggers and messages services of a machine.

Every write is one durable transaction: write-ahead log, ``synchronous=FULL``. Readers see only what
is on disk, because SQLite shows a commit to others after its log was synced. A file that was lost,
emptied or deleted is told from a new one (:mod:`rmi_runtime.files.store_files`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from rmi_msg.stores import Claim, Consumed, Message, Page, Stores, Word
from rmi_msg.stores import sqlite_tables as tables
from rmi_msg.stores.message_ids import MessageIds
from rmi_msg.stores.write_turn import WriteTurn
from rmi_runtime import Settings, SqliteThread, StoreFiles, StoreGone, errors, lengthen_log

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

FILE_NAME: Final = "messages.sqlite"

_CACHE_KIB: Final = 16 * 1024
_CHECKPOINT_PAGES: Final = 4000
"""Length of the write-ahead log, in pages of 4 KiB, at which it is folded into the file."""

LEAVE_S: Final = 2.0
"""How long closing waits for what is being written, which another process may hold up."""


class SqliteDatabase:
    """One process's way to the file: a thread that writes, and one that reads meanwhile.

    Args:
        path: the file; it is made if missing, its directory must exist.
        log_pages: make the log as long as this when it is opened (see
            :func:`rmi_runtime.lengthen_log`); 0: let it grow.
    """

    def __init__(self, path: Path, *, log_pages: int = 0) -> None:
        self._name = path.name
        self._turn = WriteTurn(path.with_name(f"{path.name}.turn"))
        self._files = StoreFiles(path)
        self._log_pages = log_pages
        self._writer = SqliteThread(path, self._set_up_writer)
        self._reader = SqliteThread(path, _set_up_reader)

    async def open(self) -> None:
        """Open the file and make its tables.

        Raises:
            Conflict: the file was made by a later version of this program, or is not the store
                that was here before (``StoreLost``).
            sqlite3.Error, OSError: it cannot be opened.
        """
        await self._turn.come()
        opening = asyncio.create_task(self._open_in_turn())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Its threads go on all the same: until they are done it is nobody else's turn.
            await asyncio.gather(opening, return_exceptions=True)
            raise

    async def _open_in_turn(self) -> None:
        # In turn, because several processes that make the same new file would fail each other.
        try:
            self._files.refuse_lost()
            await self._writer.start()
            await self._reader.start()
        finally:
            self._turn.__exit__()

    async def close(self) -> None:
        """Finish what is under way and close the file, if it is the one that others use.

        What takes longer than :data:`LEAVE_S` is left behind, as the end of the process would.
        """
        if self._files.missing():
            # Whoever is the last to close folds the log as far as it knows it, and removes it, with
            # what others have in it by now. The end of the process closes without that.
            log.warning("%s is left as it is: it was deleted or replaced under us", self._name)
        else:
            await self._reader.close()
            if not await self._writer.close(LEAVE_S):
                log.warning(
                    "%s is left: what was to be written last had to wait for more than %g s, for "
                    "another process's turn or for the disk",
                    self._name,
                    LEAVE_S,
                )
        self._turn.close()

    def missing(self) -> str | None:
        """Say in a sentence what is wrong if the opened files are not there any more."""
        return self._files.missing()

    async def read(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run *function* on what is on disk now.

        Raises:
            Unavailable: the file cannot be read now.
        """
        try:
            return await self._reader.run(function, *args, **kwargs)
        except sqlite3.DatabaseError as error:
            if _of_the_file(error):
                raise self._unavailable("read", error) from error
            raise

    async def write(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run *function* in one transaction, and return its result when that is on disk.

        Raises:
            StoreFull: the disk is full; nothing was written.
            Unavailable: the file cannot be written now; nothing was.
            StoreGone: it is not there any more; nothing was written.
            Interrupted: the commit failed in a way that leaves open whether it holds.
        """

        def transact(connection: sqlite3.Connection) -> T:
            return self._transact(connection, lambda: function(connection, *args, **kwargs))

        return await self._writer.run(transact)

    def _transact(self, connection: sqlite3.Connection, statements: Callable[[], T]) -> T:
        with self._turn:
            if gone := self._files.missing():
                raise StoreGone(f"nothing was written: {gone}")
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = statements()
            except BaseException as error:
                _roll_back(connection)
                if _is_full(error):
                    raise self._full(error) from error
                if _of_the_file(error):
                    raise self._unavailable("written", error) from error
                raise
            try:
                connection.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                _roll_back(connection)
                if _is_full(error):  # SQLite stops before the end of the transaction is written
                    raise self._full(error) from error
                raise errors.Interrupted(
                    f"{self._name} did not take a commit: {error}. Send the same ids again"
                ) from error
            if gone := self._files.missing():
                raise errors.Interrupted(f"it was written, but {gone}")
            return result

    def _set_up_writer(self, connection: sqlite3.Connection) -> None:
        self._files.admit(connection)
        connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute("BEGIN IMMEDIATE")
        tables.create(connection)
        connection.execute("COMMIT")
        if self._log_pages:
            lengthen_log(connection, self._log_pages)
        self._files.stamp(connection)

    def _full(self, error: BaseException) -> errors.StoreFull:
        return errors.StoreFull(
            f"{self._name} cannot take more: {error}; nothing was written. Free some space"
        )

    def _unavailable(self, what: str, error: BaseException) -> errors.Unavailable:
        advice = "Look at the disk's space and rights"
        if not isinstance(error, sqlite3.OperationalError):
            advice = "It is damaged: stop the system, put a good copy in its place, and start again"
        return errors.Unavailable(f"{self._name} cannot be {what} now: {error}. {advice}")


def _of_the_file(error: BaseException) -> bool:
    """Whether the file cannot be used (no room, no rights, damaged), rather than a statement."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _is_full(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _set_up_reader(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")


class SqliteMessageStore:
    """The :class:`~rmi_msg.stores.MessageStore` on SQLite.

    Args:
        database: open for as long as this is used.
        wall_clock_ns: nanoseconds since 1970, for ``received_at``.
    """

    def __init__(
        self, database: SqliteDatabase, wall_clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._wall_clock_ns = wall_clock_ns
        self._ids = MessageIds()  # for the database's writing thread

    async def put_many(self, messages: Sequence[tuple[str, str]], logger: str) -> list[Word]:
        """Store what is new, in one transaction; see the protocol."""
        if not messages:
            return []
        return await self._database.write(self._put_many, messages, logger)

    def _put_many(
        self, connection: sqlite3.Connection, messages: Sequence[tuple[str, str]], logger: str
    ) -> list[Word]:
        # The time is taken when it is our turn, so that it rises with the order of arrival.
        at_us = self._wall_clock_ns() // 1000
        return tables.put_many(connection, self._ids, messages, logger, at_us)

    async def known(self, messages: Sequence[tuple[str, str]]) -> list[Word]:
        """Tell what is there; see the protocol. What keeps the ids is the writer's."""
        return await self._database.write(tables.known, self._ids, messages)

    async def page(self, after: str | None, limit: int) -> Page[Message]:
        """Read a page of messages; see the protocol."""
        return await self._database.read(tables.messages_page, after, limit)


class SqliteMessageQueue:
    """The :class:`~rmi_msg.stores.MessageQueue` on SQLite.

    Args:
        database: open for as long as this is used.
        monotonic_ns: the clock of the claims; all processes must share it.
    """

    def __init__(
        self, database: SqliteDatabase, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._database = database
        self._monotonic_ns = monotonic_ns

    async def claim(self, by: str, limit: int, lease_s: float) -> Claim | None:
        """Take the next messages that nobody has; see the protocol.

        Raises:
            ValueError: *lease_s* is not above 0 and at most 300.
        """
        if not 0 < lease_s <= tables.LEASE_S_MAX:
            raise ValueError(f"lease_s is {lease_s}; above 0 and at most {tables.LEASE_S_MAX}")
        if not await self._database.read(tables.waiting):  # an idle poll takes no lock
            return None
        return await self._database.write(self._claim, by, limit, int(lease_s * 1e9))

    def _claim(
        self, connection: sqlite3.Connection, by: str, limit: int, lease_ns: int
    ) -> Claim | None:
        return tables.claim(connection, by, limit, lease_ns, self._monotonic_ns())

    async def done(self, claim: Claim) -> bool:
        """Forget a claim; see the protocol."""
        return await self._database.write(tables.done, claim)

    async def give_back(self, by: str) -> int:
        """Offer again what *by* holds; see the protocol."""
        return await self._database.write(tables.give_back, by)

    async def sweep(self) -> int:
        """Offer again what was not done in time; see the protocol."""
        now_ns = self._monotonic_ns()
        if not await self._database.read(tables.any_run_out, now_ns):
            return 0
        return await self._database.write(tables.sweep, now_ns)


class SqliteConsumedStore:
    """The :class:`~rmi_msg.stores.ConsumedStore` on SQLite.

    Args:
        database: open for as long as this is used.
        wall_clock_ns: nanoseconds since 1970, for ``consumed_at``.
    """

    def __init__(
        self, database: SqliteDatabase, wall_clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._wall_clock_ns = wall_clock_ns

    async def add(self, claim: Claim) -> list[bool]:
        """Enter a claim's messages as consumed; see the protocol."""
        return await self._database.write(self._add, claim)

    def _add(self, connection: sqlite3.Connection, claim: Claim) -> list[bool]:
        return tables.add(connection, claim, self._wall_clock_ns() // 1000)

    async def page(self, after: str | None, limit: int) -> Page[Consumed]:
        """Read a page of consumed messages; see the protocol."""
        return await self._database.read(tables.consumed_page, after, limit)


@asynccontextmanager
async def open_stores(
    settings: Settings, log_pages: int = _CHECKPOINT_PAGES
) -> AsyncIterator[Stores]:
    """Open ``DATA_DIR/messages.sqlite``.

    Args:
        settings: of which ``data_dir`` is used; the directory is made if missing.
        log_pages: see :class:`SqliteDatabase`.

    Yields:
        The three interfaces to it.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = SqliteDatabase(settings.data_dir / FILE_NAME, log_pages=log_pages)
    try:
        await database.open()
        yield Stores(
            messages=SqliteMessageStore(database),
            queue=SqliteMessageQueue(database),
            consumed=SqliteConsumedStore(database),
            trouble=database.missing,
        )
    finally:
        await database.close()

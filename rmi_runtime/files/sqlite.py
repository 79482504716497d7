"""The one class that hides a thread: sqlite3 blocks, and the loop must not.

Each :class:`SqliteThread` owns one connection and one thread; functions run on it one after the
other. :func:`open_reader` gives a read-only connection for look-ups so short that a thread hop
would cost more than they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from rmi_runtime.errors import Conflict, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 10.0
STATEMENTS_CACHED = 256

ROOM_LEAST = 8
"""How many times a log's full length must be free on the disk for it to be taken at once."""

_PAGES_KEPT = 16  # in memory while the log is lengthened: all others go into it

_Job = tuple[Callable[..., Any], tuple[Any, ...], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


def connect(path: str | Path, *, uri: bool = False) -> sqlite3.Connection:
    """Open a database for durable writing.

    Write-ahead log, ``synchronous=FULL`` (a commit is on disk before it returns), explicit
    transactions only.

    Args:
        path: file name, or an SQLite URI if *uri* is true.
        uri: read *path* as a URI, which may name another VFS.

    Returns:
        The connection.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    connection = sqlite3.connect(
        str(path),
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_CACHED,
        uri=uri,
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def open_reader(path: str | Path, *, uri: bool = False) -> sqlite3.Connection:
    """Open a second connection to a database in write-ahead-log mode that can only read.

    Readers never wait for the writer. Use it on the event loop for point look-ups by key only.
    """
    connection = sqlite3.connect(
        str(path),
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_CACHED,
        uri=uri,
    )
    connection.execute("PRAGMA query_only=ON")
    return connection


def lengthen_log(connection: sqlite3.Connection, pages: int) -> None:
    """Give the write-ahead log its full length, unless it has it, or the disk has little room.

    A commit that makes the file longer waits for the file system's journal too; one that writes
    over what is there does not, and takes a third of the time (ext4). The pages are those of a
    transaction that is rolled back: SQLite puts what does not fit its cache into the log, and
    writes over it later. They reach the disk with the next commit.

    Args:
        connection: for writing, in no transaction.
        pages: how many; as many as are gathered before they go to the main file
            (``PRAGMA wal_autocheckpoint``).
    """
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    (_, _, path), *_ = connection.execute("PRAGMA database_list")
    log_path = Path(f"{path}-wal")
    if log_path.exists() and log_path.stat().st_size >= pages * page_bytes:
        return
    if shutil.disk_usage(log_path.parent).free < ROOM_LEAST * pages * page_bytes:
        return  # others need it more
    (cached,) = connection.execute("PRAGMA cache_size").fetchone()
    connection.execute(f"PRAGMA cache_size = {_PAGES_KEPT}")
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE filling (content)")
        filling = (pages + _PAGES_KEPT) * page_bytes
        connection.execute("INSERT INTO filling VALUES (zeroblob(?))", (filling,))
    except sqlite3.OperationalError as error:  # the disk is full after all: give back what it took
        log.warning("the log of %s was not lengthened: %s", path, error)
        _roll_back(connection)
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        _roll_back(connection)
        connection.execute(f"PRAGMA cache_size = {cached}")


def check_tables(connection: sqlite3.Connection, statements: Iterable[str]) -> None:
    """Refuse a database whose tables are not those that it was made with.

    Args:
        connection: to the database.
        statements: which made them, in a new one.

    Raises:
        sqlite3.DatabaseError: a table is missing, or has other columns.
    """
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
        for statement in statements:
            new.execute(statement)
        wanted = _columns(new)
    found = _columns(connection)
    for table, columns in wanted.items():
        if table not in found:
            raise sqlite3.DatabaseError(f"its table {table} is missing")
        if found[table] != columns:
            raise sqlite3.DatabaseError(
                f"its table {table} has the columns {', '.join(found[table])}, "
                f"and should have {', '.join(columns)}"
            )


def _columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    sql = (
        "SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c"
        " WHERE t.type = 'table' ORDER BY t.name, c.cid"
    )
    columns: dict[str, list[str]] = {}
    for table, column in connection.execute(sql):
        columns.setdefault(table, []).append(column)
    return columns


class SqliteThread:
    """One SQLite connection on one thread, called from the event loop.

    Args:
        path: file name, or an SQLite URI if *uri* is true.
        setup: run once with the connection, to create tables.
        jobs_max: how many calls may wait; more are refused by an error, not queued.
        uri: see :func:`connect`.
    """

    def __init__(
        self,
        path: str | Path,
        setup: Callable[[sqlite3.Connection], None] | None = None,
        *,
        jobs_max: int = 1024,
        uri: bool = False,
    ) -> None:
        self._path = path
        self._setup = setup
        self._uri = uri
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._jobs_max = jobs_max
        self._thread: threading.Thread | None = None
        self._over: asyncio.Future[Any] | None = None  # done when the thread ends

    async def start(self) -> None:
        """Open the database and run the setup.

        Raises:
            sqlite3.Error: the file cannot be opened or set up.
            Conflict: it is no sound database.
            OSError: no thread is to be had now, or a directory is where the file should be.
        """
        if self._thread is not None:
            raise RuntimeError("this SqliteThread has been started already")
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Any] = loop.create_future()
        over = self._over = loop.create_future()
        jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._jobs = jobs

        def run() -> None:
            try:
                self._run(loop, opened, jobs)
            finally:
                _tell(loop, over, None, None)

        self._thread = threading.Thread(target=run, name=f"sqlite {Path(self._path).name}")
        self._thread.daemon = True  # a process that must end does not wait for a disk
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            raise OSError(errno.EAGAIN, f"no thread can be started ({error})") from error
        try:
            await opened
        except BaseException:  # a thread that is still opening ends at once when it has done so
            self._thread = None
            jobs.put(None)
            raise

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run ``function(connection, *args)`` on the thread.

        A caller that is cancelled stops waiting; the function runs to its end all the same. A
        transaction that the function leaves open when it raises is rolled back.

        Returns:
            What the function returns.

        Raises:
            Unavailable: the thread is not running, or too many calls wait for it.
            Exception: what the function raises.
        """
        if self._thread is None:
            raise Unavailable(f"the store {Path(self._path).name} is closed")
        if self._jobs.qsize() >= self._jobs_max:
            raise Unavailable(
                f"{self._jobs_max} calls wait for the store {Path(self._path).name}: try later"
            )
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        if kwargs:
            plain = function

            def function(connection: sqlite3.Connection, *args: Any) -> T:  # type: ignore[misc]
                return plain(connection, *args, **kwargs)

        self._jobs.put((function, args, loop, done))
        return await done

    async def close(self, timeout_s: float | None = None) -> bool:
        """Finish what waits, close the database and end the thread. May be called twice.

        Args:
            timeout_s: how long that may last; then the thread is left to itself, and ends when it
                can, or with the process. None: as long as it lasts.

        Returns:
            Whether the thread has ended.
        """
        thread, self._thread = self._thread, None
        if thread is None or self._over is None:
            return True
        self._jobs.put(None)
        # No thread waits for its end: where memory is short none may be had.
        over, _ = await asyncio.wait([self._over], timeout=timeout_s)
        if not over:
            return False
        thread.join()  # which has nothing left to do
        return True

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        opened: asyncio.Future[Any],
        jobs: queue.SimpleQueue[_Job | None],
    ) -> None:
        connection: sqlite3.Connection | None = None
        try:
            connection = connect(self._path, uri=self._uri)
            if self._setup is not None:
                self._setup(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                error.add_note(str(self._path))
            _tell(loop, opened, None, self._damaged(error) or self._directory(error) or error)
            return
        _tell(loop, opened, None, None)
        while (job := jobs.get()) is not None:
            function, args, asker, done = job
            try:
                result = function(connection, *args)
            except BaseException as error:
                _roll_back(connection)
                _tell(asker, done, None, error)
            else:
                _tell(asker, done, result, None)
            del job, function, args, done
        connection.close()

    def _damaged(self, error: BaseException) -> Conflict | None:
        """Return the error that says what to do, if the file is not a sound database."""
        if not _tells_of_damage(error):
            return None
        return Conflict(
            f"{self._path} is damaged, or no SQLite database ({error}); put a good copy in its "
            "place, or move it, its -wal and its .id file away to begin anew"
        )

    def _directory(self, error: BaseException) -> OSError | None:
        """Return the error that names the directory, if one is where SQLite wants a file."""
        if isinstance(error, sqlite3.OperationalError):
            for path in map(Path, (f"{self._path}{end}" for end in ("", "-wal", "-shm"))):
                if path.is_dir():
                    return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return None


def _tells_of_damage(error: BaseException) -> bool:
    """Return whether SQLite says with *error* that the file is not what it wrote."""
    if isinstance(error, sqlite3.OperationalError):  # other troubles, but for texts that are none
        return "decode to UTF-8" in str(error)
    # Its other subclasses are other troubles too. Where SQLite tells of a damaged schema, its words
    # may be what cannot be decoded.
    return type(error) is sqlite3.DatabaseError or isinstance(error, UnicodeDecodeError)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _tell(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    result: Any,
    error: BaseException | None,
) -> None:
    def settle() -> None:
        if future.done():  # the asker was cancelled
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            future.set_exception(error)
        else:  # futures refuse StopIteration, and SystemExit would end the loop
            future.set_exception(RuntimeError(f"a job of the store raised {error!r}"))

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
        loop.call_soon_threadsafe(settle)

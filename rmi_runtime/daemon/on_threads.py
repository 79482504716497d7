"""Calls that may block, on threads: how many there may be, and what is kept of those given up."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from rmi_runtime.carried_stop import CarriedStop
from rmi_runtime.context import Call
from rmi_runtime.daemon.endings import Ending
from rmi_runtime.errors import Overloaded
from rmi_runtime.sparse_log import sparse_logger

if TYPE_CHECKING:
    from rmi_runtime.daemon import Daemon

log = sparse_logger(__name__)

_Outcome = tuple[Any, BaseException | None]


def overloaded(daemon: Daemon) -> Overloaded:
    """Return what is raised where too much is under way in a daemon, and count it there."""
    daemon.overloads += 1
    return Overloaded(
        "too many calls are under way here: try again shortly, or elsewhere", retry_after_s=1
    )


class _Job:
    """One call. Given up before a thread begins it, it keeps its place, and nothing else."""

    __slots__ = ("_work",)

    def __init__(self, function: Callable[[], Any], connection: object) -> None:
        context = contextvars.copy_context()
        self._work: tuple[Callable[[], Any], contextvars.Context, object] | None
        self._work = function, context, connection

    def give_up(self) -> None:
        """Do nothing when a thread comes to it; one that has begun goes on to its end."""
        self._work = None

    def do(self) -> _Outcome:
        """Call the function, unless it was given up."""
        work, self._work = self._work, None
        if work is None:
            return None, None
        function, context, connection = work
        try:  # futures refuse StopIteration, and neither pool nor task must see SystemExit
            return context.run(function), None
        except BaseException as error:
            return None, error
        finally:
            if isinstance(connection, Ending):
                connection.end_late()


class OnThreads:
    """The calls of one daemon that threads do, or have yet to come to.

    Callers may give up as fast as they like; what they gave up stays in the queue of a thread until
    that comes to it, so it counts until then.

    Args:
        daemon: its limits of calls under way, in all and of one connection, hold here as well.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        # Threads take jobs away, which needs no lock.
        self._unfinished: set[_Job] = set()
        self._of_connections: WeakKeyDictionary[object, set[_Job]] = WeakKeyDictionary()

    def call(self, function: Callable[[], Any], call: Call) -> Coroutine[Any, Any, Any]:
        """Return a coroutine that calls *function* where it may block, and awaits its result if
        that is to be awaited.

        Raises:
            Overloaded: (the coroutine) so many are there already, or no thread is to be had; it
                was not begun.
        """
        return self._wait_for(_Job(function, call.connection), call)

    async def _wait_for(self, job: _Job, call: Call) -> Any:
        executor = self._daemon.executor_for(call)
        assert executor is not None
        own, limits = self._of_connections.setdefault(call.connection, set()), self._daemon.limits
        if (
            len(self._unfinished) >= limits.inflight_max
            or len(own) >= limits.connection_inflight_max
        ):
            raise overloaded(self._daemon)
        self._unfinished.add(job)
        own.add(job)
        try:
            future = executor.submit(self._do, job, own)
        except RuntimeError as why:
            self._forget(job, own)
            job.give_up()  # some pools keep what they had no thread for
            log.warning("there is no thread for a call: %s", why)
            raise overloaded(self._daemon) from why
        # Not asyncio's own way, which takes what is cancelled for gone, though it is in the queue.
        waiting: asyncio.Future[_Outcome] = self._daemon.loop.create_future()
        future.add_done_callback(partial(_tell, self._daemon.loop, waiting))
        try:
            result, error = await waiting
        except asyncio.CancelledError:
            job.give_up()
            future.add_done_callback(_drop)
            raise
        if error is not None:
            raise CarriedStop.of(error) if isinstance(error, StopIteration) else error
        return await result if inspect.isawaitable(result) else result

    def _do(self, job: _Job, own: set[_Job]) -> _Outcome:
        try:
            return job.do()
        finally:
            self._forget(job, own)

    def _forget(self, job: _Job, own: set[_Job]) -> None:
        self._unfinished.discard(job)
        own.discard(job)


def _tell(
    loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[_Outcome], future: Future[_Outcome]
) -> None:
    """Tell the loop that a thread is done with a call, or that no thread will come to it."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
        loop.call_soon_threadsafe(_settle, waiting, future)


def _settle(waiting: asyncio.Future[_Outcome], future: Future[_Outcome]) -> None:
    if waiting.done():  # given up
        return
    if future.cancelled():
        waiting.cancel()
    else:
        waiting.set_result(future.result())


def _drop(future: Future[_Outcome]) -> None:
    """Let go of what a method returned that nobody waits for any more."""
    if not future.cancelled() and inspect.iscoroutine(coroutine := future.result()[0]):
        coroutine.close()

"""Threads that nobody waits for at the end of the program, as those of a stock daemon are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

_Job = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(Executor):
    """Like ``concurrent.futures.ThreadPoolExecutor``, whose threads keep a program from ending
    while one of them is at work.

    Args:
        threads_max: how many there may be; they are started when they are needed.
        name: what the threads are called.
    """

    def __init__(self, threads_max: int, name: str) -> None:
        self._threads_max = threads_max
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._changing = threading.Lock()
        self._shut = False
        self._unfinished = 0

    @property
    def unfinished(self) -> int:
        """How many calls have been submitted and are not over."""
        return self._unfinished

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have *fn* called on one of the threads.

        Raises:
            RuntimeError: the threads have been shut down, or none can be started; *fn* will not be
                called.
        """
        future: Future[Any] = Future()
        with self._changing:
            if self._shut:
                raise RuntimeError("these threads have been shut down and take no more work")
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._threads_max:
                self._start_thread()
            self._jobs.put((future, partial(fn, *args, **kwargs)))
            self._unfinished += 1
        return future

    def _start_thread(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more just now
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            _do(*job)
            del job  # keeps its result alive no longer
            with self._changing:
                self._unfinished -= 1
            self._idle.release()
        self._jobs.put(None)  # for the next thread

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work, and end the threads when they have done theirs.

        Args:
            wait: wait for that.
            cancel_futures: drop what has not been begun.
        """
        with self._changing:
            self._shut = True
            while cancel_futures:
                try:
                    job = self._jobs.get_nowait()
                except Empty:
                    break
                if job is not None:
                    job[0].cancel()
            self._jobs.put(None)
        for thread in self._threads if wait else ():
            thread.join()


def _do(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)

"""Threads that nobody waits for: how many there are, and what becomes of their work."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from rmi_runtime.compat.threads import DaemonThreads

WAIT_S = 20.0


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    made = DaemonThreads(2, "worker")
    yield made
    made.shutdown()


def test_work_is_done_on_daemon_threads_and_its_outcome_is_told(threads: DaemonThreads) -> None:
    future = threads.submit(threading.current_thread)
    assert future.result(WAIT_S).daemon
    assert threads.submit(divmod, 7, 2).result(WAIT_S) == (3, 1)
    with pytest.raises(SystemExit):
        threads.submit(sys.exit).result(WAIT_S)
    assert threads.submit(int, "8").result(WAIT_S) == 8  # the thread lives on


def test_an_idle_thread_is_used_before_another_one_is_started(threads: DaemonThreads) -> None:
    first = threads.submit(threading.get_ident).result(WAIT_S)
    assert threads._idle.acquire(timeout=WAIT_S)  # it has found its way back
    threads._idle.release()
    assert threads.submit(threading.get_ident).result(WAIT_S) == first


def test_there_are_no_more_threads_than_allowed(threads: DaemonThreads) -> None:
    met, names = threading.Barrier(2), set()

    def meet() -> None:
        names.add(threading.current_thread().name)
        met.wait(WAIT_S)

    for future in [threads.submit(meet) for _ in range(6)]:
        future.result(WAIT_S)
    assert names == {"worker-0", "worker-1"}


def _no_threads(patch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    patch.setattr(threading.Thread, "start", start)


def test_where_no_thread_can_be_started_nothing_is_taken_and_later_work_is_done() -> None:
    threads, done = DaemonThreads(1, "worker"), []
    with pytest.MonkeyPatch.context() as patch:
        _no_threads(patch)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.submit(done.append, "refused")
    assert threads.unfinished == 0
    threads.submit(done.append, "taken").result(WAIT_S)
    threads.shutdown()
    assert done == ["taken"]


def test_where_no_more_threads_can_be_started_those_there_are_do_the_work(
    threads: DaemonThreads,
) -> None:
    go = threading.Event()
    first = threads.submit(go.wait, WAIT_S)
    with pytest.MonkeyPatch.context() as patch:
        _no_threads(patch)
        second = threads.submit(threading.get_ident)
    go.set()
    assert first.result(WAIT_S)
    assert second.result(WAIT_S) == threads._threads[0].ident


def test_after_a_shutdown_what_was_begun_is_finished_and_nothing_else_taken() -> None:
    threads = DaemonThreads(1, "worker")
    begun, go = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert go.wait(WAIT_S)
        return "done"

    first, second = threads.submit(work), threads.submit(work)
    assert begun.wait(WAIT_S)
    threads.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(work)
    go.set()
    threads.shutdown()
    assert first.result(WAIT_S) == "done"
    assert second.cancelled()
    assert not any(thread.is_alive() for thread in threads._threads)


def test_a_program_ends_although_a_thread_is_at_work() -> None:
    program = """
import threading
from rmi_runtime.compat.threads import DaemonThreads

begun = threading.Event()
DaemonThreads(1, "worker").submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
print("the end")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "the end\n"

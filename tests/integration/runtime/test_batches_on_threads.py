"""Batches of methods that run on threads: several calls for one hand-over, and each as if alone."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from rmi_runtime import Daemon, Proxy, errors, expose, wire
from rmi_runtime.daemon import batches
from tests.integration.runtime.worker import uri_of
from tests.support import eventually

MINE: contextvars.ContextVar[int] = contextvars.ContextVar("mine", default=0)


@expose
class Target:
    """Notes what was called, and where."""

    def __init__(self) -> None:
        self.called: list[tuple[int, int]] = []
        self.began, self.go = threading.Event(), threading.Event()

    def _note(self, number: int) -> int:
        self.called.append((number, threading.get_ident()))
        return number

    def plain(self, number: int) -> int:
        """Return it."""
        return self._note(number)

    async def on_loop(self, number: int) -> int:
        """Return it, later."""
        self._note(number)
        await asyncio.sleep(0)
        return number

    def awaitable(self, number: int) -> Awaitable[int]:
        """Return it by an awaitable."""
        self._note(number)
        return asyncio.sleep(0, number)

    def wait(self, number: int) -> int:
        """Return it when it is time."""
        self.began.set()
        self.go.wait(30)
        return self._note(number)

    def add_to_mine(self, number: int) -> int:
        """Change what belongs to this call alone."""
        MINE.set(MINE.get() + number)
        return MINE.get()

    def unsendable(self) -> Any:
        """Return what nobody can serialize."""
        return threading.Lock()


@pytest.fixture
def patient_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "RUN_S", 60.0)


@contextmanager
def hand_overs(daemon: Daemon) -> Iterator[list[Callable[..., Any]]]:
    """Note what a daemon's threads are asked to do."""
    asked: list[Callable[..., Any]] = []
    executor = daemon.executor
    assert executor is not None
    submit = executor.submit

    def noted(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        asked.append(function)
        return submit(function, *args, **kwargs)

    executor.submit = noted  # type: ignore[method-assign]
    yield asked


@pytest.mark.usefixtures("patient_runs")
async def test_short_calls_are_handed_over_together() -> None:
    target = Target()
    count = 2 * batches.RUN_CALLS + 1
    async with Daemon(threads=1) as daemon:
        daemon.register(target, "target")
        async with Proxy(uri_of(daemon)) as proxy:
            with hand_overs(daemon) as asked:
                batch = proxy._batch()
                for number in range(count):
                    batch.plain(number)
                assert list(await batch()) == list(range(count))
    assert len(asked) == 3
    assert [number for number, _ in target.called] == list(range(count))


async def test_after_a_long_call_the_loop_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "RUN_S", 0.0)  # every call is a long one
    async with Daemon(threads=1) as daemon:
        daemon.register(Target(), "target")
        async with Proxy(uri_of(daemon)) as proxy:
            with hand_overs(daemon) as asked:
                batch = proxy._batch()
                for number in range(5):
                    batch.plain(number)
                assert list(await batch()) == [0, 1, 2, 3, 4]
    assert len(asked) == 5


@pytest.mark.usefixtures("patient_runs")
async def test_coroutines_among_them_run_on_the_loop_and_all_in_order() -> None:
    target = Target()
    async with Daemon(threads=1) as daemon:
        daemon.register(target, "target")
        async with Proxy(uri_of(daemon)) as proxy:
            batch = proxy._batch()
            for number, method in enumerate(["plain", "on_loop", "plain", "awaitable", "plain"]):
                getattr(batch, method)(number)
            assert list(await batch()) == [0, 1, 2, 3, 4]
    assert [number for number, _ in target.called] == [0, 1, 2, 3, 4]
    here = threading.get_ident()
    assert [thread == here for _, thread in target.called] == [False, True, False, False, False]


@pytest.mark.usefixtures("patient_runs")
async def test_what_one_of_them_sets_in_its_context_is_not_there_for_the_next() -> None:
    async with Daemon(threads=1) as daemon:
        daemon.register(Target(), "target")
        async with Proxy(uri_of(daemon)) as proxy:
            batch = proxy._batch()
            for number in (1, 2, 3):
                batch.add_to_mine(number)
            assert list(await batch()) == [1, 2, 3]


@pytest.mark.parametrize("threads", [0, 1])
async def test_calls_before_one_that_is_none_are_done(threads: int) -> None:
    target = Target()
    calls = [("plain", (1,), {}), ("plain", (2,), {}), ("plain",), ("plain", (3,), {})]
    async with Daemon(threads=threads) as daemon:
        daemon.register(target, "target")
        async with Proxy(uri_of(daemon)) as proxy:
            with pytest.raises(ValueError, match="unpack"):
                await proxy._call("<batch>", calls, flags=wire.FLAG_BATCH)
    assert [number for number, _ in target.called] == [1, 2]


@pytest.mark.usefixtures("patient_runs")
@pytest.mark.parametrize("failing", ["unsendable", "nothing_of_that_name", "plain"])
async def test_the_first_that_fails_ends_the_batch(failing: str) -> None:
    target = Target()
    async with Daemon(threads=1) as daemon:
        daemon.register(target, "target")
        async with Proxy(uri_of(daemon)) as proxy:
            batch = proxy._batch()
            batch.plain(1)
            getattr(batch, failing)()  # plain wants an argument
            batch.plain(3)
            results = await batch()
            assert next(results) == 1
            with pytest.raises(Exception, match=r"lock|nothing_of_that_name|argument"):
                next(results)
            assert list(results) == []
    assert [number for number, _ in target.called] == [1]


@pytest.mark.usefixtures("patient_runs")
async def test_a_batch_that_is_given_up_makes_no_further_call() -> None:
    target = Target()
    async with Daemon(threads=1) as daemon:
        daemon.register(target, "target")
        async with Proxy(uri_of(daemon)) as proxy, Proxy(uri_of(daemon), timeout_s=0.5) as hasty:
            batch = hasty._batch()
            batch.wait(1)
            batch.plain(2)
            batch.plain(3)
            waiting = asyncio.ensure_future(batch())
            assert await asyncio.to_thread(target.began.wait, 10)
            with pytest.raises(errors.Indefinite):
                await waiting
            await eventually(lambda: not daemon.stats()["inflight"])
            target.go.set()
            await eventually(lambda: target.called)
            assert await proxy.plain(4) == 4  # on the same thread, so after all of the batch
    assert [number for number, _ in target.called] == [1, 4]

"""How long a call lives: to its deadline, or to the end of its caller, or to its own."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
from fractions import Fraction
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest

from rmi_runtime import Daemon, Proxy, current_call, errors, expose, wire
from tests.integration.runtime.worker import Worker, address_of, proxy_of, raw_client, uri_of
from tests.raw_client import RawClient, call
from tests.support import eventually


async def test_the_deadline_travels_to_the_method(daemon: Daemon, worker: Worker) -> None:
    async with proxy_of(daemon, timeout_s=30.0) as proxy:
        working = asyncio.ensure_future(proxy._call("work", (1,), timeout_s=5.0))
        await eventually(lambda: worker.deadlines)
        (deadline,) = worker.deadlines
        assert deadline is not None
        assert 0 < deadline - time.monotonic() <= 5.0
        worker.gate.set()
        assert await working == 1


async def test_a_stock_client_sets_no_deadline(daemon: Daemon, worker: Worker) -> None:
    worker.gate.set()

    def stock() -> None:
        with Pyro5.api.Proxy(uri_of(daemon)) as proxy:
            proxy.work(1)

    await asyncio.to_thread(stock)
    assert worker.deadlines == [None]


async def test_work_is_given_up_when_its_caller_stops_waiting(
    daemon: Daemon, worker: Worker
) -> None:
    async with proxy_of(daemon) as proxy:
        with pytest.raises(errors.CallTimeout):
            await proxy._call("work", (1,), timeout_s=0.05)
        await eventually(lambda: worker.cancelled == [1])
        assert await proxy.echo(2) == 2
    assert daemon.stats()["inflight"] == 0


async def test_work_whose_time_is_over_is_not_begun(daemon: Daemon, worker: Worker) -> None:
    payload = call("work", 1, seq=5)
    late = bytearray(payload)
    late[36:38] = (1).to_bytes(2, "big")  # ten milliseconds

    def strike() -> wire.Message | None:
        with RawClient(address_of(daemon), pipelining=True) as client:
            client.send(bytes(late))
            return client.receive()

    striking = asyncio.ensure_future(asyncio.to_thread(strike))
    real = daemon.loop.create_task

    def slow_to_begin(coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        time.sleep(0.02)  # the loop has other things to do
        return real(coroutine, **options)

    class Loop:
        create_task = staticmethod(slow_to_begin)

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio.get_running_loop(), name)

    daemon.loop = Loop()  # type: ignore[assignment]
    reply = await striking
    assert reply is not None
    assert reply.flags & wire.FLAG_EXCEPTION
    assert b"deadline_passed" in reply.payload
    assert worker.begun == []


async def test_clean_up_is_not_cancelled_again_and_again(daemon: Daemon, worker: Worker) -> None:
    async with proxy_of(daemon) as proxy:
        with pytest.raises(errors.CallTimeout):
            await proxy._call("tidy_slowly", timeout_s=0.02)
        await asyncio.sleep(0)
        for _ in range(3):
            daemon.dispatcher.sweep()
            await asyncio.sleep(0)
        worker.gate.set()
        await eventually(lambda: worker.finished == ["tidied"])


async def test_pipelined_work_is_cancelled_when_its_caller_goes_away(
    daemon: Daemon, worker: Worker
) -> None:
    proxy = proxy_of(daemon)
    working = [asyncio.ensure_future(proxy.work(n)) for n in range(3)]
    await eventually(lambda: len(worker.begun) == 3)
    await proxy._close()
    await eventually(lambda: sorted(worker.cancelled) == [0, 1, 2])
    assert await asyncio.gather(*working, return_exceptions=True)
    await eventually(lambda: daemon.stats()["inflight"] == 0)


async def test_a_stock_clients_work_goes_on_to_its_end(daemon: Daemon, worker: Worker) -> None:
    with await raw_client(daemon) as client:
        client.send(call("work", "stock"))
        await eventually(lambda: worker.begun == ["stock"])
    await eventually(lambda: daemon.stats()["connections"] == 0)
    worker.gate.set()
    await eventually(lambda: worker.finished == ["stock"])
    assert worker.cancelled == []


async def test_oneway_work_goes_on_whoever_asked_for_it(daemon: Daemon, worker: Worker) -> None:
    async with proxy_of(daemon) as proxy:
        await proxy.leave_behind("ours")
        await eventually(lambda: worker.begun == ["ours"])
    await eventually(lambda: daemon.stats()["connections"] == 0)
    worker.gate.set()
    await eventually(lambda: worker.finished == ["ours"])
    assert worker.cancelled == []


async def test_oneway_work_has_no_deadline(daemon: Daemon, worker: Worker) -> None:
    async with proxy_of(daemon) as proxy:
        await proxy._call("leave_behind", ("ours",), timeout_s=0.01)
        await eventually(lambda: worker.begun == ["ours"])
        over = time.monotonic() + 0.02
        await eventually(lambda: time.monotonic() > over)
        daemon.dispatcher.sweep()
        assert await proxy.echo(1) == 1
        worker.gate.set()
        await eventually(lambda: worker.finished == ["ours"])
    assert worker.cancelled == []
    assert worker.deadlines == [None]


async def test_callbacks_at_the_end_of_a_connection(daemon: Daemon) -> None:
    ended: list[str] = []

    @expose
    class Watcher:
        def watch(self, name: str) -> None:
            connection = current_call().connection
            assert connection is not None
            connection.on_close(lambda: ended.append(name))
            connection.on_close(lambda: 1 / 0)
            connection.on_close(lambda: ended.append("taken back"))()

    daemon.register(Watcher(), "watcher")
    async with Proxy(f"PYRO:watcher@{daemon.location}") as proxy:
        await proxy.watch("first")
        await proxy.watch("second")
        assert ended == []
    await eventually(lambda: ended == ["first", "second"])


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e308])
async def test_a_call_may_wait_for_ever(daemon: Daemon, worker: Worker, timeout_s: float) -> None:
    async with proxy_of(daemon, timeout_s=timeout_s) as proxy:
        assert await proxy.echo(1) == 1


HUGE = [pytest.param(10**400, id="huge"), pytest.param(10**5000, id="too large to be written")]


@pytest.mark.parametrize("timeout_s", [None, math.nan, "10", *HUGE])
def test_a_deadline_that_is_no_number_is_refused_at_once(timeout_s: Any) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        Proxy("PYRO:x@127.0.0.1:1", timeout_s=timeout_s)


@pytest.mark.parametrize("timeout_s", [math.nan, "5", *HUGE])
async def test_one_of_a_call_that_is_no_number_is_refused_before_anything_is_sent(
    daemon: Daemon, timeout_s: Any
) -> None:
    async with proxy_of(daemon) as proxy:
        calls = daemon.calls
        for _ in range(2):
            with pytest.raises(ValueError, match="number of seconds"):
                proxy._call("echo", (1,), timeout_s=timeout_s)
        assert await proxy.echo(2) == 2
        assert daemon.calls == calls + 1


@pytest.mark.parametrize("timeout_s", [0, -0.1, -math.inf])
async def test_a_call_that_there_is_no_time_for_is_refused_before_anything_is_sent(
    daemon: Daemon, timeout_s: float
) -> None:
    async with proxy_of(daemon) as proxy:
        calls = daemon.calls
        with pytest.raises(errors.DeadlinePassed, match="'echo' was not sent"):
            await proxy._call("echo", (1,), timeout_s=timeout_s)
        assert await proxy.echo(2) == 2
        assert daemon.calls == calls + 1
    connections = daemon.connections.made
    with pytest.raises(errors.DeadlinePassed):
        await proxy_of(daemon, timeout_s=timeout_s).echo(3)
    assert daemon.connections.made == connections, "nor is it connected for it"


async def test_numbers_of_other_libraries_are_deadlines_too(daemon: Daemon) -> None:
    timeout_s: Any = Fraction(21, 2)
    async with proxy_of(daemon, timeout_s=timeout_s) as proxy:
        assert await proxy.echo(1) == 1
        assert await proxy._call("echo", (2,), timeout_s=timeout_s) == 2


async def test_a_coroutine_from_a_thread_whose_caller_has_gone_is_let_go(
    recwarn: pytest.WarningsRecorder,
) -> None:
    begun, gate = threading.Event(), threading.Event()

    async def never() -> None:
        raise AssertionError("nobody waits for this")

    class Half:
        @expose
        def begin(self) -> Any:
            begun.set()
            gate.wait(10)
            return never()

        @expose
        def end(self) -> None:
            """Do nothing."""

    async with Daemon(threads=1) as daemon:
        uri = daemon.register(Half())
        proxy = Proxy(uri)
        calling = asyncio.ensure_future(proxy.begin())
        await eventually(begun.is_set)
        await proxy._close()
        await asyncio.gather(calling, return_exceptions=True)
        await eventually(lambda: daemon.stats()["inflight"] == 0)
        gate.set()
        async with Proxy(uri) as other:
            await other.end()  # the only thread has done the first call by then
    gc.collect()
    assert not [w for w in recwarn if "never awaited" in str(w.message)]

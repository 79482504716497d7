"""The life of a daemon: housekeeping, draining, the end, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys

import Pyro5.api
import Pyro5.errors
import pytest

from rmi_runtime import Daemon, Proxy, errors
from tests.integration.runtime.worker import Worker, proxy_of, raw_client, uri_of
from tests.processes import descriptors
from tests.raw_client import call
from tests.support import eventually


def _housekeepers() -> int:
    tasks = asyncio.all_tasks()
    return sum(task.get_coro().__qualname__ == "Daemon._keep_house" for task in tasks)  # type: ignore[union-attr]


async def test_a_daemon_tells_its_figures_before_it_starts() -> None:
    daemon = Daemon()
    assert daemon.stats()["uptime_s"] == 0
    await daemon.start()
    await eventually(lambda: daemon.stats()["uptime_s"] > 0)
    await daemon.close()


async def test_a_daemon_that_is_started_twice_at_once_is_started_once(worker: Worker) -> None:
    daemon = Daemon()
    daemon.register(worker, "target")
    await asyncio.gather(daemon.start(), daemon.start())
    assert _housekeepers() == 1
    async with proxy_of(daemon) as proxy:
        assert await proxy.echo(1) == 1
    await daemon.close()
    await eventually(lambda: not _housekeepers())


async def test_a_daemon_that_is_closed_while_it_starts_stays_closed() -> None:
    daemon = Daemon()
    starting = asyncio.ensure_future(daemon.start())
    await asyncio.sleep(0)
    await daemon.close()
    with pytest.raises(Pyro5.errors.DaemonError, match="closed"):
        await starting
    assert _housekeepers() == 0
    assert daemon._socket.fileno() < 0


async def test_draining_finishes_what_is_under_way_and_refuses_what_is_new(
    daemon: Daemon, worker: Worker
) -> None:
    async with proxy_of(daemon) as proxy, proxy_of(daemon) as newcomer:
        working = asyncio.ensure_future(proxy.work("old"))
        await eventually(lambda: worker.begun)
        draining = asyncio.ensure_future(daemon.drain(10.0))
        await asyncio.sleep(0)
        with pytest.raises(errors.Draining) as refused:
            await newcomer.echo("new")
        assert refused.value.definite
        await newcomer._call("ping", object_id="Pyro.Daemon")
        assert daemon.stats()["state"] == "draining"
        assert not draining.done()
        worker.gate.set()
        assert await draining is True
        assert await working == "old"


async def test_draining_ends_after_its_time(daemon: Daemon, worker: Worker) -> None:
    async with proxy_of(daemon) as proxy:
        working = asyncio.ensure_future(proxy.work("stuck"))
        await eventually(lambda: worker.begun)
        assert await daemon.drain(0.05) is False
        worker.gate.set()
        assert await working == "stuck"


async def test_a_stream_can_be_read_to_its_end_while_draining(daemon: Daemon) -> None:
    async with proxy_of(daemon) as proxy:
        stream = await proxy.count_to(3)
        assert await anext(stream) == 0
        await daemon.drain(1.0)
        assert [n async for n in stream] == [1, 2]


async def test_a_stock_client_reads_draining_as_a_connection_error(daemon: Daemon) -> None:
    daemon.draining = True

    def stock() -> None:
        with Pyro5.api.Proxy(uri_of(daemon)) as proxy, pytest.raises(ConnectionError) as refused:
            proxy.echo(1)
        assert refused.value.code == "draining"

    await asyncio.to_thread(stock)


async def test_closing_with_calls_under_way_answers_them_and_leaves_nothing(
    worker: Worker,
) -> None:
    async with Daemon() as daemon:
        daemon.register(worker, "target")
        proxy = proxy_of(daemon)
        working = [asyncio.ensure_future(proxy.work(n)) for n in range(10)]
        stream = await proxy.count_to(3)
        await anext(stream)
        await eventually(lambda: len(worker.begun) == 10)
    outcomes = await asyncio.gather(*working, return_exceptions=True)
    assert all(isinstance(e, (errors.Interrupted, errors.ConnectionLost)) for e in outcomes)
    assert len(worker.cancelled) == 10
    assert worker.finished == ["stream"]
    await eventually(lambda: daemon.stats()["connections"] == 0)
    assert daemon.stats()["inflight"] == 0
    for _ in range(2):  # the first may be sent before the proxy has heard of the end
        with pytest.raises((errors.Unavailable, errors.ConnectionLost)) as refused:
            await proxy.echo(1)
    assert refused.type is errors.Unavailable
    await daemon.close()  # once more is harmless
    with pytest.raises(Pyro5.errors.DaemonError, match="closed"):
        await daemon.start()


async def test_calls_that_never_began_are_refused_as_definite_when_the_daemon_closes(
    worker: Worker, recwarn: pytest.WarningsRecorder
) -> None:
    async with Daemon() as daemon:
        daemon.register(worker, "target")
        with await raw_client(daemon, pipelining=True) as client:
            await eventually(lambda: daemon.stats()["connections"] == 1)
            (connection,) = daemon.connections
            connection.data_received(call("work", 1))  # its task has not had a turn yet
            await daemon.close()
            reply = await asyncio.to_thread(client.receive)
    assert reply is not None
    assert b"'draining'" in reply.payload
    assert worker.begun == []
    gc.collect()
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


async def test_objects_come_and_go_while_they_are_called(daemon: Daemon, worker: Worker) -> None:
    async with proxy_of(daemon) as proxy:
        working = asyncio.ensure_future(proxy.work("old"))
        await eventually(lambda: worker.begun)
        daemon.unregister("target")
        with pytest.raises(Pyro5.errors.DaemonError, match="unknown object"):
            await proxy.echo(1)
        with pytest.raises(errors.NotFound):
            await proxy_of(daemon)._bind()
        other = Worker()
        daemon.register(other, "target")
        assert await proxy.echo(2) == 2
        worker.gate.set()
        assert await working == "old"


async def test_housekeeping_goes_on_after_an_exception(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    swept: list[int] = []

    def fails_once() -> None:
        swept.append(1)
        if len(swept) == 1:
            raise RuntimeError("dust")

    with caplog.at_level(logging.ERROR, "rmi_runtime.daemon"):
        monkeypatch.setattr(daemon.dispatcher, "sweep", fails_once)
        await eventually(lambda: len(swept) >= 2)
    assert "housekeeping failed" in caplog.text


async def test_many_calls_and_many_connections_leave_nothing_behind(daemon: Daemon) -> None:
    async with proxy_of(daemon) as proxy:
        await asyncio.gather(*[proxy.echo(n) for n in range(500)])
        gc.collect()
        objects, files = len(gc.get_objects()), descriptors()
        for _ in range(10):
            await asyncio.gather(*[proxy.echo(n) for n in range(500)])
            await asyncio.gather(*[proxy._call("info", object_id="Pyro.Daemon") for _ in range(50)])
        for _ in range(100):
            async with proxy_of(daemon) as another:
                await another.echo(1)
        await eventually(lambda: daemon.stats()["connections"] == 1)
        gc.collect()
        assert len(gc.get_objects()) - objects < 1000
        assert descriptors() <= files
    assert daemon.stats()["calls"] >= 5600
    assert daemon.stats()["inflight"] == 0


@pytest.mark.parametrize("port", [-1, 0x10000, 99_999])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(OSError, match=f"127.0.0.1:{port}: a port is a number from 0 to 65535"):
        Daemon(port=port)


async def test_a_port_that_does_not_exist_is_not_taken_for_another(daemon: Daemon) -> None:
    place, port = uri_of(daemon).rsplit(":", 1)
    with pytest.raises(errors.Unavailable, match="65535"):
        async with Proxy(f"{place}:{int(port) + 0x10000}"):
            pytest.fail("it connected")


@pytest.mark.skipif(sys.platform != "linux", reason="there is no abstract namespace")
async def test_a_socket_may_have_a_name_of_the_abstract_namespace() -> None:
    name = f"\0rmi-test-{os.getpid()}"
    async with Daemon(unixsocket=name) as daemon:
        daemon.register(Worker(), "worker")
        async with Proxy(f"PYRO:worker@{daemon.location}") as proxy:
            assert await proxy.echo(1) == 1
    with pytest.raises(errors.Unavailable):
        await Proxy(f"PYRO:worker@./u:{name}").echo(2)

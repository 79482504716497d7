"""Daemons whose start or end is cancelled, or comes between two steps of a connection."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest
import uvloop

from rmi_runtime import Daemon, Proxy, expose
from tests.integration.runtime.worker import Worker, address_of, uri_of
from tests.support import eventually, turns

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


class Stubborn:
    """Does not let itself be cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    @expose
    async def work(self) -> None:
        """Wait for the gate."""
        self.begun.set()
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                continue


async def test_a_close_that_is_cancelled_leaves_nothing_open_all_the_same() -> None:
    stubborn, daemon = Stubborn(), Daemon()
    daemon.register(stubborn, "target")
    await daemon.start()
    proxy = Proxy(uri_of(daemon))
    working = asyncio.ensure_future(proxy.work())
    await stubborn.begun.wait()
    closing = asyncio.ensure_future(daemon.close())
    await turns()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    try:
        await eventually(lambda: daemon.stats()["connections"] == 0)
        assert daemon._socket.fileno() < 0
    finally:
        stubborn.gate.set()
        await asyncio.gather(working, return_exceptions=True)
        await eventually(lambda: daemon.stats()["inflight"] == 0)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_start_that_is_cancelled_leaves_the_loop_as_it_was(new_loop: object) -> None:
    async def start_one_and_then_another() -> None:
        first = Daemon()
        starting = asyncio.ensure_future(first.start())
        await turns(1)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        address = address_of(first)
        await first.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        async with Daemon() as second:  # its socket may have the first one's number
            second.register(Worker(), "target")
            async with Proxy(uri_of(second)) as proxy:
                assert await proxy.echo(1) == 1

    with asyncio.Runner(loop_factory=new_loop) as runner:  # type: ignore[arg-type]
        runner.run(start_one_and_then_another())


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("count", range(6))
def test_a_connection_that_comes_just_before_the_end_is_not_kept(
    new_loop: object, count: int
) -> None:
    async def connect_and_close() -> None:
        daemon = Daemon()
        await daemon.start()
        with socket.create_connection(address_of(daemon)) as client:
            await turns(count)
            await daemon.close()
            client.setblocking(False)
            gc.collect()  # asyncio drops one that comes between its own two steps
            await eventually(lambda: _ended(client))
        await eventually(lambda: daemon.stats()["connections"] == 0)

    with asyncio.Runner(loop_factory=new_loop) as runner:  # type: ignore[arg-type]
        runner.run(connect_and_close())


def _ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True

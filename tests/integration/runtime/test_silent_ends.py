"""Connections that are closed while the other end does not read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from rmi_runtime import Daemon, Proxy, errors, hang_up
from tests.integration.runtime.fake_server import Peer, fake_server
from tests.integration.runtime.worker import Worker, raw_client
from tests.processes import descriptors
from tests.raw_client import call
from tests.support import eventually

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
MANY_BYTES = 16 * 1024 * 1024  # more than the system keeps for two sockets
NewLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang_up, "LAST_WORDS_S", 0.1)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_proxy_that_is_closed_lets_go_of_a_server_that_does_not_read(new_loop: NewLoop) -> None:
    over = asyncio.Event()

    async def deaf(peer: Peer) -> None:
        await peer.greet(pipelining=False)  # so that it takes large requests
        peer._writer.transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()

    async def fill_and_close() -> None:
        async with fake_server(deaf) as uri:
            before = descriptors()
            proxy = Proxy(uri)
            await proxy._bind()
            with pytest.raises(errors.CallTimeout):
                await proxy._call("echo", (b"x" * MANY_BYTES,), timeout_s=0.1)
            await proxy._close()
            await eventually(lambda: descriptors() == before + 1)  # the server's end
            over.set()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(fill_and_close())


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_proxy_lets_go_of_a_server_that_neither_writes_nor_reads(new_loop: NewLoop) -> None:
    over = asyncio.Event()

    async def deaf_and_mute(peer: Peer) -> None:
        await peer.greet(pipelining=False)
        peer._writer.transport.pause_reading()  # type: ignore[attr-defined]
        await filled.wait()
        peer._writer.write_eof()
        await over.wait()

    async def fill_and_wait() -> None:
        async with fake_server(deaf_and_mute) as uri:
            before = descriptors()
            proxy = Proxy(uri, timeout_s=60.0)
            await proxy._bind()
            calling = asyncio.ensure_future(proxy.echo(b"x" * MANY_BYTES))
            await asyncio.sleep(0)
            filled.set()
            with pytest.raises(errors.ConnectionLost, match="by the peer before the reply"):
                await asyncio.wait_for(calling, 10.0)
            await eventually(lambda: descriptors() == before + 1)  # the server's end
            over.set()

    filled = asyncio.Event()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(fill_and_wait())


async def test_a_daemon_that_is_closed_lets_go_of_a_client_that_does_not_read(
    daemon: Daemon, worker: Worker
) -> None:
    with await raw_client(daemon) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        (connection,) = daemon.connections
        transport = connection._transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport.set_write_buffer_limits(high=MANY_BYTES)
        for _ in range(4):
            client.send(call("echo", "x" * 60_000))
        await eventually(lambda: transport.get_write_buffer_size() > 0)
        await daemon.close()
        await eventually(lambda: daemon.stats()["connections"] == 0)

"""The proxy of the network faults, between a real server and its clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rmi_torture.faults.network import NetworkFault, NetworkProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HELD_S = 0.3


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[NetworkProxy]:
    async with NetworkProxy(tmp_path / "control", seed=1) as made:
        yield made


@asynccontextmanager
async def echo(proxy: NetworkProxy) -> AsyncIterator[Streams]:
    """A connection through the proxy to a server that sends everything back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await proxy.order(do="forward", name="echo", port=port)
        streams = await asyncio.open_connection("127.0.0.1", found["port"])
        yield streams
        streams[1].close()


async def said(streams: Streams, text: bytes) -> bytes:
    reader, writer = streams
    writer.write(text)
    return await reader.readexactly(len(text))


async def until_it_breaks(streams: Streams) -> None:
    while True:
        await said(streams, b"during")


async def test_without_a_fault_all_passes(proxy: NetworkProxy) -> None:
    async with echo(proxy) as streams:
        assert await said(streams, b"x" * 100_000) == b"x" * 100_000


@pytest.mark.parametrize("kind", ["partition", "deaf", "mute"])
async def test_a_cut_holds_everything_back_until_it_ends(proxy: NetworkProxy, kind: str) -> None:
    fault = NetworkFault(proxy, kind)
    async with echo(proxy) as streams:
        assert await said(streams, b"before") == b"before"
        await fault.begin("echo")
        streams[1].write(b"during")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HELD_S):
                await streams[0].read(1)
        await fault.end("echo")
        assert await streams[0].readexactly(6) == b"during"


async def test_loss_resets_connections(proxy: NetworkProxy) -> None:
    fault = NetworkFault(proxy, "loss")
    async with echo(proxy) as streams:
        assert await said(streams, b"before") == b"before"
        await fault.begin("echo")
        with pytest.raises((OSError, EOFError)):
            await until_it_breaks(streams)
        await fault.heal()


async def test_delay_comes_late_and_whole(proxy: NetworkProxy) -> None:
    fault = NetworkFault(proxy, "delay")
    async with echo(proxy) as streams:
        await fault.begin("echo")
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        assert await said(streams, b"during") == b"during"
        assert loop.time() - began_s > 0.05
        await fault.end("echo")


async def test_who_does_not_go_through_the_proxy_is_not_struck(proxy: NetworkProxy) -> None:
    fault = NetworkFault(proxy, "partition")
    assert await fault.begin("nobody") is None
    async with echo(proxy):
        assert await fault.begin("echo") == {}
        await fault.heal()


async def test_a_service_that_is_gone_refuses_through_the_proxy_too(proxy: NetworkProxy) -> None:
    found = await proxy.order(do="forward", name="nobody", port=1)
    reader, _ = await asyncio.open_connection("127.0.0.1", found["port"])
    with pytest.raises((OSError, EOFError)):
        await reader.readexactly(1)

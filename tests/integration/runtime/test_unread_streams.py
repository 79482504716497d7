"""Streams that nobody will read, because whoever asked for them was gone when they came."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rmi_runtime import Daemon, Proxy, SyncProxy, errors, expose
from tests.integration.runtime.worker import raw_client, uri_of
from tests.raw_client import call
from tests.support import eventually


@expose
class Source:
    """Returns a stream when its gate opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = 0
        self.returned = 0

    async def later(self, plain: bool) -> Any:
        """Wait for the gate, then return a stream."""
        self.asked += 1
        await self.gate.wait()
        self.returned += 1
        return _plain() if plain else _numbers()

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value


async def _numbers() -> AsyncIterator[int]:
    yield 1


def _plain() -> Iterator[int]:
    yield 1


@pytest.fixture
async def source(daemon: Daemon) -> Source:
    made = Source()
    daemon.register(made, "target", force=True)
    return made


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("given_up", ["cancelled", "timed out"])
async def test_a_stream_whose_call_was_given_up_is_closed(
    daemon: Daemon, source: Source, given_up: str, plain: bool
) -> None:
    async with Proxy(uri_of(daemon)) as proxy:
        if given_up == "cancelled":
            asking = asyncio.ensure_future(proxy.later(plain))
            await eventually(lambda: source.asked)
            asking.cancel()
        else:
            connection = await proxy._bind()
            connection.pipelining = False  # so that no deadline goes along, and it is worked on
            with pytest.raises(errors.CallTimeout):
                await proxy._call("later", (plain,), timeout_s=0.01)
        source.gate.set()
        await eventually(lambda: source.returned)
        assert await proxy.echo(1) == 1
        await eventually(lambda: daemon.stats()["streams"] == 0)


@pytest.mark.parametrize("plain", [True, False])
async def test_no_stream_is_kept_for_a_stock_client_that_hung_up_before_it_came(
    daemon: Daemon, source: Source, plain: bool
) -> None:
    with await raw_client(daemon) as client:
        client.send(call("later", plain))
        await eventually(lambda: source.asked)
    await eventually(lambda: daemon.stats()["connections"] == 0)
    source.gate.set()
    await eventually(lambda: source.returned and daemon.stats()["inflight"] == 0)
    assert daemon.stats()["streams"] == 0


async def test_a_stream_that_is_dropped_just_before_its_proxy_is_closed_is_closed(
    daemon: Daemon, source: Source
) -> None:
    source.gate.set()
    async with Proxy(uri_of(daemon)) as proxy:
        async for number in await proxy.later(plain=False):
            assert number == 1
            break
    await eventually(lambda: daemon.stats()["connections"] == 0)
    assert daemon.stats()["streams"] == 0


async def test_a_stream_that_a_script_drops_is_closed_while_its_proxy_rests(
    daemon: Daemon, source: Source
) -> None:
    source.gate.set()
    dropped, looked = threading.Event(), threading.Event()

    def script() -> None:
        with SyncProxy(uri_of(daemon)) as proxy:
            for number in proxy.later(plain=False):
                assert number == 1
                break
            dropped.set()
            assert looked.wait(10)

    running = asyncio.create_task(asyncio.to_thread(script))
    try:
        await eventually(dropped.is_set)
        await eventually(lambda: daemon.stats()["streams"] == 0)
    finally:
        looked.set()
        await running


async def test_closing_a_stream_ends_the_fetch_that_nobody_waits_for(daemon: Daemon) -> None:
    ended = asyncio.Event()

    @expose
    class News:
        async def follow(self) -> Any:
            return _follow()

    async def _follow() -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Proxy(daemon.register(News()), timeout_s=math.inf) as proxy:
        stream = await proxy.follow()
        assert await anext(stream) == "first"
        fetching = asyncio.ensure_future(anext(stream))
        await eventually(lambda: daemon.stats()["inflight"] == 1)
        fetching.cancel()
        await stream.aclose()
        await eventually(ended.is_set)
        await eventually(lambda: daemon.stats()["inflight"] == 0)
        assert daemon.stats()["streams"] == 0

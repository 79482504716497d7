"""Ways of stock daemons, and of the one that looks like them, that our proxies have to know."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest
from Pyro5.api import current_context, oneway

from rmi_runtime import Proxy, SyncProxy, compat, errors, expose


class Unknown:
    """Nobody can make one of what it is serialized as; its name is suspicious, too."""

    __module__ = "__nowhere__"


@expose
class Thing:
    """What is called."""

    def __init__(self) -> None:
        self._go = threading.Event()

    def echo(self, value: Any) -> Any:
        return value

    def unserializable(self) -> Any:
        return object()

    def table(self, rows: int) -> Iterator[Iterator[int]]:
        yield from (iter(range(row)) for row in range(1, rows + 1))

    @oneway
    def hang_up(self) -> None:
        current_context.client.close()

    def hang(self) -> None:
        self._go.wait(60)

    def release(self) -> None:
        self._go.set()


@pytest.fixture(params=[Pyro5.api.Daemon, compat.Daemon], ids=["stock", "dropin"])
def uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """A thing at a daemon in a thread."""
    daemon, thing = request.param("127.0.0.1"), Thing()
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    yield str(daemon.register(thing))
    thing.release()
    daemon.shutdown()
    thread.join(10)


async def test_a_server_that_hangs_up_after_an_error_loses_no_later_call(uri: str) -> None:
    async with Proxy(uri) as proxy:
        for _ in range(5):
            with pytest.raises(Pyro5.errors.SerializeError):
                await proxy.unserializable()
            assert await proxy.echo(1) == 1
            with pytest.raises(Pyro5.errors.SecurityError):
                await proxy.echo(Unknown())
            assert await proxy.echo(2) == 2


async def test_nor_one_of_a_sync_proxy(uri: str) -> None:
    def script() -> None:
        with SyncProxy(uri) as proxy:
            for _ in range(5):
                with pytest.raises(Pyro5.errors.SerializeError):
                    proxy.unserializable()
                assert proxy.echo(1) == 1
                with pytest.raises(Pyro5.errors.SecurityError):
                    proxy.echo(Unknown())
                assert proxy.echo(2) == 2

    await asyncio.to_thread(script)


async def test_streams_of_streams_are_for_those_who_do_not_await(uri: str) -> None:
    def script() -> list[list[int]]:
        with SyncProxy(uri) as proxy:
            return [list(row) for row in proxy.table(2)]

    assert await asyncio.to_thread(script) == [[0], [0, 1]]


async def test_a_call_that_hangs_keeps_none_waiting_that_comes_after_its_timeout(uri: str) -> None:
    async with Proxy(uri) as proxy:
        behind = proxy._call("hang", timeout_s=30)
        with pytest.raises(errors.CallTimeout):
            await proxy._call("hang", timeout_s=0.1)
        assert await proxy.echo(1) == 1
        await proxy.release()
        assert await behind is None


async def test_nor_those_of_a_sync_proxy(uri: str) -> None:
    def script() -> None:
        with SyncProxy(uri) as proxy:
            for number in range(3):
                with pytest.raises(errors.CallTimeout):
                    proxy._call("hang", timeout_s=0.1)
                assert proxy.echo(number) == number

    await asyncio.to_thread(script)


async def test_a_sync_proxy_notices_the_end_of_its_second_connection(uri: str) -> None:
    def script() -> None:
        quiet, other = socket.socketpair()
        with SyncProxy(uri) as proxy, quiet, other:
            assert proxy.echo(1) == 1
            number = _connection(proxy).transport_fileno()
            with pytest.raises(errors.CallTimeout):
                proxy._call("hang", timeout_s=0.1)
            os.dup2(quiet.fileno(), number)  # somebody else's by now, where nothing ever comes
            assert proxy.echo(2) == 2
            poll = select.poll()
            poll.register(_connection(proxy).transport_fileno(), select.POLLIN)
            proxy.hang_up()
            assert poll.poll(10_000)
            assert proxy.echo(3) == 3
            os.close(number)

    await asyncio.to_thread(script)


def _connection(proxy: SyncProxy) -> Any:
    return proxy._proxy._connection

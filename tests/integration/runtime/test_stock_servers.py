"""Ways of stock daemons that our proxies have to know."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest

from rmi_runtime import Proxy, SyncProxy, expose


class Unknown:
    """Nobody can make one of what it is serialized as; its name is suspicious, too."""

    __module__ = "__nowhere__"


@expose
class Thing:
    """What is called."""

    def echo(self, value: Any) -> Any:
        return value

    def unserializable(self) -> Any:
        return object()

    def table(self, rows: int) -> Iterator[Iterator[int]]:
        yield from (iter(range(row)) for row in range(1, rows + 1))


@pytest.fixture
def uri() -> Iterator[str]:
    """A thing at a stock daemon."""
    daemon = Pyro5.api.Daemon("127.0.0.1")
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    yield str(daemon.register(Thing()))
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

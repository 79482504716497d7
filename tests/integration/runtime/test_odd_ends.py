"""Whatever is raised where what a client used is closed, the daemon serves on."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rmi_runtime import Daemon, DaemonLimits, Proxy, current_call, expose
from tests.integration.runtime.worker import proxy_of
from tests.support import eventually


class Answers:
    """An iterator that has an answer of its own to every name."""

    def __iter__(self) -> Answers:
        return self

    def __next__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class Resource:
    """Ends the program when it is closed."""

    def close(self) -> None:
        """Raise."""
        sys.exit("closed")


@expose
class Leaving:
    """Leaves things behind that are odd to close."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []

    def plain(self) -> Iterator[int]:
        """Stream, and raise at the end."""
        try:
            yield from iter(int, 1)
        finally:
            sys.exit("plain")

    async def later(self) -> AsyncIterator[int]:
        """Return an asynchronous stream that raises at its end."""

        async def numbers() -> AsyncIterator[int]:
            try:
                while True:
                    yield 0
            finally:
                sys.exit("later")

        return numbers()

    def answers(self) -> Answers:
        """Stream what has an answer to every name."""
        return Answers()

    def resource(self) -> None:
        """Have a resource closed at the end of the connection."""
        self.resources.append(Resource())
        call = current_call()
        assert call.connection is not None
        call.connection.tracked_resources.add(self.resources[-1])  # type: ignore[attr-defined]

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value


ODD = ["plain", "later", "answers", "resource"]


async def _leave(proxy: Proxy, name: str) -> Any:
    """Have something left behind, and return the stream if it is one."""
    stream = await proxy._call(name)
    if stream is not None:
        await anext(stream)
    return stream


@pytest.mark.parametrize("linger_s", [0.0, 0.05])
@pytest.mark.parametrize("name", ODD)
async def test_a_client_that_hangs_up_takes_nobody_along(name: str, linger_s: float) -> None:
    ended: list[str] = []
    async with Daemon(limits=DaemonLimits(stream_linger_s=linger_s)) as daemon:
        daemon.register(Leaving(), "target")
        proxy = proxy_of(daemon)
        kept = await _leave(proxy, name)
        (connection,) = daemon.connections
        connection.on_close(lambda: ended.append("told"))
        await proxy._close()
        await eventually(lambda: ended and not daemon.streams)
        async with proxy_of(daemon) as other:
            assert await other.echo(1) == 1
        del kept
    assert ended == ["told"]


@pytest.mark.parametrize("name", ODD)
async def test_a_daemon_closes_all_of_it(name: str) -> None:
    daemon = Daemon()
    daemon.register(Leaving(), "target")
    await daemon.start()
    proxies = [proxy_of(daemon) for _ in range(2)]
    kept = [await _leave(proxy, name) for proxy in proxies]
    await daemon.close()
    assert daemon._socket.fileno() < 0
    await eventually(lambda: not (daemon.streams or len(daemon.connections)))
    for proxy in proxies:
        await proxy._close()
    del kept

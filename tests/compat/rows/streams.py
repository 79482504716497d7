"""Item streams: generators and iterators as results."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import TextIO

import Pyro5.errors
import pytest
from Pyro5.api import expose

from rmi_runtime import DaemonLimits
from tests.compat.table import BETTER, row
from tests.compat.world import World


@expose
class Source:
    """Gives out items."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def numbers(self, count: int) -> Iterator[int]:
        try:
            yield from range(count)
        finally:
            self.closed.set()

    def iterator(self) -> Iterator[str]:
        return iter(["a", "b"])

    def failing(self) -> Iterator[int]:
        yield 1
        raise ValueError("in the middle")

    @property
    def letters(self) -> Iterator[str]:
        return iter("xyz")

    async def awaited(self, count: int) -> AsyncIterator[int]:
        return self._count(count)

    async def _count(self, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                await asyncio.sleep(0)
                yield number
        finally:
            self.closed.set()

    def ping(self) -> str:
        return "pong"


@expose
class AsyncSource:
    """Gives out items that it awaits."""

    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            await asyncio.sleep(0)
            yield number


@row("streams", "generators")
def generators(world: World) -> None:
    source = Source()
    client = world.client(source)
    assert list(client.call("numbers", 5)) == [0, 1, 2, 3, 4]
    assert list(client.call("numbers", 0)) == []
    assert source.closed.is_set()


@row("streams", "iterators, and properties that return them")
def iterators(world: World) -> None:
    client = world.client(Source())
    assert list(client.call("iterator")) == ["a", "b"]
    assert list(client.get("letters")) == ["x", "y", "z"]


@row("streams", "two at once, with other calls in between")
def interleaved(world: World) -> None:
    client = world.client(Source())
    one, two = client.call("numbers", 3), client.call("numbers", 3)
    assert [next(one), next(two), next(one)] == [0, 0, 1]
    assert client.call("ping") == "pong"
    assert [next(two), next(one), next(two)] == [1, 2, 2]
    for stream in (one, two):
        with pytest.raises(StopIteration):
            next(stream)


@row("streams", "an exception in the middle arrives, and ends the stream")
def failing(world: World) -> None:
    stream = world.client(Source()).call("failing")
    assert next(stream) == 1
    with pytest.raises(ValueError, match="in the middle"):
        next(stream)
    with pytest.raises(Pyro5.errors.PyroError, match="item stream terminated"):
        next(stream)


@row("streams", "closed early: the generator ends at the server")
def closed_early(world: World) -> None:
    source = Source()
    client = world.client(source)
    stream = client.call("numbers", 1_000)
    assert next(stream) == 0
    stream.close()
    assert client.call("ping") == "pong"
    assert source.closed.wait(10)
    with pytest.raises(StopIteration):
        next(stream)


@expose
class Notebook:
    """Hands out the lines of a file that it keeps."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines

    def lines(self) -> TextIO:
        return self._lines

    def ping(self) -> None: ...


@row("streams", "closed early: an iterator that the object keeps goes on")
def kept(world: World) -> None:
    path = world.directory / "notebook"
    path.write_text("one\ntwo\n")
    with path.open() as file:
        client = world.client(Notebook(file))
        stream = client.call("lines")
        assert next(stream) == "one\n"
        stream.close()
        client.call("ping")
        assert next(client.call("lines")) == "two\n"


def _limited(world: World, lifetime_s: float, linger_s: float) -> None:
    world.configure(ITER_STREAM_LIFETIME=lifetime_s, ITER_STREAM_LINGER=linger_s, POLLTIMEOUT=0.1)
    world.start_server(limits=DaemonLimits(stream_lifetime_s=lifetime_s, stream_linger_s=linger_s))


@row("streams", "life-time limit: an old stream is gone")
def lifetime(world: World) -> None:
    _limited(world, lifetime_s=0.1, linger_s=30)
    source = Source()
    client = world.client(source)
    stream = client.call("numbers", 1_000_000)

    def read_for_ever() -> None:
        for _ in stream:
            time.sleep(0.01)

    with pytest.raises(Pyro5.errors.PyroError, match="item stream terminated"):
        read_for_ever()


@row("streams", "linger: after a lost connection the client reads on")
def linger(world: World) -> None:
    _limited(world, lifetime_s=0, linger_s=30)
    client = world.client(Source())
    stream = client.call("numbers", 3)
    assert next(stream) == 0
    client.break_connection()
    if world.direction.client == "stock":
        client.proxy._pyroReconnect(1)
    assert list(stream) == [1, 2]


@row("streams", "linger of 0: a lost connection closes its streams")
def no_linger(world: World) -> None:
    _limited(world, lifetime_s=0, linger_s=0)
    source = Source()
    client = world.client(source)
    stream = client.call("numbers", 3)
    assert next(stream) == 0
    client.break_connection()
    assert source.closed.wait(10)


@row(
    "streams",
    "async generators",
    verdict=BETTER,
    why="stock knows threads only",
    servers="daemon dropin",
)
def async_generators(world: World) -> None:
    assert list(world.client(AsyncSource()).call("numbers", 4)) == [0, 1, 2, 3]
    source = Source()
    client = world.client(source)
    stream = client.call("awaited", 100)
    assert next(stream) == 0
    stream.close()
    assert source.closed.wait(10)


@row(
    "streams",
    "a stream that is dropped unfinished is closed at the server",
    side="client",
)
def dropped(world: World) -> None:
    source = Source()
    client = world.client(source)
    stream = client.call("numbers", 1_000)
    assert next(stream) == 0
    del stream
    assert source.closed.wait(10)

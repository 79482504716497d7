"""Calls: arguments, oneway, batches."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from Pyro5.api import expose, oneway

from tests.compat.table import BETTER, row
from tests.compat.world import World


@expose
class Calculator:
    """Adds, and remembers what it did."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.happened = threading.Event()

    def add(self, a: int, b: int = 10, *more: int, scale: int = 1) -> int:
        self.done.append((a, b, *more))
        return (a + b + sum(more)) * scale

    def divide(self, a: int, b: int) -> float:
        return a / b

    def nothing(self) -> None:
        pass

    def echo(self, value: Any) -> Any:
        return value

    def keywords(self, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    @oneway
    def tell(self, value: Any) -> str:
        self.done.append(value)
        self.happened.set()
        if value == "fail":
            raise RuntimeError("nobody hears this")
        return "nobody gets this"

    def unlisted(self) -> None:
        pass


@row("calls", "positional, default and extra arguments")
def positional(world: World) -> None:
    client = world.client(Calculator())
    assert client.call("add", 1) == 11
    assert client.call("add", 1, 2) == 3
    assert client.call("add", 1, 2, 3, 4) == 10


@row("calls", "keyword arguments")
def keywords(world: World) -> None:
    client = world.client(Calculator())
    assert client.call("add", a=1, b=2, scale=3) == 9
    assert client.call("keywords", one=1, two=[2]) == {"one": 1, "two": [2]}


@row("calls", "a method without a result returns None")
def no_result(world: World) -> None:
    assert world.client(Calculator()).call("nothing") is None


@row("calls", "wrong arguments raise TypeError")
def wrong_arguments(world: World) -> None:
    client = world.client(Calculator())
    for args, kwargs in (((), {}), ((1, 2), {"no": 3}), ((1,), {"a": 2})):
        with pytest.raises(TypeError):
            client.call("add", *args, **kwargs)
    assert client.call("add", 1) == 11


@row("calls", "a megabyte there and back")
def large(world: World) -> None:
    text = "é" * 500_000
    assert world.client(Calculator()).call("echo", text) == text


@row("calls", "two clients at once do not see each other's replies")
def two_clients(world: World) -> None:
    uri = world.serve(Calculator())
    one, two = world.connect(uri), world.connect(uri)
    for number in range(20):
        assert one.call("echo", number) == number
        assert two.call("echo", -number) == -number


@row("calls", "@oneway: the caller gets None at once, the method runs")
def oneway_call(world: World) -> None:
    calculator = Calculator()
    client = world.client(calculator)
    assert client.call("tell", "this") is None
    assert calculator.happened.wait(10)
    assert calculator.done == ["this"]


@row("calls", "@oneway: an error stays at the server, later calls are answered")
def oneway_error(world: World) -> None:
    calculator = Calculator()
    client = world.client(calculator)
    assert client.call("tell", "fail") is None
    assert calculator.happened.wait(10)
    assert client.call("echo", 1) == 1


def _adds(*pairs: tuple[int, int]) -> list[Any]:
    return [("add", pair, {}) for pair in pairs]


@row("calls", "batch: results in order")
def batch(world: World) -> None:
    client = world.client(Calculator())
    calls = [*_adds((1, 2), (3, 4)), ("add", (5,), {"b": 6, "scale": 2})]
    assert list(client.batch(calls)) == [3, 7, 22]


@row("calls", "batch: the first failing call ends it, its exception comes in its place")
def batch_failing(world: World) -> None:
    calculator = Calculator()
    client = world.client(calculator)
    results = client.batch([*_adds((1, 2)), ("divide", (1, 0), {}), *_adds((3, 4))])
    assert next(results) == 3
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert any("divide" in line for line in caught.value._pyroTraceback)
    assert calculator.done == [(1, 2)]


@row("calls", "batch: oneway")
def batch_oneway(world: World) -> None:
    calculator = Calculator()
    client = world.client(calculator)
    calls = [*_adds((1, 2)), ("tell", ("batched",), {})]
    assert list(client.batch(calls, oneway=True)) == []
    assert calculator.happened.wait(10)
    assert calculator.done == [(1, 2), "batched"]


def _whole_batch_fails(world: World) -> None:
    calculator = Calculator()
    client = world.client(calculator)
    with pytest.raises(AttributeError):
        client.batch([*_adds((1, 2)), ("missing", (), {})])
    assert calculator.done == [(1, 2)]


@row(
    "calls",
    "batch: a call of what is not exposed fails in its place",
    verdict=BETTER,
    why="stock answers the whole batch with the error, and the results so far are lost",
    stock=_whole_batch_fails,
)
def batch_unexposed(world: World) -> None:
    client = world.client(Calculator())
    results = client.batch([*_adds((1, 2)), ("missing", (), {})])
    assert next(results) == 3
    with pytest.raises(AttributeError):
        next(results)


class Waiter:
    """Has methods that await."""

    @expose
    async def double(self, number: int) -> int:
        return 2 * number

    @expose
    async def fail(self) -> None:
        raise KeyError("from a coroutine")


@row(
    "calls",
    "async def methods",
    verdict=BETTER,
    why="stock knows threads only",
)
def async_methods(world: World) -> None:
    client = world.client(Waiter())
    assert client.call("double", 4) == 8
    with pytest.raises(KeyError, match="from a coroutine"):
        client.call("fail")
    assert list(client.batch([("double", (1,), {}), ("double", (2,), {})])) == [2, 4]


@row(
    "calls",
    "many calls in flight on one connection",
    verdict=BETTER,
    side="client",
    why="a stock proxy waits for each reply before it sends the next call",
    clients="proxy",
)
def pipelined(world: World) -> None:
    import asyncio

    client = world.client(Calculator())

    async def many() -> list[Any]:
        return await asyncio.gather(*(client.proxy.echo(number) for number in range(500)))

    assert client._run(many()) == list(range(500))

"""Registered classes: when an object of them is made."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from Pyro5.api import behavior, expose

from tests.compat.table import row
from tests.compat.world import World


def _made(mode: str | None, creator: Any = None) -> Any:
    numbers = itertools.count(1)

    class Counter:
        def __init__(self) -> None:
            self._number = next(numbers)
            self._calls = 0

        @expose
        def count(self) -> list[int]:
            self._calls += 1
            return [self._number, self._calls]

    return behavior(instance_mode=mode, instance_creator=creator)(Counter) if mode else Counter


def _counts(world: World, counter: Any) -> list[list[int]]:
    uri = world.serve(counter)
    one, two = world.connect(uri), world.connect(uri)
    return [client.call("count") for client in (one, one, two, two)]


@row("instances", "single: one object for everyone")
def single(world: World) -> None:
    assert _counts(world, _made("single")) == [[1, 1], [1, 2], [1, 3], [1, 4]]


@row("instances", "session: one object per connection")
def session(world: World) -> None:
    assert _counts(world, _made("session")) == [[1, 1], [1, 2], [2, 1], [2, 2]]


@row("instances", "percall: one object per call")
def percall(world: World) -> None:
    assert _counts(world, _made("percall")) == [[1, 1], [2, 1], [3, 1], [4, 1]]


@row("instances", "session is the default")
def default(world: World) -> None:
    assert _counts(world, _made(None)) == [[1, 1], [1, 2], [2, 1], [2, 2]]


@row("instances", "instance_creator makes the object")
def creator(world: World) -> None:
    def create(cls: Any) -> Any:
        made = cls()
        made._calls = 100
        return made

    assert _counts(world, _made("single", create))[0] == [1, 101]


@row("instances", "a creator that fails, or makes something else, is an error of the call")
def failing_creator(world: World) -> None:
    def fail(cls: Any) -> Any:
        raise RuntimeError("cannot be made")

    client = world.connect(world.serve(_made("percall", fail)))
    with pytest.raises(RuntimeError, match="cannot be made"):
        client.call("count")
    client = world.connect(world.serve(_made("percall", lambda cls: object())))
    with pytest.raises(TypeError, match="different type"):
        client.call("count")

"""Members: what of an object can be reached, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from Pyro5.api import expose

from tests.compat.table import BETTER, row
from tests.compat.world import World


class Shelf:
    """Exposes some of its members."""

    plain_attribute = "not a property"

    def __init__(self) -> None:
        self._books = ["Emma", "Faust"]
        self._label = "novels"
        self.getter_ran = False

    @expose
    @property
    def label(self) -> str:
        return self._label

    @label.setter
    def label(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError("a label is a string")
        self._label = value

    @expose
    @property
    def count(self) -> int:
        return len(self._books)

    @property
    def hidden(self) -> str:
        self.getter_ran = True
        return "secret"

    @expose
    def titles(self) -> list[str]:
        return self._books

    def unexposed(self) -> str:
        return "secret"

    def _private(self) -> str:
        return "secret"

    @staticmethod
    @expose
    def static(value: int) -> int:
        return value + 1

    @expose
    def __len__(self) -> int:
        return len(self._books)

    @expose
    def __getitem__(self, index: int) -> str:
        return self._books[index]

    @expose
    def __setitem__(self, index: int, value: str) -> None:
        self._books[index] = value

    @expose
    def __delitem__(self, index: int) -> None:
        del self._books[index]

    @expose
    def __iter__(self) -> Iterator[str]:
        return iter(self._books)


@expose
class Base:
    """Exposed as a whole."""

    def inherited(self) -> str:
        return "from the base"


class Derived(Base):
    """Not exposed itself."""

    def own(self) -> str:
        return "own"


class Indexed:
    """Can be iterated by index only."""

    @expose
    def __getitem__(self, index: int) -> str:
        return "abc"[index]


@row("members", "properties are read and set")
def properties(world: World) -> None:
    shelf = Shelf()
    client = world.client(shelf)
    assert client.get("label") == "novels"
    client.set("label", "poems")
    assert client.get("label") == "poems"
    assert shelf.label == "poems"
    with pytest.raises(TypeError, match="a label is a string"):
        client.set("label", 3)


@row("members", "a property without a setter cannot be set")
def read_only(world: World) -> None:
    client = world.client(Shelf())
    with pytest.raises(AttributeError):
        client.set("count", 3)
    assert client.get("count") == 2


@row("members", "what is not exposed is refused: methods, properties, plain attributes")
def unexposed(world: World) -> None:
    client = world.client(Shelf())
    for name in ("unexposed", "hidden", "plain_attribute", "missing"):
        with pytest.raises(AttributeError):
            client.raw(name)
        with pytest.raises(AttributeError):
            client.raw("__getattr__", name)
        with pytest.raises(AttributeError):
            client.raw("__setattr__", name, 1)


@row("members", "private and special names are refused")
def private(world: World) -> None:
    client = world.client(Shelf())
    for name in ("_private", "_books", "__init__", "__class__", "__dict__", "__reduce__"):
        with pytest.raises(AttributeError):
            client.raw(name)
        with pytest.raises(AttributeError):
            client.raw("__getattr__", name)


@row("members", "dotted names are refused")
def dotted(world: World) -> None:
    client = world.client(Shelf())
    for name in ("titles.append", "titles.__class__", "label.upper"):
        with pytest.raises(AttributeError):
            client.raw(name)


@row("members", "@expose on a class: its own members and not those of derived classes")
def exposed_class(world: World) -> None:
    client = world.client(Derived())
    assert client.call("inherited") == "from the base"
    with pytest.raises(AttributeError):
        client.raw("own")


@row("members", "static methods")
def static_method(world: World) -> None:
    assert world.client(Shelf()).call("static", 1) == 2


@row("members", "exposed special methods: len(), indexing", clients="stock sync")
def special_methods(world: World) -> None:
    shelf = Shelf()
    client = world.client(shelf)
    proxy: Any = client.proxy
    assert len(proxy) == 2
    assert proxy[1] == "Faust"
    proxy[1] = "Ulysses"
    del proxy[0]
    assert shelf.titles() == ["Ulysses"]
    assert bool(proxy)
    with pytest.raises(IndexError):
        proxy[5]


@row("members", "exposed special methods, called by name")
def special_by_name(world: World) -> None:
    client = world.client(Shelf())
    assert client.raw("__len__") == 2
    assert client.raw("__getitem__", 0) == "Emma"


@row("members", "iterating over an object that exposes __iter__")
def iterating(world: World) -> None:
    assert world.client(Shelf()).iterate() == ["Emma", "Faust"]


@row("members", "iterating by index over one that does not", clients="stock sync")
def iterating_by_index(world: World) -> None:
    client = world.client(Indexed())
    assert [letter for letter in client.proxy] == ["a", "b", "c"]  # noqa: C416  (list() asks len())


@row(
    "members",
    "names that the object does not offer are refused at the client",
    clients="stock sync",
)
def checked_at_the_client(world: World) -> None:
    client = world.client(Shelf())
    with pytest.raises(AttributeError, match="has no exposed attribute or method"):
        client.call("missing")
    with pytest.raises(AttributeError, match="has no exposed attribute"):
        client.set("missing", 1)
    assert {"titles", "label", "static"} <= set(dir(client.proxy))


def _getter_runs(world: World) -> None:
    shelf = Shelf()
    with pytest.raises(AttributeError):
        world.client(shelf).raw("hidden")
    assert shelf.getter_ran


@row(
    "members",
    "the getter of a property that is not exposed never runs",
    verdict=BETTER,
    why="stock runs it, and only then finds that its value is not exposed",
    stock=_getter_runs,
)
def getter_does_not_run(world: World) -> None:
    shelf = Shelf()
    with pytest.raises(AttributeError):
        world.client(shelf).raw("hidden")
    assert not shelf.getter_ran

"""Which values arrive as what, in each serializer."""

from __future__ import annotations

import array
import datetime
import decimal
import math
import uuid
from typing import Any

import Pyro5.errors
import pytest
import serpent
from Pyro5.api import (
    expose,
    register_class_to_dict,
    register_dict_to_class,
    unregister_class_to_dict,
    unregister_dict_to_class,
)

from rmi_runtime import errors
from tests.compat.table import BETTER, DIFFERENT, row
from tests.compat.world import World

UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
TIME = datetime.datetime(2021, 10, 31, 13, 18, 18, 13317)

SAME_IN_ALL: dict[str, Any] = {
    "None": None,
    "booleans": [True, False],
    "integers": [0, -1, 2**31, -(2**63), 2**63 - 1],
    "floats": [0.0, -1.5, 1e300, 1e-300],
    "strings": ["", "ascii", "zażółć 😀", "quotes ' \" \\ \n \x00"],
    "nested": {"list": [1, [2, [3]]], "dict": {"key": {"deeper": None}}},
    "empty": [[], {}],
}


class Point:
    """A class of the user's own."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


@expose
class Echo:
    """Gives back what it gets, and tells what it was."""

    def echo(self, value: Any) -> Any:
        return value

    def type_of(self, value: Any) -> str:
        return type(value).__name__

    def point(self) -> Point:
        return Point(1, 2)


def _values(world: World, serializer: str, expected: list[tuple[Any, Any]]) -> None:
    client = world.client(Echo(), serializer=serializer)
    for value, arrives in [*((v, v) for v in SAME_IN_ALL.values()), *expected]:
        found = client.call("echo", value)
        assert found == arrives, f"{value!r} came back as {found!r}"
        assert type(found) is type(arrives), f"{value!r} came back as a {type(found)}"


@row("data", "serpent: tuples, sets, complex, any integer, infinity; the rest as text")
def in_serpent(world: World) -> None:
    expected = [
        ((1, (2, 3)), (1, (2, 3))),
        ({1, 2, 3}, {1, 2, 3}),
        ({1: "a", (2, 3): "b"}, {1: "a", (2, 3): "b"}),
        (3 + 4j, 3 + 4j),
        (10**100, 10**100),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        (TIME, "2021-10-31T13:18:18.013317"),
        (TIME.date(), "2021-10-31"),
        (decimal.Decimal("1.10"), "1.10"),
        (UUID, str(UUID)),
        (array.array("i", [1, 2]), [1, 2]),
    ]
    _values(world, "serpent", expected)
    client = world.client(Echo(), serializer="serpent")
    assert math.isnan(client.call("echo", math.nan))
    assert serpent.tobytes(client.call("echo", b"\x00\xff")) == b"\x00\xff"


@row("data", "serpent: bytes as they are, if configured so")
def serpent_bytes(world: World) -> None:
    world.configure(SERPENT_BYTES_REPR=True)
    assert world.client(Echo(), serializer="serpent").call("echo", b"\x00\xff'\"") == b"\x00\xff'\""


@row("data", "json: tuples and sets become lists, other things text")
def in_json(world: World) -> None:
    expected = [
        ((1, (2, 3)), [1, [2, 3]]),
        ({1}, [1]),
        ({1: "a"}, {"1": "a"}),
        (10**100, 10**100),
        (TIME, "2021-10-31T13:18:18.013317"),
        (TIME.date(), "2021-10-31"),
        (decimal.Decimal("1.10"), "1.10"),
        (UUID, str(UUID)),
        (array.array("i", [1, 2]), [1, 2]),
    ]
    _values(world, "json", expected)


@row("data", "msgpack: bytes, complex, any integer, dates; tuples and sets become lists")
def in_msgpack(world: World) -> None:
    expected = [
        ((1, (2, 3)), [1, [2, 3]]),
        ({1}, [1]),
        (b"\x00\xff", b"\x00\xff"),
        (3 + 4j, 3 + 4j),
        (10**100, 10**100),
        (math.inf, math.inf),
        (TIME, TIME),
        (TIME.date(), TIME.date()),
        (decimal.Decimal("1.10"), "1.10"),
        (UUID, str(UUID)),
        (array.array("i", [1, 2]), [1, 2]),
    ]
    _values(world, "msgpack", expected)


def _refused_keys(world: World) -> None:
    with pytest.raises((ValueError, Pyro5.errors.PyroError, errors.RmiError)):
        world.client(Echo(), serializer="msgpack").call("echo", {1: "a"})


@row(
    "data",
    "msgpack: dictionaries with keys that are no strings",
    verdict=BETTER,
    why="stock refuses to read them",
    stock=_refused_keys,
    clients="proxy sync",
)
def msgpack_keys(world: World) -> None:
    assert world.client(Echo(), serializer="msgpack").call("echo", {1: "a"}) == {1: "a"}


@row("data", "classes with converters registered at both sides")
def registered(world: World) -> None:
    def to_dict(point: Point) -> dict[str, Any]:
        return {"__class__": "tests.Point", "at": [point.x, point.y]}

    def from_dict(name: str, data: dict[str, Any]) -> Point:
        return Point(*data["at"])

    register_class_to_dict(Point, to_dict)
    register_dict_to_class("tests.Point", from_dict)
    world.defer(unregister_class_to_dict, Point)
    world.defer(unregister_dict_to_class, "tests.Point")
    for serializer in ("serpent", "json", "msgpack"):
        client = world.client(Echo(), serializer=serializer)
        assert client.call("type_of", Point(3, 4)) == "Point"
        found = client.call("point")
        assert (found.x, found.y) == (1, 2)


@row("data", "classes without: refused by whoever gets them")
def unregistered(world: World) -> None:
    client = world.client(Echo())
    with pytest.raises(Pyro5.errors.SerializeError, match="unsupported serialized class"):
        client.call("type_of", Point(1, 2))


def _raises_serialize_error(world: World) -> None:
    with pytest.raises(Pyro5.errors.SerializeError, match="unsupported serialized class"):
        world.client(Echo()).call("point")


@row(
    "data",
    "a result that the client cannot read",
    verdict=DIFFERENT,
    side="client",
    why="BadReply says what matters: the call may well have happened",
    stock=_raises_serialize_error,
)
def unreadable_result(world: World) -> None:
    with pytest.raises(errors.Indefinite, match="unsupported serialized class"):
        world.client(Echo()).call("point")


def _marshal_works(world: World) -> None:
    assert world.client(Echo(), serializer="marshal").call("echo", (1, b"2")) == (1, b"2")


@row(
    "data",
    "marshal",
    verdict=DIFFERENT,
    why="refused: Python's marshal is not made for bytes from strangers, and can crash the reader",
    stock=_marshal_works,
    clients="stock",
)
def marshal_refused(world: World) -> None:
    with pytest.raises(Pyro5.errors.CommunicationError, match="serializer 2 is not accepted"):
        world.client(Echo(), serializer="marshal").call("echo", 1)


@row("data", "a value that the serializer does not know is refused at the client")
def unserializable(world: World) -> None:
    client = world.client(Echo(), serializer="json")
    with pytest.raises(Exception, match=r"serialize|keys must be"):
        client.call("echo", {(1, 2): 3})
    assert client.call("echo", 1) == 1

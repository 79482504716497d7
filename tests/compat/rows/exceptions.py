"""Exceptions: which arrive as what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import Pyro5.errors
import pytest
from Pyro5.api import (
    expose,
    register_class_to_dict,
    register_dict_to_class,
    unregister_class_to_dict,
    unregister_dict_to_class,
)

from rmi_runtime import errors
from rmi_runtime.wire.serializers import RemoteError
from tests.compat.table import BETTER, DIFFERENT, row
from tests.compat.world import World


class OwnError(Exception):
    """Known to the server only, unless it is registered."""


class RegisteredError(Exception):
    """Known to both sides."""


@expose
class Thrower:
    """Raises what it is told to."""

    def builtin(self) -> None:
        raise ValueError("wrong", 42)

    def pyro(self) -> None:
        raise Pyro5.errors.NamingError("no such name")

    def unreachable(self) -> None:
        raise Pyro5.errors.CommunicationError("cannot connect to the instrument")

    def with_attributes(self) -> None:
        error = LookupError("not here")
        error.place = {"shelf": 3}  # type: ignore[attr-defined]
        raise error

    def os_error(self) -> None:
        raise FileNotFoundError(2, "gone", "some/file")

    def unicode(self) -> None:
        b"\xff".decode("utf-8")

    def own(self) -> None:
        raise OwnError("only known here", 7)

    def registered(self) -> None:
        raise RegisteredError("known to both")

    def unserializable(self) -> None:
        raise ValueError(object())

    def exits(self) -> None:
        raise SystemExit(3)

    def leaves(self) -> None:
        raise GeneratorExit("left")

    def leaves_in_between(self) -> Iterator[int]:
        yield 1
        raise GeneratorExit("left")

    def stops(self) -> None:
        raise StopIteration("enough")

    def stops_async(self) -> None:
        raise StopAsyncIteration("enough")

    def ours(self) -> None:
        raise errors.Conflict("taken", name="x")

    def noted(self) -> None:
        error = ValueError("with a note")
        error.add_note("read this")
        raise error

    def fine(self) -> str:
        return "fine"


@row("exceptions", "builtin exceptions arrive as themselves, with their arguments")
def builtin(world: World) -> None:
    with pytest.raises(ValueError, match="wrong") as caught:
        world.client(Thrower()).call("builtin")
    assert caught.value.args == ("wrong", 42)
    assert type(caught.value) is ValueError


@row("exceptions", "the remote traceback comes along")
def traceback(world: World) -> None:
    with pytest.raises(ValueError, match="wrong") as caught:
        world.client(Thrower()).call("builtin")
    lines = caught.value._pyroTraceback  # type: ignore[attr-defined]
    assert any('raise ValueError("wrong", 42)' in line for line in lines)
    assert "Remote traceback" in "".join(Pyro5.errors.get_pyro_traceback(*caught._excinfo))


@row("exceptions", "Pyro5's exceptions arrive as themselves")
def pyro(world: World) -> None:
    with pytest.raises(Pyro5.errors.NamingError, match="no such name"):
        world.client(Thrower()).call("pyro")


@row("exceptions", "attributes of exceptions come along")
def attributes(world: World) -> None:
    with pytest.raises(LookupError) as caught:
        world.client(Thrower()).call("with_attributes")
    assert caught.value.place == {"shelf": 3}  # type: ignore[attr-defined]


@row("exceptions", "exceptions with several arguments (OSError, UnicodeDecodeError)")
def several_arguments(world: World) -> None:
    client = world.client(Thrower(), serializer="serpent")
    with pytest.raises(FileNotFoundError) as caught:
        client.call("os_error")
    assert caught.value.errno == 2
    msgpack = world.client(Thrower(), serializer="msgpack")
    with pytest.raises(UnicodeDecodeError):
        msgpack.call("unicode")


@row("exceptions", "notes of exceptions come along")
def notes(world: World) -> None:
    with pytest.raises(ValueError, match="with a note") as caught:
        world.client(Thrower()).call("noted")
    assert caught.value.__notes__ == ["read this"]


def _lost(world: World) -> None:
    with pytest.raises(Pyro5.errors.SerializeError, match="unsupported serialized class"):
        world.client(Thrower()).call("own")


@row(
    "exceptions",
    "a class that the client does not know",
    verdict=BETTER,
    side="client",
    why="stock raises SerializeError and loses the message; ours is a RemoteError with the name, "
    "the message and the remote traceback",
    stock=_lost,
)
def unknown_class(world: World) -> None:
    with pytest.raises(RemoteError, match="only known here, 7") as caught:
        world.client(Thrower()).call("own")
    assert caught.value.fields["exception"].endswith("exceptions.OwnError")
    assert any("raise OwnError" in line for line in caught.value.fields["traceback"])


@row("exceptions", "a class registered with register_dict_to_class")
def registered_class(world: World) -> None:
    name = "tests.RegisteredError"

    def to_dict(error: Any) -> dict[str, Any]:
        return {"__class__": name, "__exception__": True, "args": error.args, "attributes": {}}

    def from_dict(classname: str, data: dict[str, Any]) -> RegisteredError:
        return RegisteredError(*data["args"])

    register_class_to_dict(RegisteredError, to_dict)
    register_dict_to_class(name, from_dict)
    world.defer(unregister_class_to_dict, RegisteredError)
    world.defer(unregister_dict_to_class, name)
    for serializer in ("serpent", "json", "msgpack"):
        with pytest.raises(RegisteredError, match="known to both"):
            world.client(Thrower(), serializer=serializer).call("registered")


@row("exceptions", "one that cannot be serialized becomes a PyroError that describes it")
def unserializable(world: World) -> None:
    client = world.client(Thrower(), serializer="json")
    with pytest.raises(Pyro5.errors.PyroError, match="Error serializing exception") as raised:
        client.call("unserializable")
    remote_traceback = "".join(raised.value._pyroTraceback)
    assert "in unserializable" in remote_traceback
    assert client.call("fine") == "fine"


@row("exceptions", "StopIteration")
def stop_iteration(world: World) -> None:
    with pytest.raises(StopIteration, match="enough"):
        world.client(Thrower()).call("stops")


def _thread_dies(world: World) -> None:
    client = world.client(Thrower(), timeout_s=1.0)
    # The worker thread ends without a word, and one of the pool's threads is gone for good.
    with pytest.raises((Pyro5.errors.CommunicationError, errors.Indefinite)):
        client.call("exits")


@row(
    "exceptions",
    "SystemExit in a method",
    verdict=BETTER,
    why="it ends a thread of a stock daemon's pool for good; here the caller gets a PyroError, "
    "and everyone is served on",
    stock=_thread_dies,
)
def system_exit(world: World) -> None:
    client = world.client(Thrower())
    with pytest.raises(Pyro5.errors.PyroError, match="SystemExit"):
        client.call("exits")
    assert client.call("fine") == "fine"


def _not_told(world: World) -> None:
    with pytest.raises((Pyro5.errors.ConnectionClosedError, errors.ConnectionLost)):
        world.client(Thrower()).call("unreachable")


@row(
    "exceptions",
    "a CommunicationError in a method, such as that of a proxy that it uses",
    verdict=BETTER,
    why="a stock daemon closes the connection without a word",
    stock=_not_told,
)
def communication_error(world: World) -> None:
    client = world.client(Thrower())
    with pytest.raises(Pyro5.errors.CommunicationError, match="cannot connect to the instrument"):
        client.call("unreachable")
    assert client.call("fine") == "fine"


def _hung_up_on(world: World) -> None:
    for method in ("leaves", "leaves_in_between"):
        client = world.client(Thrower(), timeout_s=5.0)
        with pytest.raises((Pyro5.errors.CommunicationError, errors.Indefinite)):
            list(client.call(method) or ())


@row(
    "exceptions",
    "GeneratorExit in a method or in the items that it yields",
    verdict=BETTER,
    why="a stock daemon closes the connection without a word; here an error arrives that says so",
    stock=_hung_up_on,
)
def generator_exit(world: World) -> None:
    for method in ("leaves", "leaves_in_between"):
        client = world.client(Thrower(), timeout_s=5.0)
        with pytest.raises(Pyro5.errors.PyroError, match="GeneratorExit: left"):
            list(client.call(method) or ())
        assert client.call("fine") == "fine"


@row("exceptions", "StopAsyncIteration of a method arrives as itself")
def stop_async_iteration(world: World) -> None:
    with pytest.raises(StopAsyncIteration, match="enough"):
        world.client(Thrower()).call("stops_async")


@row(
    "exceptions",
    "errors of our tree: a readable builtin for stock clients, the class itself for ours",
    verdict=DIFFERENT,
    why="they carry whether the operation certainly had no effect",
    servers="daemon dropin",
)
def our_errors(world: World) -> None:
    client = world.client(Thrower())
    expected = ValueError if world.direction.client == "stock" else errors.Conflict
    with pytest.raises(expected, match="taken") as caught:
        client.call("ours")
    found: Any = caught.value
    assert type(found) is expected
    assert (found.code, found.definite, found.fields) == ("conflict", True, {"name": "x"})

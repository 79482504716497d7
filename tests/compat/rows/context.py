"""What goes along with a call: annotations, correlation ids, who calls."""

from __future__ import annotations

import threading
import uuid
from typing import Any

from Pyro5.api import current_context, expose

from rmi_runtime import current_call
from tests.compat.table import DIFFERENT, row
from tests.compat.world import World

ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


class Resource:
    """Wants to be closed when its client leaves."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


@expose
class Witness:
    """Tells what it knows of a call."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []

    def annotations(self) -> dict[str, str]:
        found = current_context.annotations
        return {name: bytes(value).decode() for name, value in found.items()}

    def answer(self) -> None:
        current_context.response_annotations = {"ANSW": b"back"}

    def fail(self) -> None:
        current_context.response_annotations = {"ANSW": b"with the error"}
        raise ValueError("failed")

    def correlation(self) -> str:
        return str(current_context.correlation_id)

    def caller(self) -> list[Any]:
        address = current_context.client_sock_addr
        same = current_context.client.sock.getpeername()
        return [address[0], list(address) == list(same), current_context.serializer_id]

    def seq(self) -> int:
        return current_context.seq

    def track(self) -> None:
        resource = Resource()
        self.resources.append(resource)
        current_context.track_resource(resource)

    def untrack(self) -> None:
        current_context.untrack_resource(self.resources[-1])

    async def awaited(self) -> dict[str, str]:
        call = current_call()
        call.response_annotations["ANSW"] = b"awaited"
        return {name: bytes(value).decode() for name, value in call.annotations.items()}


@row("context", "annotations of a call reach the method")
def annotations(world: World) -> None:
    client = world.client(Witness())
    client.say({"NOTE": b"one", "OTHR": b"two"})
    assert client.call("annotations").items() >= {"NOTE": "one", "OTHR": "two"}.items()
    client.say({})
    assert "NOTE" not in client.call("annotations")


@row("context", "annotations of a reply reach the client", clients="stock proxy")
def response_annotations(world: World) -> None:
    client = world.client(Witness())
    client.call("answer")
    assert client.heard == {"ANSW": b"back"}
    client.call("correlation")
    assert client.heard == {}


@row("context", "annotations that the daemon sends with every reply", clients="stock proxy")
def daemon_annotations(world: World) -> None:
    world.start_server(annotations={"ALWA": b"ys"})
    client = world.client(Witness())
    client.call("answer")
    assert client.heard == {"ALWA": b"ys", "ANSW": b"back"}


@row("context", "the correlation id of a call reaches the method")
def correlation(world: World) -> None:
    client = world.client(Witness())
    client.say({}, ID)
    assert client.call("correlation") == str(ID)


def _each_its_own(world: World) -> None:
    client = world.client(Witness())
    assert client.call("correlation") != client.call("correlation")


@row(
    "context",
    "a call without a correlation id is given one",
    verdict=DIFFERENT,
    why="one per connection, not one per call: making one costs as much as a small call",
    stock=_each_its_own,
)
def given_correlation(world: World) -> None:
    uri = world.serve(Witness())
    one, two = world.connect(uri), world.connect(uri)
    found = one.call("correlation")
    assert uuid.UUID(found)
    assert one.call("correlation") == found
    assert two.call("correlation") != found


@row("context", "who calls: address, socket, serializer")
def caller(world: World) -> None:
    client = world.client(Witness(), serializer="json")
    assert client.call("caller") == ["127.0.0.1", True, 3]


@row("context", "the sequence number rises with each call")
def sequence(world: World) -> None:
    client = world.client(Witness())
    assert client.call("seq") + 1 == client.call("seq")


@row("context", "tracked resources are closed when the client leaves")
def tracked(world: World) -> None:
    witness = Witness()
    client = world.client(witness)
    client.call("track")
    client.call("track")
    client.call("untrack")
    assert not witness.resources[0].closed.is_set()
    client.close()
    assert witness.resources[0].closed.wait(10)
    assert not witness.resources[1].closed.is_set()


@row(
    "context",
    "in async methods: current_call()",
    verdict=DIFFERENT,
    why="current_context belongs to a thread, and many calls share the loop's: "
    "after an await it may show another call",
    clients="stock proxy",
    servers="daemon dropin",
)
def in_async_methods(world: World) -> None:
    client = world.client(Witness())
    client.say({"NOTE": b"one"})
    assert client.call("awaited") == {"NOTE": "one"}
    assert client.heard == {"ANSW": b"awaited"}

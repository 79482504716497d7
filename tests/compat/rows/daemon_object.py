"""The daemon's own object."""

from __future__ import annotations

import Pyro5.errors
import pytest
from Pyro5.api import expose, oneway
from Pyro5.core import DAEMON_NAME

from rmi_runtime import errors
from tests.compat.table import DIFFERENT, row
from tests.compat.world import World


class Thing:
    """Has one of each kind of member."""

    @expose
    def method(self) -> None:
        pass

    @expose
    @oneway
    def signal(self) -> None:
        pass

    @expose
    @property
    def attribute(self) -> int:
        return 1


@row("daemon object", "ping and info")
def ping(world: World) -> None:
    client = world.client(Thing())
    assert client.daemon("ping") is None
    assert client.daemon("info").startswith(DAEMON_NAME)


@row("daemon object", "get_metadata tells methods, attributes and oneway methods")
def metadata(world: World) -> None:
    for serializer in ("serpent", "json", "msgpack"):
        thing = Thing()
        client = world.client(thing, serializer=serializer)
        found = client.daemon("get_metadata", thing._pyroId)  # type: ignore[attr-defined]
        assert {kind: set(names) for kind, names in found.items()} == {
            "methods": {"method", "signal"},
            "oneway": {"signal"},
            "attrs": {"attribute"},
        }


@row("daemon object", "get_metadata of an unknown object is an error")
def unknown_metadata(world: World) -> None:
    with pytest.raises(Pyro5.errors.DaemonError, match="unknown object"):
        world.client(Thing()).daemon("get_metadata", "no.such.thing")


@row("daemon object", "a proxy of the daemon object itself")
def own_proxy(world: World) -> None:
    client = world.connect(f"PYRO:{DAEMON_NAME}@{world.server.location}")
    assert client.call("ping") is None


def _lists(world: World) -> None:
    thing = Thing()
    client = world.client(thing)
    assert {DAEMON_NAME, thing._pyroId} <= set(client.daemon("registered"))  # type: ignore[attr-defined]


@row(
    "daemon object",
    "registered(): the list of objects",
    verdict=DIFFERENT,
    why="not for strangers: an id that nobody tells is not found by asking",
    stock=_lists,
)
def registered(world: World) -> None:
    client = world.client(Thing())
    expected = PermissionError if world.direction.client == "stock" else errors.Unauthenticated
    with pytest.raises(expected, match="needs a caller known as"):
        client.daemon("registered")


@row("daemon object", "an unknown object is refused at the handshake")
def unknown_object(world: World) -> None:
    client = world.connect(f"PYRO:no.such.thing@{world.server.location}")
    with pytest.raises((Pyro5.errors.CommunicationError, errors.NotFound), match="unknown object"):
        client.call("method")

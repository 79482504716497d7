"""Names: PYRONAME and PYROMETA, looked up in Pyro5's name server."""

from __future__ import annotations

import threading
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest
from Pyro5.api import expose

from rmi_runtime import errors
from tests.compat.table import row
from tests.compat.world import World


@expose
class Named:
    """Something with a name."""

    def ping(self) -> str:
        return "pong"


def _name_server(world: World) -> tuple[str, Any]:
    uri, daemon, _ = Pyro5.api.start_ns(host="127.0.0.1", port=0, enableBroadcast=False)
    thread = threading.Thread(target=daemon.requestLoop, daemon=True)
    thread.start()
    world.defer(thread.join, 10)
    world.defer(daemon.shutdown)
    proxy = Pyro5.api.Proxy(uri)
    world.defer(proxy._pyroRelease)
    return uri.location, proxy


@row("names", "PYRONAME through Pyro5's name server")
def by_name(world: World) -> None:
    location, names = _name_server(world)
    names.register("some.thing", world.serve(Named()))
    assert world.connect(f"PYRONAME:some.thing@{location}").call("ping") == "pong"


@row("names", "PYRONAME at the configured name server")
def configured(world: World) -> None:
    location, names = _name_server(world)
    names.register("some.thing", world.serve(Named()))
    host, port = location.rsplit(":", 1)
    world.configure(NS_HOST=host, NS_PORT=int(port))
    assert world.connect("PYRONAME:some.thing").call("ping") == "pong"


@row("names", "PYROMETA picks one of those with all the tags")
def by_tags(world: World) -> None:
    location, names = _name_server(world)
    names.register("one", world.serve(Named()), metadata={"fast", "blue"})
    names.register("two", "PYRO:nobody@127.0.0.1:1", metadata={"fast"})
    assert world.connect(f"PYROMETA:fast,blue@{location}").call("ping") == "pong"


@row("names", "an unknown name is an error that says so")
def unknown(world: World) -> None:
    location, _ = _name_server(world)
    for uri in (f"PYRONAME:no.thing@{location}", f"PYROMETA:no,tag@{location}"):
        with pytest.raises((Pyro5.errors.NamingError, errors.NotFound)):
            world.connect(uri).call("ping")

"""Handshakes, timeouts, lost connections."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest
from Pyro5.api import expose

from rmi_runtime import errors
from tests.compat.servers import Server, ThreadedServer, make_server
from tests.compat.table import BETTER, row
from tests.compat.world import World
from tests.support import sync_eventually


@expose
class Slow:
    """Answers when it is allowed to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0

    def wait(self) -> str:
        self.begun += 1
        self.go.wait(20)
        return "waited"

    def quick(self) -> str:
        return "quick"


class SlowCoroutine(Slow):
    """The same, without holding up the loop."""

    @expose
    async def wait(self) -> str:  # type: ignore[override]
        self.begun += 1
        await asyncio.to_thread(self.go.wait, 20)
        return "waited"


@row("lifetime", "handshake data reaches the server, its greeting the client")
def handshake(world: World) -> None:
    world.start_server(greet=lambda data: {"you said": data})
    client = world.client(Slow(), handshake={"token": "t", "n": [1, 2]})
    assert client.greeting() == {"you said": {"token": "t", "n": [1, 2]}}


@row("lifetime", "a refused handshake tells the reason")
def refused(world: World) -> None:
    def greet(data: Any) -> None:
        raise ValueError("I do not know you")

    world.start_server(greet=greet)
    with pytest.raises(
        (Pyro5.errors.CommunicationError, errors.Forbidden), match="I do not know you"
    ):
        world.client(Slow()).call("quick")


@row("lifetime", "nobody listens there")
def nobody(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen: nobody else can on this port
        port = taken.getsockname()[1]
        with pytest.raises((Pyro5.errors.CommunicationError, errors.Unavailable)):
            world.connect(f"PYRO:thing@127.0.0.1:{port}").call("quick")


@row("lifetime", "a call that takes longer than the client's timeout")
def timed_out(world: World) -> None:
    # A method that takes its time is a coroutine where plain ones run on the loop.
    slow = SlowCoroutine() if world.direction.server == "daemon" else Slow()
    world.defer(slow.go.set)
    client = world.client(slow, timeout_s=0.2)
    with pytest.raises((Pyro5.errors.TimeoutError, errors.CallTimeout)):
        client.call("wait")
    slow.go.set()
    assert client.call("quick") == "quick"
    assert slow.begun == 1


@row("lifetime", "after that the next call does not wait for the one that hangs")
def next_call(world: World) -> None:
    slow = SlowCoroutine() if world.direction.server == "daemon" else Slow()
    world.defer(slow.go.set)
    client = world.client(slow, timeout_s=0.5)
    with pytest.raises((Pyro5.errors.TimeoutError, errors.CallTimeout)):
        client.call("wait")
    assert client.call("quick") == "quick"
    assert slow.begun == 1


def _server_restarts(world: World) -> Any:
    """Return a client whose server has gone and come back since its last call."""
    server = world.start_server()
    slow = Slow()
    uri = server.register(slow, "slow")
    client = world.connect(uri)
    assert client.call("quick") == "quick"
    port = int(server.location.rsplit(":", 1)[1])
    server.stop()
    world.start_server(port=port).register(slow, "slow", force=True)
    return client


def _reconnected_by_hand(world: World) -> None:
    client = _server_restarts(world)
    with pytest.raises(Pyro5.errors.ConnectionClosedError):
        client.call("quick")
    client.proxy._pyroReconnect(3)
    assert client.call("quick") == "quick"


@row(
    "lifetime",
    "the server restarts: the next call connects anew",
    verdict=BETTER,
    side="client",
    why="a stock proxy fails once, and is reconnected by hand",
    stock=_reconnected_by_hand,
)
def restarted(world: World) -> None:
    client = _server_restarts(world)
    assert client.call("quick") == "quick"


def _idle_too_long(world: World) -> Any:
    world.configure(COMMTIMEOUT=0.2)
    world.start_server()
    client = world.client(Slow())
    assert client.call("quick") == "quick"
    # A server that stays patient gives no sign of it: one that does not tells when it is time.
    impatient = world.server if world.direction.server == "stock" else _stock_server(world)
    assert isinstance(impatient, ThreadedServer)
    sync_eventually(lambda: impatient.clients() == 0)
    return client


def _stock_server(world: World) -> Server:
    """Start a stock server with a client."""
    server = make_server("stock")
    world.defer(server.stop)
    proxy = Pyro5.api.Proxy(server.register(Slow(), "slow"))
    world.defer(proxy._pyroRelease)
    assert proxy.quick() == "quick"
    return server


def _not_enough_data(world: World) -> None:
    client = _idle_too_long(world)
    with pytest.raises(Pyro5.errors.ConnectionClosedError):
        client.call("quick")


@row(
    "lifetime",
    "idle for longer than the server's timeout: nobody notices",
    verdict=BETTER,
    side="client",
    why="a stock proxy only learns of it when the next call fails",
    stock=_not_enough_data,
    servers="stock",
)
def idle(world: World) -> None:
    client = _idle_too_long(world)
    assert client.call("quick") == "quick"


@row(
    "lifetime",
    "idle clients are not cut off by the daemon",
    verdict=BETTER,
    why="they cost a stock daemon a thread each; ours only a little memory",
    servers="daemon dropin",
)
def patient(world: World) -> None:
    client = _idle_too_long(world)
    assert client.call("quick") == "quick"


@row("lifetime", "a client that is closed connects anew when it is used again")
def closed_and_used(world: World) -> None:
    client = world.client(Slow())
    assert client.call("quick") == "quick"
    client.break_connection()
    assert client.call("quick") == "quick"

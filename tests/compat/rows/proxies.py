"""Objects that travel as proxies, and calls back to the client."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest
from Pyro5.api import callback, expose

from rmi_runtime import Proxy
from tests.compat.table import BETTER, DIFFERENT, row
from tests.compat.world import World


@expose
class Account:
    """Something to be handed out."""

    def __init__(self, owner: str) -> None:
        self._owner = owner

    @property
    def owner(self) -> str:
        return self._owner


@expose
class Bank:
    """Makes accounts, registers them where it is registered itself, and hands them out."""

    def open(self, owner: str) -> Account:
        account = Account(owner)
        self._pyroDaemon.register(account)  # type: ignore[attr-defined]
        return account

    def open_all(self, *owners: str) -> dict[str, Any]:
        return {"accounts": [self.open(owner) for owner in owners]}

    def stray(self) -> Account:
        return Account("nobody")

    def uri(self) -> Any:
        return Pyro5.api.URI("PYRO:thing@localhost:4711")

    def name_of(self, uri: Any) -> str:
        return f"{type(uri).__name__} {uri.object}"


class Caller:
    """Calls whatever proxy it is given."""

    def __init__(self) -> None:
        self.got: Any = None

    @expose
    async def call_async(self, proxy: Any, value: int) -> Any:
        self.got = proxy
        async with proxy:
            return await proxy.called(value)

    @expose
    def call(self, proxy: Any, value: int) -> Any:
        with proxy:
            return proxy.called(value)

    @expose
    def keep(self, proxy: Any) -> str:
        self.got = proxy
        return str(proxy)


class Callee:
    """Lives at the client."""

    def __init__(self) -> None:
        self.values: list[int] = []

    @expose
    @callback
    def called(self, value: int) -> int:
        self.values.append(value)
        if value < 0:
            raise ValueError("negative")
        return value + 1


def _call_of(world: World) -> str:
    return "call_async" if world.direction.server == "daemon" else "call"


@row("proxies", "a registered object in a result arrives as a proxy")
def auto_proxy(world: World) -> None:
    client = world.client(Bank())
    account = world.adopt(client.call("open", "Ada"))
    assert account.get("owner") == "Ada"


@row("proxies", "also inside lists and dictionaries, in every serializer")
def nested_auto_proxy(world: World) -> None:
    for serializer in ("serpent", "json", "msgpack"):
        client = world.client(Bank(), serializer=serializer)
        found = client.call("open_all", "Ada", "Bob")["accounts"]
        assert [world.adopt(proxy).get("owner") for proxy in found] == ["Ada", "Bob"]


@row("proxies", "an object that is not registered does not become one")
def stray_object(world: World) -> None:
    bank = Bank()
    client = world.client(bank)
    expected = "unsupported serialized class|rows.proxies.Account"
    with pytest.raises(Exception, match=expected):
        client.call("stray")


@row("proxies", "URIs travel")
def uris(world: World) -> None:
    for serializer in ("serpent", "json", "msgpack"):
        client = world.client(Bank(), serializer=serializer)
        assert client.call("uri") == Pyro5.api.URI("PYRO:thing@localhost:4711")
        uri = Pyro5.api.URI("PYRO:other@localhost:4711")
        assert client.call("name_of", uri) == "URI other"


@row("proxies", "callbacks: a proxy as an argument, called by the server")
def callbacks(world: World) -> None:
    callee = Callee()
    uri = world.host(callee)
    client = world.client(Caller())
    proxy = Pyro5.api.Proxy(uri) if world.direction.client == "stock" else Proxy(uri)
    assert client.call(_call_of(world), proxy, 4) == 5
    assert callee.values == [4]


@row("proxies", "an exception in a callback arrives at the server, and back at the client")
def failing_callback(world: World) -> None:
    uri = world.host(Callee())
    client = world.client(Caller())
    proxy = Pyro5.api.Proxy(uri) if world.direction.client == "stock" else Proxy(uri)
    with pytest.raises(ValueError, match="negative"):
        client.call(_call_of(world), proxy, -1)


@row(
    "proxies",
    "@callback: its exceptions are logged where it runs as well",
    clients="stock proxy",
    servers="stock",
    side="client",
)
def logged_callback(world: World) -> None:
    records: list[logging.LogRecord] = []
    noticed = threading.Event()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info or "negative" in record.getMessage():
                records.append(record)
                noticed.set()

    collector = Collector()
    for name in ("Pyro5", "rmi_runtime"):
        logger = logging.getLogger(name)
        world.defer(logger.setLevel, logger.level)
        world.defer(logger.removeHandler, collector)
        logger.setLevel(logging.WARNING)  # Pyro5 mutes itself
        logger.addHandler(collector)
    failing_callback(world)
    assert noticed.wait(10)


@row(
    "proxies",
    "a proxy as an argument: blocking for the drop-in, to be awaited for the daemon",
    verdict=DIFFERENT,
    why="a blocking proxy would stop the loop",
    servers="daemon dropin",
    clients="stock",
)
def kind_of_proxy(world: World) -> None:
    caller = Caller()
    world.client(caller).call("keep", Pyro5.api.Proxy("PYRO:x@localhost:1"))
    expected = Proxy if world.direction.server == "daemon" else Pyro5.api.Proxy
    assert type(caller.got) is expected


def _handshake_there(world: World, proxy: Any) -> object:
    """Send *proxy* as an argument; return the handshake data that it has where it arrives."""
    caller = Caller()
    world.client(caller).call("keep", proxy)
    sent = caller.got
    return sent._handshake if isinstance(sent, Proxy) else sent._pyroHandshake


def _token_travels(world: World) -> None:
    proxy = Pyro5.api.Proxy("PYRO:x@localhost:1")
    proxy._pyroHandshake = "secret"
    assert _handshake_there(world, proxy) == "secret"


@row(
    "proxies",
    "the handshake data of a proxy stays at home when the proxy travels",
    verdict=DIFFERENT,
    side="client",
    why="it may hold a token; stock sends it to whoever gets the proxy",
    stock=_token_travels,
    clients="stock proxy",
)
def token_stays(world: World) -> None:
    proxy = Proxy("PYRO:x@localhost:1", handshake="secret")
    assert _handshake_there(world, proxy) == "hello"


@row(
    "proxies",
    "a proxy from a server may do there what the one may that brought it",
    verdict=BETTER,
    side="client",
    why="stock proxies come without handshake data, so every one must be given it by hand",
    clients="proxy sync",
)
def adopted(world: World) -> None:
    def greet(data: Any) -> str:
        if data != "secret":
            raise ValueError("go away")
        return "welcome"

    world.start_server(greet=greet)
    client = world.client(Bank(), handshake="secret")
    assert world.adopt(client.call("open", "Ada")).get("owner") == "Ada"


@row("proxies", "a copy, deep or not, and a pickle: not connected, and good for the same object")
def copies(world: World) -> None:
    def greet(data: Any) -> str:
        if data != "secret":
            raise ValueError("go away")
        return "welcome"

    world.start_server(greet=greet)
    client = world.client(Account("Ada"), handshake="secret")
    assert client.get("owner") == "Ada"
    proxy = client.proxy
    for remade in (copy.copy(proxy), copy.deepcopy(proxy), pickle.loads(pickle.dumps(proxy))):
        assert remade is not proxy
        assert remade == proxy
        assert world.adopt(remade).get("owner") == "Ada"
    assert client.get("owner") == "Ada"


@row(
    "proxies",
    "a thread that is not the owner is refused; it may claim the proxy",
    clients="stock sync",
)
def ownership(world: World) -> None:
    client = world.client(Account("Ada"))
    assert client.get("owner") == "Ada"
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(Pyro5.errors.PyroError, match="not the owner"):
            pool.submit(client.get, "owner").result(10)
        claim = "_pyroClaimOwnership" if world.direction.client == "stock" else "_claim_ownership"
        pool.submit(getattr(client.proxy, claim)).result(10)
        assert pool.submit(client.get, "owner").result(10) == "Ada"
    getattr(client.proxy, claim)()


@row("proxies", "weak registration: an object that nobody holds is gone")
def weak(world: World) -> None:
    account = Account("Ada")
    uri = world.server.register(account, "weak", weak=True)
    assert world.connect(uri).get("owner") == "Ada"
    del account
    with pytest.raises(Exception, match=r"unknown object|deleted meanwhile"):
        world.connect(uri).get("owner")


@row("proxies", "unregistered: unknown object")
def unregistered(world: World) -> None:
    account = Account("Ada")
    uri = world.server.register(account, "passing")
    client = world.connect(uri)
    assert client.get("owner") == "Ada"
    world.server.unregister(account)
    with pytest.raises(Pyro5.errors.DaemonError, match="unknown object"):
        client.get("owner")


@row("proxies", "unregistered by its id: the object knows that still", clients="stock")
def unregistered_by_id(world: World) -> None:
    account: Any = Account("Ada")
    world.server.register(account, "known")
    world.server.unregister(account._pyroId)
    assert account._pyroId == "known"
    assert account._pyroDaemon is not None
    world.server.unregister(account)  # once more: no error
    assert world.server.register(account, "anew").startswith("PYRO:anew@")
    world.server.unregister(account)
    assert not hasattr(account, "_pyroId")


@row("proxies", "unregistered where it is not registered: no error", clients="stock")
def unregistered_elsewhere(world: World) -> None:
    account: Any = Account("Ada")
    uri = world.serve(account)
    name = account._pyroId
    elsewhere = world.start_server()
    elsewhere.unregister(account)
    assert account._pyroId == name
    assert world.connect(uri).get("owner") == "Ada"


@row("proxies", "an id is given once, unless forced", clients="stock")
def registered_twice(world: World) -> None:
    one, two = Account("one"), Account("two")
    world.server.register(one, "twice")
    with pytest.raises(Pyro5.errors.DaemonError, match="already"):
        world.server.register(two, "twice")
    with pytest.raises(Pyro5.errors.DaemonError, match="already"):
        world.server.register(one, "again")
    uri = world.server.register(two, "twice", force=True)
    assert world.connect(uri).get("owner") == "two"
    world.server.unregister("twice")

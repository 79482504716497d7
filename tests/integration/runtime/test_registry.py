"""Asking and telling name servers: ours and stock ones, up, down and back again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any

import Pyro5.api
import pytest
from Pyro5.core import NAMESERVER_NAME

from rmi_runtime import Daemon, errors, expose
from rmi_runtime.proxy import Proxy
from rmi_runtime.registry import Announcer, NameServers
from rmi_runtime.registry.nametable import DRAINING, Entry
from tests.integration.runtime.names import (
    SERVICE_HANDSHAKE,
    free_location,
    name_server,
    port_of,
    serving,
    stock_name_server,
)
from tests.support import eventually

A = "PYRO:a@127.0.0.1:1001"
B = "PYRO:b@127.0.0.1:1002"
LEASE_S = 0.3


def servers(*locations: str, timeout_s: float = 1.0) -> NameServers:
    return NameServers(locations, handshake=SERVICE_HANDSHAKE, timeout_s=timeout_s, rng=Random(1))


def announcer(known: NameServers, name: str = "x", uri: str = A, **more: Any) -> Announcer:
    return Announcer(known, name, uri, metadata=["red"], lease_s=LEASE_S, **more)


def listed(known: NameServers, expected: dict[str, Entry]) -> Callable[[], Any]:
    async def probe() -> bool:
        return await known.list("x") == expected

    return probe


@contextlib.asynccontextmanager
async def any_stock() -> AsyncIterator[str]:
    async with stock_name_server() as server:
        yield server.location


KINDS: dict[str, Callable[[], AbstractAsyncContextManager[str]]] = {
    "ours": name_server,
    "stock": any_stock,
}


@pytest.fixture(params=list(KINDS))
async def location(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A name server of either kind."""
    async with KINDS[request.param]() as location:
        yield location


async def test_an_announced_name_is_found_and_gone_after_leaving(location: str) -> None:
    async with servers(location) as known:
        async with announcer(known) as told:
            await asyncio.wait_for(told.announced.wait(), 10)
            assert await known.lookup("x") == A
            assert await known.list("x") == {"x": Entry(A, frozenset({"red"}))}
            assert "x" in await known.list()
            assert await known.list("y") == {}
        assert await known.list("x") == {}
        with pytest.raises(errors.NotFound):
            await known.lookup("x")


async def test_names_without_tags_are_listed_and_hide_no_others(location: str) -> None:
    def register() -> None:
        with Pyro5.api.Proxy(f"PYRO:Pyro.NameServer@{location}") as names:
            names._pyroHandshake = SERVICE_HANDSHAKE
            names.register("x.untagged", B)

    await asyncio.to_thread(register)
    async with servers(location) as known, announcer(known, "x.tagged") as told:
        await asyncio.wait_for(told.announced.wait(), 10)
        both = {"x.tagged": Entry(A, frozenset({"red"})), "x.untagged": Entry(B)}
        assert await known.list("x") == both
        assert (await known.list()).items() >= both.items()
        assert await known.find("x.untagged") == B
        await told.drain()
        assert (await known.list("x"))["x.tagged"].draining


async def test_draining_is_shown_to_everybody(location: str) -> None:
    async with servers(location) as known, announcer(known) as told:
        await asyncio.wait_for(told.announced.wait(), 10)
        await told.drain()
        entry = (await known.list("x"))["x"]
        assert entry.draining
        assert entry.metadata == {"red", DRAINING}


async def test_a_name_removed_behind_its_back_is_announced_again(location: str) -> None:
    async with servers(location) as known, announcer(known) as told:
        await asyncio.wait_for(told.announced.wait(), 10)
        await known.call_at(location, "remove", "x")
        await eventually(listed(known, {"x": Entry(A, frozenset({"red"}))}))


async def test_the_newest_service_has_the_name_and_the_older_ones_end_does_not_take_it(
    location: str,
) -> None:
    async with servers(location) as known:
        async with announcer(known) as old:
            await asyncio.wait_for(old.announced.wait(), 10)
            new = announcer(known, uri=B)
            await new.__aenter__()
            await asyncio.wait_for(new.announced.wait(), 10)
            with pytest.raises(AssertionError):  # the older one tries, several times, in vain
                await eventually(
                    listed(known, {"x": Entry(A, frozenset({"red"}))}), timeout_s=3 * LEASE_S
                )
        assert await known.lookup("x") == B
        await new.__aexit__(None, None, None)


async def test_uris_by_name_and_by_tag_are_resolved(location: str) -> None:
    async with servers(location) as known, serving("x") as (_, uri), announcer(known, uri=uri) as t:
        await asyncio.wait_for(t.announced.wait(), 10)
        nowhere = servers(free_location())
        for given in (uri, "PYRONAME:x", "PYROMETA:red"):
            assert await known.resolve(given) == uri
        for given in (f"PYRONAME:x@{location}", f"PYROMETA:red@{location}"):
            assert await nowhere.resolve(given) == uri
        for unknown in ("PYRONAME:y", "PYROMETA:red,blue"):
            with pytest.raises(errors.NotFound):
                await known.resolve(unknown)
        with pytest.raises(errors.InvalidRequest):
            await known.resolve("x")
        async with Proxy("PYRONAME:x", resolve=known.resolve) as proxy:
            assert await proxy.who() == "x"


async def test_of_several_with_a_tag_one_that_is_not_draining_is_chosen() -> None:
    async with name_server() as location, servers(location) as known:
        await known.call_at(location, "announce", "x.1", A, 30.0, ["red", DRAINING])
        await known.call_at(location, "announce", "x.2", B, 30.0, ["red"])
        assert {await known.resolve("PYROMETA:red") for _ in range(20)} == {B}
        await known.call_at(location, "leave", "x.2")
        await known.call_at(location, "announce", "y.1", A, 30.0, ["only", DRAINING])
        assert await known.resolve("PYROMETA:only") == A


async def test_announcing_begins_when_the_name_server_comes_up() -> None:
    location = free_location()
    async with servers(location) as known, announcer(known) as told:
        with pytest.raises(errors.Unavailable, match="no name server answers"):
            await known.lookup("x")
        assert not told.announced.is_set()
        async with name_server(port=port_of(location)):
            await asyncio.wait_for(told.announced.wait(), 10)
            assert await known.lookup("x") == A


@pytest.mark.parametrize("kind", ["ours", "stock"])
async def test_a_name_server_that_comes_back_empty_is_told_again(kind: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = stack.enter_async_context
        if kind == "ours":
            gone = contextlib.AsyncExitStack()
            location = await gone.enter_async_context(name_server())
        else:
            server = await first(stock_name_server())
            location = server.location
        known = await first(servers(location))
        told = await first(announcer(known))
        await asyncio.wait_for(told.announced.wait(), 10)
        if kind == "ours":
            await gone.aclose()
            await first(name_server(port=port_of(location)))
        else:
            await server.kill()
            await first(stock_name_server(port_of(location)))
        await eventually(listed(known, {"x": Entry(A, frozenset({"red"}))}))


async def test_a_stock_name_server_replaced_by_ours_gets_a_lease() -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(stock_name_server())
        known = await stack.enter_async_context(servers(server.location))
        told = announcer(known)
        await told.__aenter__()
        await asyncio.wait_for(told.announced.wait(), 10)
        await server.kill()
        await stack.enter_async_context(name_server(port=port_of(server.location)))
        await eventually(listed(known, {"x": Entry(A, frozenset({"red"}))}))
        for task in told._tasks:  # as if the service had been killed
            task.cancel()
        await eventually(listed(known, {}), timeout_s=5)


async def test_a_dead_service_is_dropped_within_five_seconds() -> None:
    async with name_server() as location, servers(location) as known:
        told = Announcer(known, "x", A, lease_s=2.0)
        await told.__aenter__()
        await asyncio.wait_for(told.announced.wait(), 10)
        for task in told._tasks:
            task.cancel()
        await eventually(listed(known, {}), timeout_s=5)


async def test_all_name_servers_are_told_and_any_is_asked() -> None:
    down = free_location()
    async with (
        name_server() as one,
        name_server() as two,
        servers(one, down, two) as known,
        announcer(known) as told,
    ):
        await asyncio.wait_for(told.announced.wait(), 10)
        for location in (one, two):
            async with servers(location) as alone:
                await eventually(listed(alone, {"x": Entry(A, frozenset({"red"}))}))
        for order in ((down, one), (down, two), (two, down)):
            async with servers(*order) as some:
                assert await some.lookup("x") == A
                assert "x" in await some.list()


async def test_calls_move_to_the_next_name_server_when_one_dies() -> None:
    async with name_server() as two:
        async with name_server() as one, servers(one, two) as known:
            for location in (one, two):
                await known.call_at(location, "register", "x", A)
            assert await known.lookup("x") == A
            assert known._last_good == one
        assert await known.lookup("x") == A
        assert known._last_good == two


async def test_a_name_that_only_one_name_server_knows_is_found() -> None:
    async with name_server() as one, name_server() as two, servers(one, two) as known:
        await known.call_at(two, "register", "x", A)
        assert await known.lookup("x") == A


async def test_a_silent_name_server_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts nobody
        host, port = silent.getsockname()
        async with (
            name_server() as location,
            servers(f"{host}:{port}", location, timeout_s=0.2) as known,
        ):
            await known.call_at(location, "register", "x", A)
            assert await known.lookup("x") == A


async def test_a_daemon_without_a_name_server_is_passed_over() -> None:
    async with (
        serving("other") as (_, uri),
        name_server() as location,
        servers(uri.partition("@")[2], location) as known,
    ):
        assert "Pyro.NameServer" in await known.list()


class Nonsense:
    """A name server that answers, but nothing that makes sense."""

    @expose
    def lookup(self, name: str) -> str:
        return f"{name} is over there"

    @expose
    def list(self, prefix: str | None, return_metadata: bool) -> str:
        return f"whatever starts with {prefix}"

    @expose
    def yplookup(self, meta_all: object, return_metadata: bool) -> dict[str, int]:
        return {"x": 1}


async def test_a_name_server_that_answers_nonsense_is_passed_over() -> None:
    daemon = Daemon()
    daemon.register(Nonsense(), NAMESERVER_NAME)
    async with (
        daemon,
        name_server() as location,
        servers(daemon.location, location) as known,
        servers(daemon.location) as alone,
    ):
        await known.call_at(location, "register", "x", A, False, ["red"])
        for _ in range(2):
            assert await known.lookup("x") == A
            known._last_good = known.locations[0]
            assert await known.find("x") == A
            known._last_good = known.locations[0]
            assert (await known.list("x"))["x"].uri == A
            known._last_good = known.locations[0]
            assert await known.resolve("PYROMETA:red") == A
            assert known._last_good == location
        tagged = alone.resolve("PYROMETA:red")
        for ask in (alone.lookup("x"), alone.find("x"), alone.list(), tagged):
            with pytest.raises(errors.Unavailable, match="no name server answers"):
                await ask


async def test_a_service_that_lost_its_name_at_a_stock_name_server_leaves_it_alone() -> None:
    async with stock_name_server() as server, servers(server.location) as known:
        async with announcer(known) as told:
            await asyncio.wait_for(told.announced.wait(), 10)
            await known.call_at(server.location, "register", "x", B)
            await told.drain()
            assert await known.lookup("x") == B
        assert await known.lookup("x") == B


async def test_without_the_cluster_key_nothing_is_announced() -> None:
    async with (
        name_server() as location,
        NameServers([location]) as strangers,
        announcer(strangers) as told,
        servers(location) as known,
    ):
        with pytest.raises(errors.Unauthenticated):
            await strangers.call_at(location, "announce", "x", A, 2.0)
        assert not told.announced.is_set()
        assert await known.list("x") == {}


def test_no_location_is_a_mistake() -> None:
    for wrong in ([], "127.0.0.1:9090"):
        with pytest.raises(errors.InvalidRequest):
            NameServers(wrong)

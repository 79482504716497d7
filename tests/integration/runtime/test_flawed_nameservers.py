"""Name servers that answer with errors of their own, or with nonsense, and then properly again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from Pyro5.errors import NamingError

from rmi_runtime import Daemon, Proxy, errors, expose
from rmi_runtime.balance import Endpoints
from rmi_runtime.registry import Announcer, NameServers
from rmi_runtime.registry.nametable import DRAINING
from tests.integration.runtime.names import SERVICE_HANDSHAKE, name_server, serving
from tests.support import eventually

A = "PYRO:a@127.0.0.1:1001"


@expose
class Flawed:
    """A name server with a disk that is full for a while, say."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.answer: Any = {}
        self.asked = 0
        self.told = 0
        self.left = 0

    def list(self, prefix: str | None = None, return_metadata: bool = False) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.answer

    def announce(self, name: str, uri: str, lease_s: float, tags: Any) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.told += 1

    def lookup(self, name: str) -> Any:
        if self.error is not None:
            raise self.error
        return self.answer

    def yplookup(
        self, meta_all: Any = None, meta_any: Any = None, return_metadata: bool = False
    ) -> Any:
        if self.error is not None:
            raise self.error
        return {"thing": self.answer}

    def leave(self, name: str, uri: str) -> None:
        self.left += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
async def flawed() -> AsyncIterator[tuple[Flawed, NameServers]]:
    server = Flawed()
    async with Daemon() as daemon:
        daemon.register(server, "Pyro.NameServer")
        async with NameServers([daemon.location]) as names:
            yield server, names


ERRORS = [OSError("disk full"), ValueError("?"), RuntimeError("?"), KeyError("?")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_endpoints_look_again_after_any_error(
    flawed: tuple[Flawed, NameServers], error: Exception
) -> None:
    server, names = flawed
    server.error = error
    async with Endpoints(names, "", refresh_s=0.01) as endpoints:
        await eventually(lambda: server.asked >= 2)
        server.error, server.answer = None, {"a": (A, [])}
        await eventually(lambda: [view.name for view in endpoints.view()] == ["a"])


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_the_next_name_server_is_asked_after_any_error(
    flawed: tuple[Flawed, NameServers], error: Exception
) -> None:
    server, alone = flawed
    server.error = error
    first = alone.locations[0]
    async with (
        name_server() as location,
        NameServers([first, location], handshake=SERVICE_HANDSHAKE) as names,
    ):
        await names.call_at(location, "register", "x", A, False, ["red"])
        for asked in (
            names.lookup("x"),
            names.find("x"),
            names.resolve("PYROMETA:red"),
        ):
            names._last_good = first
            assert await asked == A
        names._last_good = first
        assert (await names.list("x"))["x"].uri == A
    told = f"no name server answers at .*{first} raises {re.escape(repr(error))}"
    for vain in (alone.lookup("x"), alone.find("x"), alone.list(), alone.resolve("PYROMETA:red")):
        with pytest.raises(errors.Unavailable, match=told):
            await vain


@pytest.mark.parametrize("answer", [{"a": A}, {"a": 1}, {"a": (A, None)}, {"a": (A,)}, [1], None])
async def test_endpoints_look_again_after_nonsense(
    flawed: tuple[Flawed, NameServers], answer: Any
) -> None:
    server, names = flawed
    server.answer = answer
    async with Endpoints(names, "", refresh_s=0.01) as endpoints:
        await eventually(lambda: server.asked >= 2)
        server.answer = {"a": (A, [])}
        await eventually(lambda: [view.name for view in endpoints.view()] == ["a"])


@pytest.mark.parametrize("nowhere", ["no uri", "", "PYRO:a@127.0.0.1:99999"])
async def test_a_service_at_what_is_no_place_is_set_aside_for_the_others(
    flawed: tuple[Flawed, NameServers], nowhere: str
) -> None:
    server, names = flawed
    async with serving("x.2") as (_, uri), Endpoints(names, "x.", refresh_s=0.01) as endpoints:
        server.answer = {"x.1": (nowhere, []), "x.2": (uri, [])}
        await eventually(lambda: len(endpoints.view()) == 2)
        for _ in range(20):
            assert await endpoints.call("who", prefer="x.1") == "x.2"
        assert endpoints.view()[0].set_aside


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_a_name_is_announced_again_after_any_error(
    flawed: tuple[Flawed, NameServers], error: Exception
) -> None:
    server, names = flawed
    server.error = error
    async with Announcer(names, "a", A, lease_s=0.2) as announcer:
        await eventually(lambda: server.asked >= 2)
        assert not announcer.announced.is_set()
        server.error = None
        await eventually(lambda: server.told)
        server.error = error
    assert server.left == 1


async def test_the_next_one_is_asked_if_the_first_one_has_trouble_with_its_disk(
    flawed: tuple[Flawed, NameServers],
) -> None:
    server, names = flawed
    server.error = OSError("disk full")
    async with name_server() as sound, NameServers([*names.locations, sound]) as both:
        assert await both.list("nobody.") == {}
        assert server.asked == 1


@expose
class Slow:
    """A name server like stock's, without leases, that takes its time."""

    def __init__(self) -> None:
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.tags: set[str] = set()

    def lookup(self, name: str) -> str:
        if not self.tags:
            raise NamingError("unknown name")
        return A

    async def register(self, name: str, uri: str, safe: bool, metadata: Any) -> None:
        self.begun.set()
        await self.gate.wait()
        self.tags = set(metadata)

    def remove(self, name: str) -> None:
        """Do nothing."""


async def test_a_service_that_stops_as_it_is_registered_is_shown_as_draining() -> None:
    server = Slow()
    async with Daemon() as daemon:
        daemon.register(server, "Pyro.NameServer")
        async with (
            NameServers([daemon.location]) as names,
            Announcer(names, "x", A, metadata=["rmi"]) as announcer,
        ):
            await server.begun.wait()
            draining = asyncio.ensure_future(announcer.drain())
            await asyncio.sleep(0)
            server.gate.set()
            await draining
            assert server.tags == {"rmi", DRAINING}


@pytest.mark.parametrize("kind", ["PYRONAME", "PYROMETA"])
@pytest.mark.parametrize("answer", ["PYRONAME:other", "PYROMETA:other", "no uri", 5, None, []])
async def test_a_name_that_leads_to_no_place_is_not_found_and_says_where_it_leads(
    flawed: tuple[Flawed, NameServers], kind: str, answer: Any
) -> None:
    server, names = flawed
    server.answer = answer
    proxy = Proxy(f"{kind}:thing@{names.locations[0]}")
    with pytest.raises(errors.NotFound, match=f"{kind}:thing.* leads to .*expected a PYRO: URI"):
        await proxy.ping()

"""Our name server as stock clients see it, and who may change it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import Pyro5.api
import pytest
from Pyro5.core import URI
from Pyro5.errors import NamingError

from rmi_runtime import errors
from rmi_runtime.proxy import Proxy
from tests.integration.runtime.names import SERVICE_HANDSHAKE, name_server, port_of, serving
from tests.support import eventually

T = TypeVar("T")

A = "PYRO:a@127.0.0.1:1001"
B = "PYRO:b@127.0.0.1:1002"


@pytest.fixture
async def location() -> AsyncIterator[str]:
    async with name_server() as location:
        yield location


@pytest.fixture
async def admin(location: str) -> AsyncIterator[Proxy]:
    async with Proxy(f"PYRO:Pyro.NameServer@{location}", handshake=SERVICE_HANDSHAKE) as proxy:
        yield proxy


async def stock(location: str, use: Callable[[Any], T]) -> T:
    """Run *use* with a stock proxy of the name server, in a thread."""

    def run() -> T:
        with Pyro5.api.locate_ns("127.0.0.1", port_of(location)) as proxy:
            return use(proxy)

    return await asyncio.to_thread(run)


async def nsc(location: str, *command: str) -> str:
    """Run ``pyro5-nsc`` and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "Pyro5.nsc", "-n", "127.0.0.1", "-p", str(port_of(location))),
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_stock_clients_get_stock_answers(location: str, admin: Proxy) -> None:
    await admin.register("x.1", A, metadata=["red", "rmi"])
    await admin.register("x.2", B)

    def ask(ns: Any) -> None:
        ns.ping()
        assert ns.count() == 3
        assert ns.lookup("x.1") == URI(A)
        assert ns.lookup("x.1", return_metadata=True) == (URI(A), {"red", "rmi"})
        assert ns.list(prefix="x.") == {"x.1": A, "x.2": B}
        # serpent writes an empty set as (), also from a stock name server
        assert ns.list(prefix="x.2", return_metadata=True) == {"x.2": (B, ())}
        assert ns.list(regex=r".*\.1$") == {"x.1": A}
        assert ns.yplookup(meta_all={"red"}) == {"x.1": (A, {"red", "rmi"})}
        assert ns.yplookup(meta_any=["red", "blue"], return_metadata=False) == {"x.1": A}
        assert set(ns.list()) == {"Pyro.NameServer", "x.1", "x.2"}
        with pytest.raises(NamingError, match="unknown name: y"):
            ns.lookup("y")
        with pytest.raises(NamingError, match="invalid regex"):
            ns.list(regex="(")
        with pytest.raises(ValueError, match="one thing at a time"):
            ns.list("x", "y")
        with pytest.raises(ValueError, match="same time"):
            ns.yplookup(["x"], ["y"])
        with pytest.raises(TypeError):
            ns.yplookup("red")

    await stock(location, ask)


async def test_a_name_that_is_no_text_is_refused_as_such(admin: Proxy) -> None:
    methods = ((admin.lookup, ()), (admin.remove, ()), (admin.leave, ()))
    for method, others in (*methods, (admin.set_metadata, (["tag"],))):
        with pytest.raises(TypeError, match="name must be a str, not list"):
            await method(["x"], *others)
    assert await admin.remove("") == await admin.remove() == 0


async def test_stock_clients_cannot_change_anything(location: str, admin: Proxy) -> None:
    await admin.register("x", A)

    def attack(ns: Any) -> None:
        for change in (
            lambda: ns.register("x", B),
            lambda: ns.register("new", B),
            lambda: ns.remove(prefix="x"),
            lambda: ns.remove("x"),
            lambda: ns.set_metadata("x", ["evil"]),
            lambda: ns.announce("x", B, 2.0, []),
            lambda: ns.leave("x"),
        ):
            with pytest.raises(PermissionError) as caught:
                change()
            assert caught.value.code == "unauthenticated"  # type: ignore[attr-defined]

    await stock(location, attack)
    assert await admin.list(prefix="x", return_metadata=True) == {"x": [A, []]}
    assert await admin.count() == 2


async def test_a_stock_script_that_knows_the_cluster_key_may_register(location: str) -> None:
    def register() -> None:
        with Pyro5.api.Proxy(f"PYRO:Pyro.NameServer@{location}") as ns:
            ns._pyroHandshake = SERVICE_HANDSHAKE
            ns.register("x", URI(A), safe=True, metadata={"red"})
            with pytest.raises(NamingError, match="already registered"):
                ns.register("x", A, safe=True)
            ns.set_metadata("x", {"blue"})
            assert ns.lookup("x", return_metadata=True) == (URI(A), {"blue"})
            assert ns.remove("x") == 1
            assert ns.remove("x") == 0

    await asyncio.to_thread(register)


async def test_a_wrong_cluster_key_is_refused_at_the_door(location: str) -> None:
    uri = f"PYRO:Pyro.NameServer@{location}"
    with pytest.raises(errors.Forbidden):
        await Proxy(uri, handshake={"cluster_key": "00" * 32}).ping()


async def test_nsc_works_unchanged(location: str, admin: Proxy) -> None:
    await admin.announce("bank.data", A, 30.0, ["rmi", "rmi.data"])
    assert "Name server ping ok." in await nsc(location, "ping")
    listed = await nsc(location, "list")
    assert f"bank.data --> {A}" in listed
    assert "Pyro.NameServer --> PYRO:Pyro.NameServer@" in listed
    assert "rmi.data" in listed
    assert A in await nsc(location, "lookup", "bank.data")
    assert "bank.data" in await nsc(location, "listmatching", r"bank\..*")
    assert "bank.data" in await nsc(location, "yplookup_all", "rmi", "rmi.data")
    assert "bank.data" in await nsc(location, "yplookup_any", "rmi.data", "x")
    assert "PermissionError" in await nsc(location, "remove", "bank.data")


async def test_stock_proxies_find_objects_by_name_and_by_tag(location: str, admin: Proxy) -> None:
    async with serving("echo") as (_, uri):
        await admin.announce("echo", uri, 30.0, ["rmi", "red"])

        def call() -> None:
            for found in (f"PYRONAME:echo@{location}", f"PYROMETA:red,rmi@{location}"):
                with Pyro5.api.Proxy(found) as proxy:
                    assert proxy.add(1, other=2) == 3

        await asyncio.to_thread(call)


async def test_names_that_are_not_renewed_vanish(admin: Proxy) -> None:
    await admin.announce("x", A, 0.2, [])
    assert await admin.count() == 2

    async def gone() -> bool:
        return bool(await admin.count() == 1)

    await eventually(gone)


async def test_a_name_taken_over_is_refused_to_the_older_service(admin: Proxy) -> None:
    await admin.announce("x", A, 30.0)
    await admin.announce("x", B, 30.0)
    with pytest.raises(errors.Conflict):
        await admin.announce("x", A, 30.0)
    assert not await admin.leave("x", A)
    assert str(await admin.lookup("x")) == B
    assert await admin.leave("x", B)


async def test_a_restarted_name_server_still_knows_all(tmp_path: Path) -> None:
    path = tmp_path / "names.sqlite"
    async with name_server(path) as location:
        uri = f"PYRO:Pyro.NameServer@{location}"
        async with Proxy(uri, handshake=SERVICE_HANDSHAKE) as admin:
            await admin.register("x", A, metadata=["red"])
            await admin.announce("y", B, 30.0, ["blue"])
    async with name_server(path) as location, Proxy(f"PYRO:Pyro.NameServer@{location}") as ns:
        found = await ns.list(return_metadata=True)
        assert found["x"] == [A, ["red"]]
        assert found["y"] == [B, ["blue"]]
        assert found["Pyro.NameServer"][0] == f"PYRO:Pyro.NameServer@{location}"

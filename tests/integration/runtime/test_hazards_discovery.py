"""The hazards of a stock name server: shown on ``pyro5-ns``, absent from ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from Pyro5.errors import PyroError

from rmi_runtime import Proxy, errors
from tests.integration.runtime.names import SERVICE_HANDSHAKE, name_server, stock_name_server

SIDES = pytest.mark.parametrize("side", ["stock", "ours"])
REFUSED = (errors.Unauthenticated, PermissionError)
PATTERN = "(a+)+$"
LONG_NAME = "a" * 28 + "b"  # each letter more doubles the time of a backtracking match


@pytest.fixture
async def location(side: str) -> AsyncIterator[str]:
    if side == "ours":
        async with name_server() as location:
            yield location
    else:
        async with stock_name_server() as server:
            yield server.location


def _proxy(location: str, handshake: object = "hello") -> Proxy:
    return Proxy(
        f"PYRO:Pyro.NameServer@{location}", handshake=handshake, serializer="serpent", timeout_s=20
    )


def _insider(location: str, side: str) -> Proxy:
    return _proxy(location, SERVICE_HANDSHAKE if side == "ours" else "hello")


@SIDES
async def test_a_stranger_cannot_take_a_name_over(location: str, side: str) -> None:
    async with _insider(location, side) as service, _proxy(location) as stranger:
        await service.register("bank.data", "PYRO:bank.data@127.0.0.1:1")
        if side == "ours":
            with pytest.raises(REFUSED):
                await stranger.register("bank.data", "PYRO:evil@127.0.0.1:666")
            with pytest.raises(REFUSED):
                await stranger.set_metadata("bank.data", ["rmi.evil"])
        else:
            await stranger.register("bank.data", "PYRO:evil@127.0.0.1:666")
        taken = "evil" in str(await stranger.lookup("bank.data"))
        assert taken == (side == "stock")


@SIDES
async def test_a_stranger_cannot_remove_names(location: str, side: str) -> None:
    async with _insider(location, side) as service, _proxy(location) as stranger:
        await service.register("bank.data", "PYRO:bank.data@127.0.0.1:1")
        if side == "ours":
            for arguments in ({"name": "bank.data"}, {"prefix": "bank."}, {"regex": "bank.*"}):
                with pytest.raises(REFUSED):
                    await stranger.remove(**arguments)
        else:
            await stranger.remove(prefix="bank.")
        assert ("bank.data" in await stranger.list()) == (side == "ours")


@SIDES
async def test_a_pattern_cannot_keep_the_name_server_busy(location: str, side: str) -> None:
    async with _insider(location, side) as service, _proxy(location) as stranger:
        await service.register(LONG_NAME, "PYRO:thing@127.0.0.1:1")
        listing = asyncio.create_task(stranger.list(None, PATTERN, False))
        if side == "stock":
            done, _ = await asyncio.wait([listing], timeout=1.0)
            assert not done  # busy, and so it is for everybody: it holds the interpreter's lock
            listing.cancel()
            with pytest.raises(errors.CallTimeout):
                await service._call("ping", timeout_s=0.5)
        else:
            assert await listing == {}
            await service.ping()


@pytest.mark.parametrize("pattern", ["(", "a" * 5000, "(?=a)", "a{1000}{1000}"])
async def test_a_pattern_without_sense_is_refused(pattern: str) -> None:
    async with name_server() as location, _proxy(location) as stranger:
        with pytest.raises(PyroError):
            await stranger.list(None, pattern, False)

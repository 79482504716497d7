"""Calls and replies of one turn of the event loop leave together: one system call, not hundreds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rmi_runtime import Daemon, Proxy, expose, oneway
from tests.support import eventually

CALLS = 50


class Counted:
    """A transport that counts what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@expose
class Gate:
    """Holds calls back until it is opened."""

    def __init__(self) -> None:
        self.waiting = 0
        self.noted = 0
        self.opened = asyncio.Event()

    async def wait(self) -> str:
        self.waiting += 1
        await self.opened.wait()
        return "open"

    async def wave(self) -> str:
        return "hello"

    @oneway
    def note(self) -> None:
        self.noted += 1


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def daemon(gate: Gate) -> AsyncIterator[Daemon]:
    async with Daemon() as daemon:
        daemon.register(gate, "gate")
        yield daemon


@pytest.fixture
async def proxy(daemon: Daemon) -> AsyncIterator[Proxy]:
    async with Proxy(f"PYRO:gate@{daemon.location}") as proxy:
        yield proxy


def counted(connection: Any) -> Counted:
    connection._transport = Counted(connection._transport)
    made: Counted = connection._transport
    return made


def server_side(daemon: Daemon) -> Any:
    (connection,) = daemon.connections
    return connection


async def test_calls_made_together_leave_together(daemon: Daemon, proxy: Proxy, gate: Gate) -> None:
    sent = counted(proxy._connection)
    replies = asyncio.gather(*(proxy.wait() for _ in range(CALLS)))
    await eventually(lambda: gate.waiting == CALLS)
    assert sent.writes <= 2, "the first, which may be the only one, and all others"
    answered = counted(server_side(daemon))
    gate.opened.set()
    assert await replies == ["open"] * CALLS
    assert answered.writes <= 2


async def test_oneway_calls_made_together_leave_as_one(proxy: Proxy, gate: Gate) -> None:
    sent = counted(proxy._connection)
    await asyncio.gather(*(proxy.note() for _ in range(CALLS)))
    await eventually(lambda: gate.noted == CALLS)
    assert sent.writes == 1


async def test_a_lone_call_is_written_before_the_loop_turns(proxy: Proxy) -> None:
    sent = counted(proxy._connection)
    call = proxy.wave()
    assert sent.writes == 1
    assert await call == "hello"

"""Name servers and small services for the tests of this directory."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from Pyro5.server import expose

from rmi_runtime.credentials import ServiceAuthenticator
from rmi_runtime.daemon import Daemon
from rmi_runtime.registry import OWN_TAGS, NameKeeper, NameServer
from tests.ports import free_ports

KEY = "5e" * 32
SERVICE_HANDSHAKE = {"cluster_key": KEY}


@contextlib.asynccontextmanager
async def name_server(path: Path | None = None, port: int = 0) -> AsyncIterator[str]:
    """Run our name server in this process; yields its location."""
    daemon = Daemon("127.0.0.1", port, authenticate=ServiceAuthenticator(KEY))
    async with NameKeeper(path, sweep_s=0.05) as keeper, daemon:
        uri = daemon.register(NameServer(keeper), "Pyro.NameServer")
        keeper.table.pin(str(uri), OWN_TAGS)
        yield daemon.location


class StockNameServer:
    """A stock ``pyro5-ns`` process."""

    def __init__(self, process: asyncio.subprocess.Process, location: str) -> None:
        self.process = process
        self.location = location

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def stock_name_server(port: int = 0) -> AsyncIterator[StockNameServer]:
    """Run a stock ``pyro5-ns``; yields it once it answers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "Pyro5.nameserver", "-n", "127.0.0.1", "-p", str(port), "-x"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    location = ""
    async with asyncio.timeout(20):
        async for line in process.stdout:
            if line.startswith(b"NS running on "):
                location = line.split()[3].decode()
            if line.startswith(b"URI ="):
                break
    server = StockNameServer(process, location)
    try:
        yield server
    finally:
        await server.kill()


@expose
class Echo:
    """A service that says who it is, and can be made to wait or fail."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    def who(self) -> str:
        """Return its name, or raise its error."""
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.name

    def add(self, one: int, other: int = 0) -> int:
        """Return the sum."""
        return one + other

    async def wait(self) -> str:
        """Return its name when the gate is open."""
        self.calls += 1
        if self.error is not None:
            raise self.error
        await self.gate.wait()
        return self.name


def service(name: str, port: int = 0) -> tuple[Echo, Daemon, str]:
    """Make an :class:`Echo` on a daemon of its own; returns both and the URI."""
    echo = Echo(name)
    daemon = Daemon("127.0.0.1", port, authenticate=ServiceAuthenticator(KEY))
    uri = str(daemon.register(echo, name))
    return echo, daemon, uri


@contextlib.asynccontextmanager
async def serving(name: str, port: int = 0) -> AsyncIterator[tuple[Echo, str]]:
    """Serve an :class:`Echo`; yields it and its URI."""
    echo, daemon, uri = service(name, port)
    async with daemon:
        yield echo, uri


def free_location() -> str:
    """Return a location where nobody listens."""
    return f"127.0.0.1:{free_ports()}"


def port_of(location: str) -> int:
    """Return the port of ``host:port``."""
    return int(location.rpartition(":")[2])

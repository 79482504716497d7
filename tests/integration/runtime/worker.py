"""A service whose work can be held up, and ways to reach it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from rmi_runtime import Daemon, Proxy, current_call, expose, oneway
from tests.raw_client import RawClient


@expose
class Worker:
    """Work that can be held up, and tells what became of it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[Any] = []
        self.finished: list[Any] = []
        self.cancelled: list[Any] = []
        self.deadlines: list[float | None] = []

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value

    async def work(self, name: Any) -> Any:
        """Wait for the gate."""
        self.begun.append(name)
        self.deadlines.append(current_call().deadline)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.finished.append(name)
        return name

    @oneway
    async def leave_behind(self, name: Any) -> None:
        """Wait for the gate; nobody waits for this."""
        await self.work(name)

    async def tidy_slowly(self) -> None:
        """Wait for ever, and take two awaits to clean up."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.gate.wait()
            self.finished.append("tidied")

    async def count_to(self, number: int) -> Any:
        """Return a stream."""

        async def numbers() -> AsyncIterator[int]:
            try:
                for n in range(number):
                    yield n
            finally:
                self.finished.append("stream")

        return numbers()


def uri_of(daemon: Daemon) -> str:
    """Return the URI of the daemon's worker."""
    return f"PYRO:target@{daemon.location}"


def address_of(daemon: Daemon) -> tuple[str, int]:
    """Return where the daemon listens."""
    host, _, port = daemon.location.rpartition(":")
    return host, int(port)


def proxy_of(daemon: Daemon, **options: Any) -> Proxy:
    """Return a proxy of the daemon's worker."""
    return Proxy(uri_of(daemon), **options)


async def raw_client(daemon: Daemon, **options: Any) -> RawClient:
    """Connect a client that sends bytes as they are."""
    return await asyncio.to_thread(RawClient, address_of(daemon), **options)

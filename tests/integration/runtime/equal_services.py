"""Equal services under one name server, and what calls to them found."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from rmi_runtime.balance import Endpoints
from rmi_runtime.daemon import Daemon
from rmi_runtime.registry import NameServers
from tests.integration.runtime.names import SERVICE_HANDSHAKE, Echo, service


class Services:
    """A name server, services, and the endpoints under test."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.names = NameServers([location], handshake=SERVICE_HANDSHAKE, timeout_s=1.0)
        self.echoes: dict[str, Echo] = {}
        self.daemons: dict[str, Daemon] = {}
        self.uris: dict[str, str] = {}

    async def start(self, *names: str, port: int = 0, tell: bool = True) -> None:
        for name in names:
            echo, daemon, uri = service(name, port)
            await daemon.start()
            self.echoes[name], self.daemons[name], self.uris[name] = echo, daemon, uri
            if tell:
                await self.tell(name)

    async def tell(self, name: str, *tags: str) -> None:
        uri = self.uris[name]
        await self.names.call_at(self.location, "announce", name, uri, 60.0, list(tags))

    async def forget(self, name: str) -> None:
        await self.names.call_at(self.location, "leave", name)

    async def kill(self, name: str) -> None:
        """Stop without a farewell."""
        await self.daemons[name].close()

    def endpoints(self, prefix: str = "x.", **options: Any) -> Endpoints:
        options = {"refresh_s": 0.05, "timeout_s": 5.0, "rng": Random(1), **options}
        return Endpoints(self.names, prefix, **options)


async def asked(endpoints: Endpoints, count: int = 60) -> Counter[str]:
    """Call so many times; return how often each service answered."""
    # Repeatable: a service that was killed just now may still look connected.
    return Counter([await endpoints.call("who", repeatable=True) for _ in range(count)])


def names(endpoints: Endpoints) -> list[str]:
    """Return the names of the services that the endpoints know."""
    return [view.name for view in endpoints.view()]

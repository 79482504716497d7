"""A whole message system in one process: real sockets on port 0, one shared store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from rmi_msg.facade import FacadeObject
from rmi_msg.lines import LineLog
from rmi_msg.logger import LoggerObject
from rmi_msg.messages import Consumer, MessagesObject
from rmi_msg.spread import Spread
from rmi_msg.stores import Stores
from rmi_msg.stores.opening import open_stores
from rmi_runtime import Announcer, Daemon, Endpoints, NameServers, ServiceAuthenticator, Settings
from tests.integration.runtime.names import KEY, SERVICE_HANDSHAKE, name_server


class Service:
    """One service with its daemon, store and announcement; can be killed without a farewell."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.uri = ""
        self.stores: Stores | None = None
        self.object: Any = None
        self.consumer: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()
        self._daemon: Daemon | None = None
        self._announcer: Announcer | None = None

    async def kill(self) -> None:
        """Stop answering at once: connections break, nobody is told."""
        if self._daemon is None:
            return
        if self.consumer is not None:
            self.consumer.cancel()
            await asyncio.gather(self.consumer, return_exceptions=True)
        await self._daemon.close()
        self._daemon = None
        assert self._announcer is not None
        for task in self._announcer._tasks:  # the lease runs out by itself
            task.cancel()
        await self._stack.aclose()


class MessageSystem:
    """Name server, loggers, messages services and facade.

    Args:
        location: of the name server.
        data_dir: of the shared store and the logs.
    """

    def __init__(self, location: str, data_dir: Path) -> None:
        self.settings = Settings(data_dir=data_dir, ns=(location,))
        self.data_dir = data_dir
        self.names = NameServers([location], handshake=SERVICE_HANDSHAKE, timeout_s=1.0)
        self.services: dict[str, Service] = {}

    async def logger(self, number: int) -> Service:
        """Start ``msg.logger.<number>``."""
        service, stores, log = await self._prepare(f"msg.logger.{number}")
        return await self._serve(service, LoggerObject(service.name, stores.messages, log))

    async def messages(
        self, number: int, wrap: Callable[[Stores], Stores] = lambda stores: stores, **options: Any
    ) -> Service:
        """Start ``msg.messages.<number>``, with the options of its consumer."""
        service, stores, log = await self._prepare(f"msg.messages.{number}")
        stores = wrap(stores)
        options = {"poll_s": 0.01, "sweep_s": 0.05, **options}
        consumer = Consumer(service.name, stores.queue, stores.consumed, log, **options)
        service.consumer = asyncio.create_task(consumer.run())
        return await self._serve(service, MessagesObject(stores.consumed))

    async def facade(self, *, timeout_s: float = 10.0, seed: int = 1) -> Service:
        """Start ``msg.facade.1``."""
        service = Service("msg.facade.1")
        loggers = await service._stack.enter_async_context(self.endpoints("msg.logger.", timeout_s))
        messages = await service._stack.enter_async_context(
            self.endpoints("msg.messages.", timeout_s)
        )
        log = service._stack.enter_context(self._log(service.name))
        facade = FacadeObject(
            loggers, messages, log, timeout_s=timeout_s, spread=Spread(Random(seed))
        )
        return await self._serve(service, facade)

    def endpoints(self, prefix: str, timeout_s: float = 10.0) -> Endpoints:
        """Make endpoints of the services with a prefix."""
        return Endpoints(
            self.names, prefix, handshake=SERVICE_HANDSHAKE, refresh_s=0.05, timeout_s=timeout_s
        )

    def lines(self, name: str) -> list[str]:
        """Return the lines of a service's log."""
        return (self.data_dir / "log" / f"{name}.log").read_text().splitlines()

    async def close(self) -> None:
        """End everything."""
        for service in reversed(self.services.values()):
            await service.kill()
        await self.names.aclose()

    def _log(self, name: str) -> LineLog:
        return LineLog(self.data_dir / "log" / f"{name}.log")

    async def _prepare(self, name: str) -> tuple[Service, Stores, LineLog]:
        service = Service(name)
        log = service._stack.enter_context(self._log(name))
        stores = await service._stack.enter_async_context(open_stores(self.settings))
        service.stores = stores
        return service, stores, log

    async def _serve(self, service: Service, served: object) -> Service:
        service.object = served
        daemon = service._daemon = Daemon(authenticate=ServiceAuthenticator(KEY))
        service.uri = str(daemon.register(served, service.name))
        await daemon.start()
        announcer = service._announcer = Announcer(
            self.names, service.name, service.uri, lease_s=1.0
        )
        await announcer.__aenter__()
        async with asyncio.timeout(10):
            await announcer.announced.wait()
        self.services[service.name] = service
        return service


@asynccontextmanager
async def message_system(data_dir: Path) -> AsyncIterator[MessageSystem]:
    """Run a name server, and hand out a system with nothing else in it yet."""
    async with name_server() as location:
        system = MessageSystem(location, data_dir)
        try:
            yield system
        finally:
            await system.close()

"""The gateway's readiness: what it says is so now, and not as of its last look."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from rmi_msg.gateway_status import Readiness
from rmi_runtime import Announcer, Daemon, Endpoints, NameServers, ServiceAuthenticator, expose
from tests.integration.runtime.names import KEY, SERVICE_HANDSHAKE, name_server

FOREVER_S = 3600.0


@expose
class Logger:
    """A service that is there."""


@contextlib.asynccontextmanager
async def logger(names: NameServers) -> AsyncIterator[Announcer]:
    async with Daemon(authenticate=ServiceAuthenticator(KEY)) as daemon:
        uri = daemon.register(Logger(), "msg.logger.1")
        async with Announcer(names, "msg.logger.1", uri) as announcer:
            await announcer.announced.wait()
            yield announcer


async def test_a_service_that_was_announced_a_moment_ago_counts() -> None:
    async with name_server() as location:
        names = NameServers([location], handshake=SERVICE_HANDSHAKE)
        async with Endpoints(names, "msg.logger.", refresh_s=FOREVER_S) as loggers:
            needed = {"logger": loggers}
            assert await Readiness(needed, SERVICE_HANDSHAKE).reasons() == [
                "no logger is announced"
            ]
            async with logger(names):
                assert await Readiness(needed, SERVICE_HANDSHAKE).reasons() == []
        await names.aclose()


async def test_a_service_that_is_announced_and_does_not_answer_is_none() -> None:
    async with name_server() as location:
        names = NameServers([location], handshake=SERVICE_HANDSHAKE)
        async with (
            Endpoints(names, "msg.logger.", refresh_s=FOREVER_S) as loggers,
            Announcer(names, "msg.logger.1", "PYRO:msg.logger.1@127.0.0.1:1") as announcer,
        ):
            await announcer.announced.wait()
            await loggers.ready()
            assert await Readiness({"logger": loggers}, SERVICE_HANDSHAKE).reasons() == [
                "no logger of 1 announced answers"
            ]
        await names.aclose()

"""Of equal services one stands still, or is only slow: calls leave the first, not the second."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from unittest import mock

import pytest

from rmi_runtime import Endpoints, errors
from rmi_runtime.balance.balancer import Endpoint
from rmi_runtime.balance.endpoint_proxies import EndpointProxies
from tests.integration.runtime.equal_services import Services, asked, names
from tests.integration.runtime.servers import Server, serving
from tests.support import eventually

LONG_S = 240.0
"""A call's patience: half of it is more than any test here takes."""


class Processes:
    """Two services in processes of their own, known to the name server."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.servers: dict[str, Server] = {}

    async def start(self, services: Services) -> None:
        for name in ("x.1", "x.2"):
            self.servers[name] = self._stack.enter_context(serving("ours"))
            services.uris[name] = self.servers[name].uri
            await services.tell(name)

    def freeze(self, name: str) -> None:
        os.kill(self.servers[name].process.pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self.servers[name].process.pid, signal.SIGCONT)


async def processes(services: Services, stack: ExitStack, endpoints: Endpoints) -> Processes:
    made = Processes(stack)
    await made.start(services)
    await eventually(lambda: len(names(endpoints)) == 2)
    for name in names(endpoints):
        assert await endpoints.call("echo", name, prefer=name) == name
    return made


def set_aside(endpoints: Endpoints) -> list[str]:
    return [view.name for view in endpoints.view() if view.set_aside]


async def test_repeatable_calls_leave_a_service_that_stands_still(services: Services) -> None:
    with ExitStack() as stack:
        async with services.endpoints(timeout_s=LONG_S) as endpoints:
            made = await processes(services, stack, endpoints)
            made.freeze("x.1")
            async with asyncio.timeout(LONG_S / 4):
                calls = [endpoints.call("echo", n, repeatable=True) for n in range(20)]
                assert await asyncio.gather(*calls) == list(range(20))
            assert set_aside(endpoints) == ["x.1"]
            made.thaw("x.1")
            await eventually(lambda: not set_aside(endpoints))


async def test_a_call_that_must_not_be_made_twice_waits_for_it(services: Services) -> None:
    with ExitStack() as stack:
        async with services.endpoints(timeout_s=LONG_S) as endpoints:
            made = await processes(services, stack, endpoints)
            made.freeze("x.1")
            once = asyncio.create_task(endpoints.call("slowly", "once", 0.0, prefer="x.1"))
            also = asyncio.create_task(
                endpoints.call("slowly", "also", 0.0, prefer="x.1", repeatable=True)
            )
            await eventually(lambda: set_aside(endpoints) == ["x.1"], timeout_s=LONG_S / 4)
            assert await endpoints.call("echo", "new") == "new"  # elsewhere
            assert not once.done()
            made.thaw("x.1")
            await asyncio.gather(once, also)
            await eventually(lambda: not set_aside(endpoints))
            for key in ("once", "also"):
                counts = [await endpoints.call("count", key, prefer=name) for name in made.servers]
                assert counts == [1, 0]


async def test_a_service_that_is_only_slow_is_left_alone(services: Services) -> None:
    await services.start("x.1", "x.2")
    slow, other = services.daemons["x.1"], services.echoes["x.2"]
    async with services.endpoints(silent_s=0.05) as endpoints:
        assert set(await asked(endpoints)) == {"x.1", "x.2"}
        asked_before, connections_before = other.calls, slow.connections.made
        call = asyncio.create_task(endpoints.call("wait", prefer="x.1", repeatable=True))
        await eventually(lambda: slow.connections.made > connections_before + 2)  # listened to
        services.echoes["x.1"].gate.set()
        assert await call == "x.1"
        assert not set_aside(endpoints)
        assert other.calls == asked_before


async def test_a_call_is_cut_off_once_at_most_for_a_service_may_be_busy_with_it(
    services: Services,
) -> None:
    """A stock daemon that does one call after the other says nothing to newcomers meanwhile."""
    await services.start("x.1", "x.2")
    listened_to: list[str] = []

    async def is_heard(self: EndpointProxies, endpoint: Endpoint) -> bool:
        listened_to.append(endpoint.name)
        return False

    with mock.patch.object(EndpointProxies, "is_heard", is_heard):
        async with services.endpoints(silent_s=0.02, timeout_s=LONG_S) as endpoints:
            assert set(await asked(endpoints)) == {"x.1", "x.2"}
            calls_before = sum(echo.calls for echo in services.echoes.values())
            call = asyncio.create_task(endpoints.call("wait", prefer="x.1", repeatable=True))
            await eventually(lambda: len(listened_to) >= 6)
            assert sum(echo.calls for echo in services.echoes.values()) == calls_before + 2
            for echo in services.echoes.values():
                echo.gate.set()
            assert await call == "x.2"


async def test_the_only_service_is_waited_for(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints(silent_s=0.05) as endpoints:
        call = asyncio.create_task(endpoints.call("wait", timeout_s=0.5))
        with pytest.raises(errors.CallTimeout):
            await call
        assert services.echoes["x.1"].calls == 1

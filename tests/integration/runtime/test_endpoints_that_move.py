"""Equal services that come, go, drain and start anew, and name servers that do."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from rmi_runtime import Daemon, Identity, ServiceAuthenticator, errors
from rmi_runtime.balance import Endpoints
from rmi_runtime.registry import NameServers
from rmi_runtime.registry.nametable import DRAINING
from tests.integration.runtime.equal_services import Services, asked, names
from tests.integration.runtime.names import (
    SERVICE_HANDSHAKE,
    Echo,
    free_location,
    name_server,
    port_of,
)
from tests.support import eventually


async def test_a_service_started_anew_at_another_port_is_found(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints(refresh_s=30.0) as endpoints:
        await endpoints.call("who")
        old = services.uris["x.1"]
        await services.kill("x.1")
        call = asyncio.create_task(endpoints.call("who", repeatable=True))
        await eventually(lambda: endpoints.view()[0].set_aside)
        await services.start("x.1")
        assert services.uris["x.1"] != old
        assert await call == "x.1"
        assert [view.uri for view in endpoints.view()] == [services.uris["x.1"]]
        assert len(endpoints._proxies) == 1


async def test_a_failure_has_the_name_server_asked_at_once(services: Services) -> None:
    await services.start("x.1", "x.2")
    async with services.endpoints(refresh_s=60.0) as endpoints:
        assert len(await asked(endpoints)) == 2
        await services.kill("x.1")
        await services.start("x.1")
        await asked(endpoints)
        await eventually(lambda: endpoints.view()[0].uri == services.uris["x.1"])
        assert len(await asked(endpoints)) == 2


async def test_a_service_of_another_cluster_at_an_old_address_is_none(services: Services) -> None:
    await services.start("x.1", "x.2")
    old = services.uris["x.1"]
    await services.kill("x.1")
    stranger = Daemon(port=port_of(old), authenticate=ServiceAuthenticator("0f" * 32))
    stranger.register(Echo("stranger"), "x.1")
    async with stranger, services.endpoints(handshake=SERVICE_HANDSHAKE) as endpoints:
        await eventually(lambda: len(names(endpoints)) == 2)
        assert await asked(endpoints) == {"x.2": 60}


async def test_a_client_that_is_refused_is_told_at_once(services: Services) -> None:
    def refuse(handshake: object, peer: object) -> Identity:
        raise errors.Forbidden("not you")

    daemon = Daemon(authenticate=refuse)
    services.uris["x.1"] = str(daemon.register(Echo("x.1"), "x.1"))
    await services.tell("x.1")
    async with daemon, services.endpoints(handshake={"token": "fake"}) as endpoints:
        with pytest.raises(errors.Forbidden, match="not you"):
            await endpoints.call("who")


async def test_calls_to_a_service_that_was_replaced_end_in_peace(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        call = asyncio.create_task(endpoints.call("wait"))
        old = services.echoes["x.1"]
        await eventually(lambda: old.calls)
        old_daemon = services.daemons["x.1"]
        await services.start("x.1")
        await eventually(lambda: endpoints.view()[0].uri == services.uris["x.1"])
        assert len(endpoints._proxies) == 1
        old.gate.set()
        assert await call == "x.1"
        await eventually(lambda: not endpoints._proxies)
        await old_daemon.close()


async def test_a_service_that_comes_back_at_its_port_is_probed_and_used(
    services: Services,
) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        await endpoints.call("who")
        await services.kill("x.1")
        call = asyncio.create_task(endpoints.call("who", repeatable=True))
        await eventually(lambda: endpoints.view()[0].set_aside)
        await services.start("x.1", port=port_of(services.uris["x.1"]), tell=False)
        assert await call == "x.1"
        assert not endpoints.view()[0].set_aside


async def test_another_service_at_the_old_address_is_not_taken_for_the_old_one(
    services: Services,
) -> None:
    await services.start("x.1", "x.2")
    async with services.endpoints() as endpoints:
        assert len(await asked(endpoints)) == 2
        await services.kill("x.1")
        await services.start("z.1", port=port_of(services.uris["x.1"]))
        assert set(await asked(endpoints)) == {"x.2"}


async def test_draining_services_get_nothing_new(services: Services) -> None:
    await services.start("x.1", "x.2")
    async with services.endpoints() as endpoints:
        await eventually(lambda: len(names(endpoints)) == 2)
        await services.tell("x.1", DRAINING)
        await eventually(lambda: endpoints.view()[0].draining)
        assert set(await asked(endpoints)) == {"x.2"}


async def test_calls_go_on_while_no_name_server_is_up(services: Services) -> None:
    async with contextlib.AsyncExitStack() as stack:
        location = await stack.enter_async_context(name_server())
        known = NameServers([location], handshake=SERVICE_HANDSHAKE, timeout_s=0.5)
        await services.start("x.1", "x.2", tell=False)
        for name in ("x.1", "x.2"):
            await known.call_at(location, "announce", name, services.uris[name], 60.0)
        async with Endpoints(known, "x.", refresh_s=0.02) as endpoints:
            await eventually(lambda: len(names(endpoints)) == 2)
            await stack.aclose()
            await eventually(lambda: endpoints._blind)
            assert set(await asked(endpoints)) == {"x.1", "x.2"}
            await services.kill("x.1")
            assert set(await asked(endpoints)) == {"x.2"}
            async with name_server(port=port_of(location)):  # it has forgotten everything
                await eventually(lambda: not endpoints._blind)
                assert set(await asked(endpoints)) == {"x.2"}
                await eventually(lambda: names(endpoints) == ["x.2"])


async def test_one_that_left_is_forgotten_once_it_is_gone(services: Services) -> None:
    await services.start("x.1", "x.2")
    async with services.endpoints() as endpoints:
        assert len(await asked(endpoints)) == 2
        await services.kill("x.1")
        await services.forget("x.1")
        await asked(endpoints)
        services.echoes["x.2"].error = errors.Overloaded("so the other is asked too")
        with pytest.raises(errors.Unavailable):
            await endpoints.call("who", timeout_s=0.3)
        await eventually(lambda: names(endpoints) == ["x.2"])
        await eventually(lambda: len(endpoints._proxies) == 1)


async def test_a_service_that_drains_is_not_forgotten_for_saying_so(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        await endpoints.call("who")
        await services.forget("x.1")
        services.daemons["x.1"].draining = True
        call = asyncio.create_task(endpoints.call("who"))
        await eventually(lambda: endpoints._balancer.endpoints[0].failures >= 3)
        services.daemons["x.1"].draining = False
        assert await call == "x.1"


async def test_without_a_name_server_from_the_start_calls_wait() -> None:
    location = free_location()
    known = NameServers([location], handshake=SERVICE_HANDSHAKE, timeout_s=0.5)
    async with Endpoints(known, "x.", refresh_s=0.05) as endpoints:
        call = asyncio.create_task(endpoints.call("who", repeatable=True))
        await eventually(lambda: endpoints._blind)
        async with name_server(port=port_of(location)):
            services = Services(location)
            await services.start("x.1")
            assert await call == "x.1"
            await services.kill("x.1")
            await services.names.aclose()
    await known.aclose()


async def test_leaving_waits_for_the_connection_to_a_service_just_forgotten(
    services: Services,
) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        await endpoints.call("who")
        ((endpoint, proxy),) = endpoints._proxies._proxies.items()
        endpoints._hang_up(endpoint)  # as when the name server does not list it any more
        assert proxy._connected
    assert not proxy._connected
    assert len(endpoints._proxies) == 0

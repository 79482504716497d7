"""Calls to equal services: spread, moved on, waited for, and never sent twice by mistake."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from rmi_runtime import errors
from rmi_runtime.daemon import Daemon
from rmi_runtime.endpoints import Endpoints
from rmi_runtime.nametable import DRAINING
from rmi_runtime.registry import NameServers
from tests.integration.runtime.names import (
    SERVICE_HANDSHAKE,
    Echo,
    free_location,
    name_server,
    port_of,
    service,
)
from tests.support import eventually


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


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    async with name_server() as location:
        services = Services(location)
        try:
            yield services
        finally:
            for daemon in services.daemons.values():
                await daemon.close()
            await services.names.aclose()


async def asked(endpoints: Endpoints, count: int = 60) -> Counter[str]:
    # Repeatable: a service that was killed just now may still look connected.
    return Counter([await endpoints.call("who", repeatable=True) for _ in range(count)])


def names(endpoints: Endpoints) -> list[str]:
    return [view.name for view in endpoints.view()]


async def test_calls_are_spread_over_all_services_of_the_prefix(services: Services) -> None:
    await services.start("x.1", "x.2", "x.3", "y.1")
    async with services.endpoints() as endpoints:
        await eventually(lambda: names(endpoints) == ["x.1", "x.2", "x.3"])
        assert set(await asked(endpoints)) == {"x.1", "x.2", "x.3"}
        assert await endpoints.call("add", 1, other=2) == 3


async def test_errors_of_the_method_are_the_callers(services: Services) -> None:
    await services.start("x.1", "x.2")
    async with services.endpoints() as endpoints:
        for error in (ValueError("no"), errors.Conflict("no"), errors.NotFound("no")):
            for echo in services.echoes.values():
                echo.error, echo.calls = error, 0
            with pytest.raises(type(error), match="no"):
                await endpoints.call("who", repeatable=True)
            assert sum(echo.calls for echo in services.echoes.values()) == 1
        assert not any(view.set_aside for view in endpoints.view())


async def test_a_dead_service_costs_no_call(services: Services) -> None:
    await services.start("x.1", "x.2")
    async with services.endpoints() as endpoints:
        assert set(await asked(endpoints)) == {"x.1", "x.2"}
        await services.kill("x.1")
        assert set(await asked(endpoints)) == {"x.2"}
        assert [view.set_aside for view in endpoints.view()] == [True, False]


@pytest.mark.parametrize("error", [errors.Overloaded, errors.Unavailable, errors.Draining])
async def test_a_definite_refusal_goes_to_the_next_service_at_once(
    services: Services, error: type[errors.RmiError]
) -> None:
    await services.start("x.1", "x.2")
    services.echoes["x.1"].error = error("not me")
    async with services.endpoints() as endpoints:
        assert set(await asked(endpoints)) == {"x.2"}
        services.echoes["x.1"].error = None

        async def both() -> bool:
            return len(await asked(endpoints)) == 2

        await eventually(both)


async def test_when_all_refuse_the_call_waits_for_one_that_does_not(services: Services) -> None:
    await services.start("x.1", "x.2")
    for echo in services.echoes.values():
        echo.error = errors.Overloaded("busy")
    async with services.endpoints() as endpoints:
        call = asyncio.create_task(endpoints.call("who", repeatable=True))
        await eventually(lambda: all(echo.calls >= 2 for echo in services.echoes.values()))
        services.echoes["x.2"].error = None
        assert await call == "x.2"


async def test_when_all_refuse_until_the_deadline_the_call_is_unavailable(
    services: Services,
) -> None:
    await services.start("x.1")
    echo = services.echoes["x.1"]
    echo.error = errors.Overloaded("busy")
    async with services.endpoints() as endpoints:
        with pytest.raises(errors.Unavailable, match="busy") as caught:
            await endpoints.call("who", timeout_s=0.5)
        assert isinstance(caught.value.__cause__, errors.Overloaded)
        assert 2 <= echo.calls <= 6  # after pauses of 0.1, 0.2, 0.4 s: no busy loop


async def test_a_call_waits_for_the_first_service_to_appear(services: Services) -> None:
    async with services.endpoints() as endpoints:
        call = asyncio.create_task(endpoints.call("who", repeatable=True))
        ready = asyncio.create_task(endpoints.ready())
        await eventually(lambda: len(endpoints._waiting) == 2)
        await services.start("x.1")
        assert await call == "x.1"
        await ready


async def test_nobody_at_all_is_unavailable_at_the_deadline(services: Services) -> None:
    async with services.endpoints() as endpoints:
        with pytest.raises(errors.Unavailable, match=r"x\.\*"):
            await endpoints.call("who", timeout_s=0.1)
        with pytest.raises(errors.Unavailable):
            await endpoints.ready(timeout_s=0.1)
        assert not endpoints._waiting


async def test_waiting_calls_are_bounded(services: Services) -> None:
    async with services.endpoints(waiting_max=3) as endpoints:
        calls = [asyncio.create_task(endpoints.call("who", repeatable=True)) for _ in range(3)]
        await eventually(lambda: len(endpoints._waiting) == 3)
        with pytest.raises(errors.Overloaded):
            await endpoints.call("who")
        await services.start("x.1")
        assert await asyncio.gather(*calls) == ["x.1"] * 3


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


async def test_a_success_makes_up_for_earlier_failures(services: Services) -> None:
    await services.start("x.1")
    echo = services.echoes["x.1"]
    async with services.endpoints() as endpoints:
        echo.error = errors.Overloaded("busy")
        call = asyncio.create_task(endpoints.call("who"))
        await eventually(lambda: echo.calls >= 2)
        echo.error = None
        await call
        assert endpoints._balancer.endpoints[0].failures == 0


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


class Cut:
    """Cuts the connections to a service while calls wait in it."""

    def __init__(self, services: Services, name: str) -> None:
        self.echo = services.echoes[name]
        self.daemon = services.daemons[name]

    async def when_called(self) -> None:
        await eventually(lambda: self.echo.calls)
        for connection in list(self.daemon._connections):
            connection.abort()


async def test_a_lost_reply_is_not_asked_for_twice(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        call = asyncio.create_task(endpoints.call("wait"))
        await Cut(services, "x.1").when_called()
        with pytest.raises(errors.ConnectionLost):
            await call
        assert services.echoes["x.1"].calls == 1


async def test_a_lost_reply_is_asked_for_again_if_that_does_no_harm(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        call = asyncio.create_task(endpoints.call("wait", repeatable=True))
        await Cut(services, "x.1").when_called()
        services.echoes["x.1"].gate.set()
        assert await call == "x.1"
        assert services.echoes["x.1"].calls == 2


async def test_a_repeatable_call_leaves_a_service_that_hangs(services: Services) -> None:
    await services.start("x.1", "x.2")
    services.echoes["x.2"].gate.set()
    async with services.endpoints() as endpoints:
        await eventually(lambda: len(names(endpoints)) == 2)
        calls = [endpoints.call("wait", repeatable=True, timeout_s=1.0) for _ in range(10)]
        assert await asyncio.gather(*calls) == ["x.2"] * 10
        assert services.echoes["x.1"].calls > 0


async def test_an_impatient_call_does_not_set_a_service_aside_that_answers_others(
    services: Services,
) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        impatient = asyncio.create_task(endpoints.call("wait", timeout_s=0.1))
        await eventually(lambda: services.echoes["x.1"].calls)
        await endpoints.call("who")
        with pytest.raises(errors.CallTimeout):
            await impatient
        assert not endpoints.view()[0].set_aside
        with pytest.raises(errors.CallTimeout):
            await endpoints.call("wait", timeout_s=0.05)
        assert endpoints.view()[0].set_aside


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


async def test_what_may_have_happened_stays_so_whatever_comes_after(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        call = asyncio.create_task(endpoints.call("wait", repeatable=True, timeout_s=1.0))
        await Cut(services, "x.1").when_called()
        services.echoes["x.1"].error = errors.Overloaded("busy")
        with pytest.raises(errors.ConnectionLost):
            await call
        assert services.echoes["x.1"].calls > 1


async def test_a_service_that_fails_inside_is_asked_once_per_repeatable_call(
    services: Services,
) -> None:
    await services.start("x.1", "x.2")
    for echo in services.echoes.values():
        echo.error = errors.InternalError("broken")
    async with services.endpoints() as endpoints:
        await eventually(lambda: len(names(endpoints)) == 2)
        with pytest.raises(errors.InternalError):
            await endpoints.call("who", repeatable=True)
        assert [echo.calls for echo in services.echoes.values()] == [1, 1]


async def test_calls_under_way_are_counted_exactly_whatever_ends_them(services: Services) -> None:
    await services.start("x.1", "x.2")

    def inflight() -> int:
        return sum(view.inflight for view in endpoints.view())

    async with services.endpoints(policy="less_busy") as endpoints:
        await eventually(lambda: len(names(endpoints)) == 2)
        calls = [asyncio.create_task(endpoints.call("wait")) for _ in range(10)]
        await eventually(lambda: inflight() == 10)
        assert [view.inflight for view in endpoints.view()] == [5, 5]
        for call in calls[:4]:
            call.cancel()
        await asyncio.gather(*calls[:4], return_exceptions=True)
        assert inflight() == 6
        with pytest.raises(errors.CallTimeout):
            await endpoints.call("wait", timeout_s=0.05)
        assert inflight() == 6
        for echo in services.echoes.values():
            echo.gate.set()
        await asyncio.gather(*calls[4:])
        assert inflight() == 0


async def test_a_black_hole_delays_a_call_by_its_connect_limit_only(services: Services) -> None:
    # A listening socket whose queue is full swallows connections, as a dead machine does.
    hole = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, backlog=1)
    host, port = hole.sockets[0].getsockname()
    await services.start("x.2")
    services.uris["x.1"] = f"PYRO:x.1@{host}:{port}"
    await services.tell("x.1")
    async with hole, services.endpoints(timeout_s=30.0) as endpoints:
        await eventually(lambda: len(names(endpoints)) == 2)
        begun = time.monotonic()
        assert set(await asked(endpoints)) == {"x.2"}
        assert time.monotonic() - begun < 15
        assert endpoints.view()[0].set_aside


async def test_closing_ends_waiting_calls_and_closes_the_connections(services: Services) -> None:
    await services.start("x.1")
    endpoints = services.endpoints()
    async with endpoints:
        await endpoints.call("who")
        services.echoes["x.1"].error = errors.Overloaded("busy")
        call = asyncio.create_task(endpoints.call("who"))
        await eventually(lambda: len(endpoints._waiting) == 1)
    with pytest.raises(errors.Unavailable):
        await call
    with pytest.raises(errors.Unavailable):
        await endpoints.call("who")
    assert not endpoints._proxies
    assert not endpoints._tasks


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

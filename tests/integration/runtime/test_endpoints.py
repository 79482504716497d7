"""Calls to equal services: spread, moved on at a refusal, waited for, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import Any

import pytest

from rmi_runtime import Proxy, errors
from tests.integration.runtime.equal_services import Services, asked, names
from tests.support import eventually


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


async def test_what_connecting_took_is_off_the_deadline_of_the_call(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await services.start("x.1")
    bind, call, given_s = Proxy._bind, Proxy._call, []

    async def slow_bind(proxy: Proxy, timeout_s: float | None = None) -> Any:
        connection, ready_at = await bind(proxy, timeout_s), time.monotonic() + 0.05
        await eventually(lambda: time.monotonic() >= ready_at)
        return connection

    def noted_call(proxy: Proxy, method: str, *args: Any, **options: Any) -> Any:
        if method == "who":
            given_s.append(options["timeout_s"])
        return call(proxy, method, *args, **options)

    async with services.endpoints() as endpoints:
        await endpoints.ready()
        monkeypatch.setattr(Proxy, "_bind", slow_bind)
        monkeypatch.setattr(Proxy, "_call", noted_call)
        assert await endpoints.call("who", timeout_s=5.0) == "x.1"
    assert given_s[0] <= 4.95


async def test_nobody_at_all_is_unavailable_at_the_deadline(services: Services) -> None:
    async with services.endpoints() as endpoints:
        with pytest.raises(errors.Unavailable, match=r"x\.\*"):
            await endpoints.call("who", timeout_s=0.1)
        with pytest.raises(errors.Unavailable):
            await endpoints.ready(timeout_s=0.1)
        assert not endpoints._waiting


@pytest.mark.parametrize("timeout_s", ["1", math.nan, pytest.param(10**5000, id="huge")])
async def test_a_deadline_that_is_no_number_is_refused_at_once(
    services: Services, timeout_s: Any
) -> None:
    async with services.endpoints() as endpoints:
        for wait in (endpoints.call("who", timeout_s=timeout_s), endpoints.ready(timeout_s)):
            with pytest.raises(ValueError, match="expected a number of seconds"):
                await wait


async def test_waiting_calls_are_bounded(services: Services) -> None:
    async with services.endpoints(waiting_max=3) as endpoints:
        calls = [asyncio.create_task(endpoints.call("who", repeatable=True)) for _ in range(3)]
        await eventually(lambda: len(endpoints._waiting) == 3)
        with pytest.raises(errors.Overloaded):
            await endpoints.call("who")
        await services.start("x.1")
        assert await asyncio.gather(*calls) == ["x.1"] * 3


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


async def test_closing_that_is_cancelled_closes_the_connections_all_the_same(
    services: Services,
) -> None:
    await services.start("x.1")
    async with contextlib.AsyncExitStack() as stack:
        endpoints = await stack.enter_async_context(services.endpoints())
        assert await endpoints.call("who") == "x.1"
        (proxy,) = endpoints._proxies._proxies.values()
        leaving = asyncio.ensure_future(stack.aclose())
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert not proxy._connected

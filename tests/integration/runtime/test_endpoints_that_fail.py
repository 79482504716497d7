"""Equal services that die, hang or lose a reply: nothing is sent twice by mistake."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import Any

import pytest

from rmi_runtime import Endpoints, NameServers, Proxy, errors
from tests.integration.runtime.equal_services import Services, asked, names
from tests.ports import free_ports
from tests.support import eventually


async def test_a_dead_service_costs_no_call(services: Services) -> None:
    await services.start("x.1", "x.2")
    async with services.endpoints() as endpoints:
        assert set(await asked(endpoints)) == {"x.1", "x.2"}
        await services.kill("x.1")
        assert set(await asked(endpoints)) == {"x.2"}
        assert [view.set_aside for view in endpoints.view()] == [True, False]


class Cut:
    """Cuts the connections to a service while calls wait in it."""

    def __init__(self, services: Services, name: str) -> None:
        self.echo = services.echoes[name]
        self.daemon = services.daemons[name]

    async def when_called(self) -> None:
        await eventually(lambda: self.echo.calls)
        for connection in list(self.daemon.connections):
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


async def test_the_last_service_that_a_repeatable_call_tries_gets_all_the_time_that_is_left(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried_s: list[float] = []

    async def slow(
        self: Endpoints, endpoint: Any, method: str, args: Any, kwargs: Any, try_s: float, *_: Any
    ) -> None:
        tried_s.append(try_s)
        endpoint.answered_at = math.inf  # it answers others, so it is not set aside for this
        raise errors.CallTimeout("no answer came in time")

    await services.start("x.1", "x.2")
    async with services.endpoints() as endpoints:
        await eventually(lambda: len(names(endpoints)) == 2)
        monkeypatch.setattr(Endpoints, "_call_at", slow)
        with pytest.raises(errors.CallTimeout):
            await endpoints.call("wait", repeatable=True, timeout_s=1000.0)
    assert [round(try_s, -1) for try_s in tried_s] == [500.0, 1000.0]


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


async def test_nor_one_that_answers_others_with_errors(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        impatient = asyncio.create_task(endpoints.call("wait", timeout_s=0.1))
        await eventually(lambda: services.echoes["x.1"].calls)
        for error in (LookupError("of the method"), errors.Conflict("of the method")):
            services.echoes["x.1"].error = error
            with pytest.raises(type(error), match="of the method"):
                await endpoints.call("who")
        with pytest.raises(errors.CallTimeout):
            await impatient
        assert not endpoints.view()[0].set_aside


async def test_what_a_service_is_too_busy_to_begin_in_its_share_of_the_time_goes_to_another(
    services: Services,
) -> None:
    await services.start("x.1", "x.2")
    services.echoes["x.1"].error = errors.DeadlinePassed("too late")
    async with services.endpoints() as endpoints:
        await eventually(lambda: len(names(endpoints)) == 2)
        assert set(await asked(endpoints)) == {"x.2"}
        assert services.echoes["x.1"].calls > 1
        assert not any(view.set_aside for view in endpoints.view())


async def test_what_may_have_happened_stays_so_whatever_comes_after(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        call = asyncio.create_task(endpoints.call("wait", repeatable=True, timeout_s=1.0))
        await Cut(services, "x.1").when_called()
        services.echoes["x.1"].error = errors.Overloaded("busy")
        with pytest.raises(errors.ConnectionLost):
            await call
        assert services.echoes["x.1"].calls > 1


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (errors.make_error("lock_timeout", True, "not now", {}), errors.ConnectionLost),
        (errors.DeadlinePassed("too late"), errors.ConnectionLost),
        (errors.Forbidden("not you"), errors.ConnectionLost),
        (errors.Conflict("it cannot be"), errors.Conflict),
    ],
)
async def test_a_refusal_that_says_nothing_of_a_lost_try_does_not_make_it_definite(
    services: Services, refusal: errors.RmiError, told: type[errors.RmiError]
) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        call = asyncio.create_task(endpoints.call("wait", repeatable=True))
        await Cut(services, "x.1").when_called()
        services.echoes["x.1"].error = refusal
        with pytest.raises(told):
            await call
        assert services.echoes["x.1"].calls == 2
        with pytest.raises(type(refusal)):  # without a doubt it is told as it is
            await endpoints.call("wait", repeatable=True)


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


async def test_a_black_hole_delays_a_call_by_its_connect_limit_only(services: Services) -> None:
    # A listening socket whose queue is full swallows connections, as a dead machine does.
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as hole,
        socket.create_connection(hole.getsockname()),
    ):
        host, port = hole.getsockname()
        await services.start("x.2")
        services.uris["x.1"] = f"PYRO:x.1@{host}:{port}"
        await services.tell("x.1")
        async with services.endpoints(timeout_s=30.0) as endpoints:
            await eventually(lambda: len(names(endpoints)) == 2)
            begun = time.monotonic()
            assert set(await asked(endpoints)) == {"x.2"}
            assert time.monotonic() - begun < 15
            assert endpoints.view()[0].set_aside


async def test_a_call_without_time_to_connect_does_not_set_a_service_aside(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, gate = Proxy._connect, asyncio.Event()

    async def slow_connect(proxy: Proxy, wait_s: float) -> Any:
        await gate.wait()
        return await connect(proxy, wait_s)

    await services.start("x.1")
    async with services.endpoints() as endpoints:
        await endpoints.ready()
        monkeypatch.setattr(Proxy, "_connect", slow_connect)
        with pytest.raises(errors.DeadlinePassed, match="too few to connect to"):
            await endpoints.call("who", timeout_s=0.005)
        gate.set()
        assert not endpoints.view()[0].set_aside
        assert await endpoints.call("who") == "x.1"


async def test_a_black_hole_that_nobody_has_time_for_is_set_aside_all_the_same(
    services: Services,
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as hole,
        socket.create_connection(hole.getsockname()),
    ):
        host, port = hole.getsockname()
        services.uris["x.1"] = f"PYRO:x.1@{host}:{port}"
        await services.tell("x.1")
        async with services.endpoints() as endpoints:
            await endpoints.ready()
            for _ in range(3):
                with pytest.raises(errors.DeadlinePassed):
                    await endpoints.call("who", timeout_s=0.01)
            assert not endpoints.view()[0].set_aside
            await eventually(lambda: endpoints.view()[0].set_aside)


async def test_it_is_said_that_services_are_known_but_do_not_answer(services: Services) -> None:
    await services.start("x.1")
    async with services.endpoints() as endpoints:
        assert await endpoints.call("who") == "x.1"
        await services.kill("x.1")
        with pytest.raises((errors.Unavailable, errors.ConnectionLost)):
            await endpoints.call("who", timeout_s=0.3)
        assert endpoints.view()[0].set_aside
        with pytest.raises(errors.Unavailable, match="of 1 known, none answered"):
            await endpoints.call("who", timeout_s=0.01)


async def test_it_is_said_that_no_name_server_could_be_asked() -> None:
    port = free_ports()
    async with (
        NameServers([f"127.0.0.1:{port}"]) as nobody,
        Endpoints(nobody, "x.", timeout_s=0.3) as endpoints,
    ):
        with pytest.raises(errors.Unavailable, match=f"127.0.0.1:{port}") as caught:
            await endpoints.call("echo", 1)
        assert caught.value.definite

"""Calls of a proxy: in flight, too late, cancelled, unreadable, never sent twice."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from rmi_runtime import Daemon, Proxy, errors, expose, wire
from rmi_runtime.proxy import connection as client_connection
from rmi_runtime.proxy.calls import BadReply
from tests.integration.runtime.fake_server import (
    Peer,
    argument,
    echo,
    encoded,
    fake_server,
    silent,
)
from tests.support import eventually


@expose
class Thing:
    """A plain method, and one that waits to be told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0

    def echo(self, value: Any) -> Any:
        return value

    def divide(self, dividend: int, divisor: int) -> int:
        return dividend // divisor

    async def wait(self) -> str:
        self.begun += 1
        await self.go.wait()
        return "waited"


async def test_sixty_thousand_calls_in_flight_each_get_their_own_reply() -> None:
    async with Daemon() as daemon, Proxy(daemon.register(Thing()), timeout_s=60) as proxy:
        numbers = range(client_connection.INFLIGHT_MAX)
        assert await asyncio.gather(*map(proxy.echo, numbers)) == list(numbers)


async def test_one_call_more_than_may_be_in_flight_is_definitely_refused() -> None:
    async with fake_server(silent) as uri, Proxy(uri, timeout_s=60) as proxy:
        calls = [proxy.echo(number) for number in range(client_connection.INFLIGHT_MAX)]
        with pytest.raises(errors.Overloaded):
            proxy.echo("one more")
        await proxy._close()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in found} == {errors.ConnectionLost}


async def test_a_sequence_number_is_not_used_again_while_its_call_is_in_flight() -> None:
    thing = Thing()
    async with Daemon() as daemon, Proxy(daemon.register(thing), timeout_s=60) as proxy:
        first = asyncio.ensure_future(proxy.wait())
        await eventually(lambda: thing.begun)
        for _ in range(7):  # more calls than there are numbers
            numbers = range(10_000)
            assert await asyncio.gather(*map(proxy.echo, numbers)) == list(numbers)
        thing.go.set()
        assert await first == "waited"


async def test_a_late_reply_goes_to_nobody_and_the_connection_lives_on() -> None:
    late: list[Any] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        first = await peer.read()
        late.append(first)
        second = await peer.read()
        peer.send(first, "too late")
        peer.send(second, "in time")
        await peer.closed()

    async with fake_server(script) as uri, Proxy(uri) as proxy:
        connection = proxy._connection
        with pytest.raises(errors.CallTimeout) as caught:
            await proxy._call("echo", (1,), timeout_s=0.05)
        assert not caught.value.definite
        assert await proxy.echo(2) == "in time"
        assert proxy._connection is connection


@pytest.mark.parametrize("given_up", ["timed out", "cancelled"])
async def test_a_result_nobody_waits_for_goes_to_who_asked_for_late_ones(given_up: str) -> None:
    late: list[Any] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        calls = [await peer.read() for _ in range(4)]
        peer.send(calls[0], "too late")
        peer.send(calls[1], errors.to_wire(errors.Conflict("no")), flags=wire.FLAG_EXCEPTION)
        peer.send(calls[2], "nobody asked for this one")
        peer.send(calls[3], "in time")
        await peer.closed()

    async with fake_server(script) as uri, Proxy(uri) as proxy:
        timeout_s = 0.05 if given_up == "timed out" else 30.0
        wanted = [proxy._call("echo", (n,), timeout_s=timeout_s, late=late.append) for n in (1, 2)]
        calls = [*map(asyncio.ensure_future, wanted)]
        calls.append(asyncio.ensure_future(proxy._call("echo", (3,), timeout_s=timeout_s)))
        if given_up == "cancelled":
            for call in calls:
                call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await proxy._call("echo", (4,), late=late.append) == "in time"
    assert late == ["too late"]


async def test_a_result_is_not_lost_when_its_task_is_cancelled_as_it_comes() -> None:
    late: list[Any] = []

    async def wait(call: Any) -> Any:
        return await call

    async with fake_server(echo) as uri, Proxy(uri) as proxy:
        call = proxy._call("echo", (1,), late=late.append)
        waiting: list[asyncio.Task[Any]] = []
        asyncio.ensure_future(call).add_done_callback(lambda _: waiting[0].cancel())
        waiting.append(asyncio.create_task(wait(call)))
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert late == [1]
        assert await proxy._call("echo", (2,), late=late.append) == 2
    assert late == [1]


async def test_deadlines_of_calls_in_flight_are_kept_each() -> None:
    async with fake_server(silent) as uri, Proxy(uri) as proxy:
        long = asyncio.ensure_future(proxy._call("echo", (1,), timeout_s=30))
        calls = [proxy._call("echo", (1,), timeout_s=0.05 * n) for n in (2, 1, 3)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in found} == {errors.CallTimeout}
        assert not long.done()
        long.cancel()


async def test_a_cancelled_call_leaves_the_others_alone() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        messages = [await peer.read() for _ in range(3)]
        for message in messages:
            peer.send(message, argument(message))
        await peer.closed()

    async with fake_server(script) as uri, Proxy(uri) as proxy:
        one, two = (asyncio.ensure_future(proxy.echo(number)) for number in (1, 2))
        await asyncio.sleep(0)
        one.cancel()
        assert await proxy.echo(3) == 3
        assert await two == 2
        assert one.cancelled()
        assert not proxy._connection._pending


async def test_a_server_that_never_answers_is_left_for_a_new_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "ABANDONED_MAX", 3)
    async with fake_server(silent, echo) as uri, Proxy(uri) as proxy:
        calls = [proxy._call("echo", (n,), timeout_s=0.02) for n in range(5)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in found} == {errors.CallTimeout}
        assert await proxy.echo("fresh") == "fresh"


async def test_replies_in_any_order_find_their_calls() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        messages = [await peer.read() for _ in range(50)]
        for message in reversed(messages):
            peer.send(message, argument(message))
        await peer.closed()

    async with fake_server(script) as uri, Proxy(uri) as proxy:
        assert await asyncio.gather(*map(proxy.echo, range(50))) == list(range(50))


async def test_a_reply_nobody_asked_for_is_ignored() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        message = await peer.read()
        peer.send(message, "not yours", seq=message.seq + 1000)
        peer.send(message, "yours")
        await peer.closed()

    async with fake_server(script) as uri, Proxy(uri) as proxy:
        assert await proxy.echo(1) == "yours"


async def test_an_unreadable_reply_may_have_happened_and_hurts_no_other_call() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        bad, good = await peer.read(), await peer.read()
        peer.send_bytes(
            wire.encode(wire.MSG_RESULT, bad.serializer_id, 0, bad.seq, b"\xc1 no msgpack")
        )
        peer.send(good, "fine")
        unknown = await peer.read()
        peer.send_bytes(wire.encode(wire.MSG_RESULT, 2, 0, unknown.seq, b"marshal?"))
        raised = await peer.read()
        flags = wire.FLAG_EXCEPTION
        peer.send_bytes(
            wire.encode(wire.MSG_RESULT, raised.serializer_id, flags, raised.seq, b"\x01")
        )
        await peer.closed()

    async with fake_server(script) as uri, Proxy(uri) as proxy:
        bad = asyncio.ensure_future(proxy.echo(1))
        await asyncio.sleep(0)
        assert await proxy.echo(2) == "fine"
        for call in (bad, proxy.echo(3), proxy.echo(4)):
            with pytest.raises(BadReply) as caught:
                await call
            assert not caught.value.definite


async def test_what_cannot_be_serialized_is_not_sent() -> None:
    async with fake_server(echo) as uri, Proxy(uri, serializer="json") as proxy:
        with pytest.raises(TypeError):
            proxy.echo({(1, 2): 3})
        with pytest.raises(errors.InvalidRequest, match="takes at most") as caught:
            proxy.echo("x" * (1 << 20))
        assert caught.value.definite
        assert await proxy.echo("next") == "next"


async def test_a_oneway_call_is_sent_and_not_waited_for() -> None:
    told: list[Any] = []
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        message = await peer.read()
        told.append((argument(message), bool(message.flags & wire.FLAG_ONEWAY)))
        heard.set()
        await peer.closed()

    async with fake_server(script) as uri, Proxy(uri) as proxy:
        assert await proxy.tell("this") is None
        await heard.wait()
        assert told == [("this", True)]
        assert not proxy._connection._pending


async def test_the_deadline_goes_along_to_those_who_heed_it_only() -> None:
    for pipelining in (True, False):
        patience: list[int] = []

        async def script(
            peer: Peer, pipelining: bool = pipelining, patience: list[int] = patience
        ) -> None:
            await peer.greet(pipelining=pipelining)
            message = await peer.read()
            patience.append(message.patience)
            peer.send(message, None)
            await peer.closed()

        async with fake_server(script) as uri, Proxy(uri, timeout_s=4) as proxy:
            await proxy.echo(1)
        assert patience == [400 if pipelining else 0]


async def test_a_server_that_does_not_read_is_not_sent_more_than_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "UNSENT_MAX", 100)

    async def deaf(peer: Peer) -> None:
        await peer.greet()
        peer._reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with fake_server(deaf) as uri, Proxy(uri) as proxy:
        calls: list[Any] = []

        async def flood() -> None:
            for _ in range(1000):
                calls.append(proxy.echo("x" * 500_000))
                await asyncio.sleep(0)

        with pytest.raises(errors.Overloaded):
            await flood()
        await proxy._close()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in found} == {errors.ConnectionLost}


async def test_setting_a_remote_attribute_like_a_local_one_is_refused() -> None:
    proxy = Proxy("PYRO:thing@127.0.0.1:1")
    with pytest.raises(AttributeError, match="_set"):
        proxy.value = 3
    with pytest.raises(AttributeError, match="private"):
        _ = proxy._no_such_thing


async def test_half_a_reply_and_silence_is_a_timeout_and_half_a_reply_and_an_end_a_loss() -> None:
    async def half(peer: Peer) -> None:
        await peer.greet()
        message = await peer.read()
        data = encoded(message, "x" * 1000)
        peer.send_bytes(data[: len(data) // 2])
        if argument(message) == "silence":
            await peer.closed()

    async with fake_server(half) as uri:
        async with Proxy(uri) as proxy:
            with pytest.raises(errors.CallTimeout):
                await proxy._call("echo", ("silence",), timeout_s=0.05)
        async with Proxy(uri) as proxy:
            with pytest.raises(errors.ConnectionLost):
                await proxy.echo("end")


async def test_a_future_survives_the_proxy_that_made_it() -> None:
    thing = Thing()
    async with Daemon() as daemon:
        proxy = Proxy(daemon.register(thing))
        await proxy._bind()
        call = asyncio.ensure_future(proxy.wait())
        await eventually(lambda: thing.begun)
        with pytest.warns(ResourceWarning, match="dropped unclosed"):  # noqa: PT031
            del proxy
            gc.collect()
        thing.go.set()
        assert await call == "waited"
        await eventually(lambda: daemon.stats()["connections"] == 0)


async def _in_a_group(call: Callable[[], Any]) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call())
    return task.result()


AWAITED: list[Callable[[Callable[[], Any]], Any]] = [
    lambda call: asyncio.create_task(call()),
    lambda call: asyncio.ensure_future(call()),
    lambda call: asyncio.wait_for(call(), 10),
    lambda call: asyncio.shield(call()),
    lambda call: asyncio.gather(call()),
    lambda call: next(asyncio.as_completed([call()])),
    _in_a_group,
]


@pytest.mark.parametrize("connected", [False, True])
async def test_a_call_is_taken_by_all_that_asyncio_awaits_with(connected: bool) -> None:
    async with Daemon() as daemon:
        for awaited in AWAITED:
            proxy = Proxy(daemon.register(Thing()))
            if connected:
                await proxy._bind()
            assert await awaited(partial(proxy.echo, 5)) in (5, [5])
            with pytest.raises((ZeroDivisionError, ExceptionGroup)):
                await awaited(partial(proxy.divide, 1, 0))
            await proxy._close()


async def test_a_call_on_a_connected_proxy_is_sent_at_once_and_need_not_be_awaited() -> None:
    thing = Thing()
    async with Daemon() as daemon, Proxy(daemon.register(thing)) as proxy:
        sent = proxy.echo(1)
        assert await proxy.echo(2) == 2
        assert sent.done()
        task = asyncio.create_task(proxy.echo(3))
        task.cancel()  # before it has begun
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await proxy.echo(4) == 4

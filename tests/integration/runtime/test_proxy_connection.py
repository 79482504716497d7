"""The connection of a proxy: made once, made anew, lost, refused, closed, dropped."""

from __future__ import annotations

import asyncio
import functools
import gc
import marshal
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from rmi_runtime import Daemon, Proxy, SyncProxy, errors, expose, wire
from tests.integration.runtime.fake_server import (
    METADATA,
    Peer,
    argument,
    echo,
    fake_server,
    silent,
)
from tests.support import eventually


@expose
class Thing:
    """What is called."""

    def echo(self, value: Any) -> Any:
        return value


async def test_tasks_that_call_at_once_share_one_connection() -> None:
    async with Daemon() as daemon:
        proxy = Proxy(daemon.register(Thing()))
        assert await asyncio.gather(*map(proxy.echo, range(20))) == list(range(20))
        assert daemon.stats()["connections"] == 1
        await proxy._close()


async def test_when_the_task_that_connects_is_cancelled_the_next_one_does() -> None:
    arrived, greet = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        arrived.set()
        await greet.wait()
        await echo(peer)

    async with fake_server(slow) as uri:
        proxy = Proxy(uri)
        first = asyncio.ensure_future(proxy.echo(1))
        second = asyncio.ensure_future(proxy.echo(2))
        await arrived.wait()
        first.cancel()
        greet.set()
        assert await second == 2
        assert first.cancelled()
        await proxy._close()


async def test_closing_while_another_task_connects_leaves_no_connection_behind() -> None:
    arrived, greet, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        arrived.set()
        await greet.wait()
        await peer.greet()
        await peer.closed()
        ended.set()

    async with fake_server(slow) as uri:
        proxy = Proxy(uri)
        calls = [asyncio.ensure_future(proxy.echo(number)) for number in range(3)]
        await arrived.wait()
        await proxy._close()
        greet.set()
        for call in calls:  # also those that wait for the first one to connect
            with pytest.raises(errors.Unavailable, match="closed while it connected"):
                await call
        await ended.wait()
        assert not proxy._connected


async def test_closing_with_calls_in_flight_ends_them_at_once_as_lost() -> None:
    async with fake_server(silent) as uri:
        proxy = Proxy(uri)
        await proxy._bind()
        calls = [asyncio.ensure_future(proxy.echo(number)) for number in range(3)]
        await asyncio.sleep(0)
        await proxy._close()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in found} == {errors.ConnectionLost}


async def test_a_server_that_hangs_up_in_the_middle_loses_only_what_it_did_not_answer() -> None:
    async def half_way(peer: Peer) -> None:
        await peer.greet()
        messages = [await peer.read() for _ in range(10)]
        for message in messages[:5]:
            peer.send(message, argument(message))

    async with fake_server(half_way) as uri, Proxy(uri) as proxy:
        calls = [proxy.echo(number) for number in range(10)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert found[:5] == [0, 1, 2, 3, 4]
        assert {type(error) for error in found[5:]} == {errors.ConnectionLost}
        assert not any(error.definite for error in found[5:] if isinstance(error, errors.RmiError))


async def test_a_call_that_was_sent_is_never_sent_again() -> None:
    received: list[Any] = []

    async def hang_up_on_the_first(peer: Peer) -> None:
        await peer.greet()
        while True:
            message = await peer.read()
            received.append(argument(message))
            if len(received) == 1:
                return
            peer.send(message, "answered")

    async with fake_server(hang_up_on_the_first) as uri, Proxy(uri) as proxy:
        with pytest.raises(errors.ConnectionLost):
            await proxy.echo("one")
        assert await proxy.echo("two") == "answered"
        assert received == ["one", "two"]


async def test_a_connection_that_ended_between_two_calls_is_made_anew_unnoticed() -> None:
    async def one_call_only(peer: Peer) -> None:
        await peer.greet()
        message = await peer.read()
        peer.send(message, argument(message))

    async with fake_server(one_call_only) as uri, Proxy(uri) as proxy:
        for number in range(5):
            assert await proxy.echo(number) == number
            await eventually(lambda: not proxy._connected)


async def test_a_sync_proxy_does_not_notice_it_either() -> None:
    async with Daemon() as daemon:
        uri = daemon.register(Thing())

        def script() -> list[Any]:
            found = []
            with SyncProxy(uri) as proxy:
                found.append(proxy.echo(1))
                asyncio.run_coroutine_threadsafe(hang_up(), loop).result(10)
                found.append(proxy.echo(2))
                proxy._close()
                found.append(proxy.echo(3))
            return found

        async def hang_up() -> None:
            for connection in list(daemon.connections):
                connection.close()
            await eventually(lambda: not daemon.connections)

        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(script) == [1, 2, 3]


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"PYRO" + bytes(60),
        wire.encode(wire.MSG_INVOKE, 4, 0, 1, b"\x01"),
        wire.encode(wire.MSG_RESULT, 4, 0, 1, b"\x01")[:12] + b"\xff" * 28,
    ],
    ids=["http", "zeroes", "a request", "a huge length"],
)
async def test_garbage_ends_the_connection_and_the_next_call_makes_a_new_one(
    garbage: bytes,
) -> None:
    async def talk_nonsense(peer: Peer) -> None:
        await peer.greet()
        await peer.read()
        await peer.read()
        peer.send_bytes(garbage)
        await peer.closed()

    async with fake_server(talk_nonsense, echo) as uri, Proxy(uri) as proxy:
        calls = [proxy.echo(1), proxy.echo(2)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in found} == {errors.ConnectionLost}
        assert await proxy.echo(3) == 3


def _handshake(data: bytes) -> Any:
    async def script(peer: Peer) -> None:
        await peer.read()
        peer.send_bytes(data)
        await peer.closed()

    return script


def _answer(type_: int, serializer: int, payload: bytes, **notes: bytes) -> bytes:
    return wire.encode(type_, serializer, 0, 0, payload, notes)


@pytest.mark.parametrize(
    ("data", "expected", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", errors.Unavailable, "is it a Pyro"),
        (_answer(wire.MSG_CONNECTOK, 4, b"\xc1"), errors.Unavailable, "cannot be read"),
        (_answer(wire.MSG_CONNECTOK, 4, b"\x01"), errors.Unavailable, "makes no sense"),
        (_answer(wire.MSG_CONNECTOK, 4, b"\x80"), errors.Unavailable, "what the object offers"),
        (_answer(wire.MSG_CONNECTOK, 9, b""), errors.Unavailable, "serializer 9"),
        (_answer(wire.MSG_CONNECTOK, 2, b"N"), errors.Unavailable, "serializer 2"),
        (_answer(wire.MSG_RESULT, 4, b"\x01"), errors.Unavailable, "could not connect"),
        (_answer(wire.MSG_CONNECTFAIL, 3, b'"unknown object"'), errors.NotFound, "unknown object"),
        (_answer(wire.MSG_CONNECTFAIL, 3, b'"go away"'), errors.Forbidden, "go away"),
        (
            _answer(wire.MSG_CONNECTFAIL, 2, marshal.dumps("no free workers, increase")),
            errors.Overloaded,
            "no free workers",
        ),
        (
            _answer(wire.MSG_CONNECTFAIL, 3, b'"x"', RMIE=b"unauthenticated"),
            errors.Unauthenticated,
            "rejected: x",
        ),
    ],
    ids=[
        *("no pyro", "unreadable", "not a dictionary", "empty", "unknown serializer", "marshal"),
        *("a result", "unknown object", "refused", "stock out of threads", "our code"),
    ],
)
async def test_a_handshake_that_fails_is_definite_whatever_the_server_says(
    data: bytes, expected: type[errors.RmiError], words: str
) -> None:
    async with fake_server(_handshake(data)) as uri:
        proxy = Proxy(uri, timeout_s=0.3)
        with pytest.raises(expected, match=words) as caught:
            await proxy.echo(1)
        assert caught.value.definite
        assert not proxy._connected


async def test_odd_metadata_is_no_answer() -> None:
    async def odd(peer: Peer) -> None:
        await peer.greet(metadata={**METADATA, "methods": 7})
        await peer.closed()

    async with fake_server(odd) as uri:
        with pytest.raises(errors.Unavailable, match="what the object offers"):
            await Proxy(uri).echo(1)


async def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    async def mute(peer: Peer) -> None:
        await peer.closed()

    async with fake_server(mute) as uri:
        with pytest.raises(errors.Unavailable) as caught:
            await Proxy(uri, timeout_s=0.05).echo(1)
        assert caught.value.definite


async def test_a_server_that_greets_and_hangs_up_at_once_is_an_error() -> None:
    async def rude(peer: Peer) -> None:
        await peer.greet()

    async with fake_server(rude) as uri:
        proxy = Proxy(uri, timeout_s=1)
        with pytest.raises((errors.Unavailable, errors.ConnectionLost)):
            await proxy.echo(1)


async def test_a_proxy_that_is_dropped_closes_its_connection() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.closed()
        ended.set()

    async with fake_server(script) as uri:
        proxy = Proxy(uri)
        await proxy._bind()
        with pytest.warns(ResourceWarning, match="dropped unclosed"):  # noqa: PT031
            del proxy
            gc.collect()
        await asyncio.wait_for(ended.wait(), 10)


async def test_a_proxy_that_was_closed_or_never_used_is_dropped_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    async with Daemon() as daemon:
        uri = daemon.register(Thing())
        async with Proxy(uri) as proxy:
            await proxy.echo(1)
        unused = Proxy(uri)
        del proxy, unused
        gc.collect()
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


async def test_a_thousand_connections_made_and_closed_leave_nothing_behind() -> None:
    async with Daemon() as daemon:
        uri = daemon.register(Thing())

        async def visit(number: int) -> None:
            async with Proxy(uri) as proxy:
                assert await proxy.echo(number) == number

        for start in range(0, 1000, 100):
            await asyncio.gather(*map(visit, range(start, start + 100)))
        await eventually(lambda: daemon.stats()["connections"] == 0)


async def test_a_proxy_from_a_reply_shows_the_token_to_the_same_server_only() -> None:
    here = Proxy("PYRO:thing@127.0.0.1:1", handshake={"token": "secret"})
    here._direct = here._uri
    state = ["PYRO:other@127.0.0.1:1", [], [], [], "hello", None]
    assert here._adopt(state)._handshake == {"token": "secret"}
    for elsewhere in ("127.0.0.1:2", "localhost:1", "127.0.0.11:1"):
        assert here._adopt([f"PYRO:other@{elsewhere}", *state[1:]])._handshake == "hello"


def test_a_proxy_connects_anew_on_the_next_loop_although_nobody_closed_it() -> None:
    """What ``asyncio.run`` twice in one program does."""
    served = threading.Event()
    uris: list[str] = []
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        over = asyncio.Event()
        async with Daemon() as daemon:
            uris.append(str(daemon.register(Thing())))
            loop = asyncio.get_running_loop()
            stop.append(functools.partial(loop.call_soon_threadsafe, over.set))
            served.set()
            await over.wait()

    server = threading.Thread(target=asyncio.run, args=(serve(),))
    server.start()
    assert served.wait(20)
    try:
        proxy = Proxy(uris[0])

        async def use(value: str) -> Any:
            return await asyncio.gather(proxy.echo(value), proxy.echo(value))

        async def leave() -> None:
            assert not proxy._connected
            await proxy._close()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # asyncio's, of the old transport
            assert asyncio.run(use("one")) == ["one", "one"]
            assert asyncio.run(use("two")) == ["two", "two"]
            assert len(proxy._ends) == 1  # nothing of the first loop is kept
            asyncio.run(leave())
            gc.collect()
    finally:
        stop[0]()
        server.join(20)


async def test_the_answer_to_a_handshake_that_was_cancelled_is_nothing_to_warn_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = Proxy("PYRO:thing@127.0.0.1:1")._new_connection()
    greeting = asyncio.ensure_future(connection.greet("thing", "hello", 10.0))
    await asyncio.sleep(0)
    greeting.cancel()
    connection.data_received(wire.encode(wire.MSG_CONNECTOK, 4, 0, 0, b""))
    with pytest.raises(asyncio.CancelledError):
        await greeting
    assert not caplog.records

"""Bad bytes on a raw socket leave the daemon as it was, and a valid client goes on."""

from __future__ import annotations

import asyncio
import gc
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rmi_runtime import Daemon, DaemonLimits, Identity, Proxy, errors, expose, wire
from rmi_runtime.daemon.turns import BURST_BYTES
from tests.attacks import ATTACKS, Attack
from tests.integration.runtime.worker import Worker, address_of
from tests.processes import descriptors
from tests.raw_client import CLOSED, RESULT, SERPENT, RawClient, call, dumps, header, message
from tests.support import eventually

RSS_GROWTH_BYTES_MAX = 64 * 1024 * 1024
CONNECT = message(wire.MSG_CONNECT, dumps(SERPENT, {"handshake": "hello", "object": "target"}))

OF_OUR_OWN = "127.1.2.3"
"""An address on which no test beside this one looks for a service that is gone, whose port we may
have: where refusals are counted to the last, nobody else's shall be among them."""


@expose
class Target:
    """What is attacked."""

    secret = 5

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value

    def repeat(self, text: str, times: int) -> str:
        """Return a long text."""
        return text * times

    async def repeat_later(self, times: int) -> str:
        """Return a long text a little later."""
        await asyncio.sleep(0)
        return "x" * times

    async def later(self, value: Any) -> Any:
        """Return *value* a little later."""
        await asyncio.sleep(0)
        return value


Target.hidden = lambda self: None  # type: ignore[attr-defined]  # not exposed


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with Daemon() as daemon:
        daemon.register(Target(), "target")
        yield daemon


@pytest.fixture
def striker() -> Iterator[ThreadPoolExecutor]:
    """One thread, never a second: a larger pool may start one while another is about to idle."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


async def _state(daemon: Daemon) -> tuple[Any, ...]:
    """Return what must be as before: connections, calls, streams, descriptors, tasks, threads."""
    gc.collect()
    stats = daemon.stats()
    return (
        stats["state"],
        stats["connections"],
        stats["inflight"],
        stats["streams"],
        stats["objects"],
        daemon.connections.ungreeted,
        daemon.connections.partial,
        descriptors(),
        len(asyncio.all_tasks()),
        threading.active_count(),
    )


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_a_bad_input_changes_nothing(
    daemon: Daemon, attack: Attack, striker: ThreadPoolExecutor
) -> None:
    async with Proxy(f"PYRO:target@{daemon.location}") as valid:
        assert await valid.echo(1) == 1
        striker.submit(int).result()  # its only thread is there from now on
        before = await _state(daemon)
        rss_before = _rss_bytes()
        striking = asyncio.wrap_future(striker.submit(attack.strike, address_of(daemon)))
        while not striking.done():
            assert await valid.later("during") == "during"
        assert await striking == attack.outcome

        async def as_before() -> bool:
            assert await _state(daemon) == before
            return True

        await eventually(as_before)
        assert _rss_bytes() - rss_before < RSS_GROWTH_BYTES_MAX
        assert await valid.echo(2) == 2


async def test_every_bad_input_many_times_over_leaves_no_trace(daemon: Daemon) -> None:
    quick = [a for a in ATTACKS if a.name not in ("a client that never reads", "a flood of PINGs")]
    async with Proxy(f"PYRO:target@{daemon.location}") as valid:
        assert await valid.echo(1) == 1

        async def round_of_all() -> None:
            for attack in quick:
                await asyncio.to_thread(attack.strike, address_of(daemon))

        await round_of_all()
        await eventually(lambda: daemon.stats()["connections"] == 1)
        gc.collect()
        fds, rss = descriptors(), _rss_bytes()
        for _ in range(4):
            await round_of_all()

        def as_before() -> bool:
            gc.collect()
            assert daemon.stats()["connections"] == 1
            assert descriptors() <= fds
            assert _rss_bytes() - rss < RSS_GROWTH_BYTES_MAX
            return True

        await eventually(as_before)
        assert await valid.echo(2) == 2


async def test_an_error_leaves_the_connection_usable(daemon: Daemon) -> None:
    def strike() -> list[str]:
        with RawClient(address_of(daemon)) as client:
            client.send(call("_private") + call("echo", 1, seq=2) + call("echo", 1, 2, seq=3))
            client.send(message(wire.MSG_INVOKE, b"x", 77, seq=4) + call("echo", 5, seq=5))
            return [client.outcome() for _ in range(5)]

    assert await asyncio.to_thread(strike) == ["error", "result", "error", "error", "result"]


async def test_what_comes_before_the_bad_bytes_is_answered() -> None:
    async with Daemon() as daemon:
        daemon.register(Target(), "target")

        def strike() -> list[str]:
            with RawClient(address_of(daemon)) as client:
                client.send(call("later", 1) + call("later", 2, seq=2) + b"GET / HTTP/1.1\r\n\r\n")
                return [client.outcome() for _ in range(3)]

        assert await asyncio.to_thread(strike) == ["result", "result", "closed"]


async def test_what_comes_before_the_bad_bytes_is_answered_in_however_many_turns(
    daemon: Daemon,
) -> None:
    def strike() -> list[str]:
        with RawClient(address_of(daemon)) as client:
            calls = [call("repeat", "x", BURST_BYTES, seq=seq) for seq in range(9)]  # a turn each
            client.send(b"".join(calls) + b"GET / HTTP/1.1\r\n\r\n")
            return [client.outcome() for _ in range(10)]

    assert await asyncio.to_thread(strike) == [RESULT] * 9 + [CLOSED]


async def test_calls_sent_with_the_handshake_are_answered_after_it() -> None:
    async def authenticate(handshake: object, peer: object) -> Identity:
        await asyncio.sleep(0)
        return Identity("client", 1, "teller")

    async with Daemon(authenticate=authenticate) as daemon:
        daemon.register(Target(), "target")

        def strike() -> list[str]:
            with RawClient(address_of(daemon), 0) as client:
                client.send(CONNECT + call("echo", 1) + call("later", 2, seq=2))
                return [client.outcome() for _ in range(3)]

        assert await asyncio.to_thread(strike) == [RESULT] * 3


async def test_who_is_refused_is_told_why_and_hung_up_on() -> None:
    async def authenticate(handshake: object, peer: object) -> Identity:
        raise errors.Forbidden("not you")

    async with Daemon(authenticate=authenticate) as daemon:
        daemon.register(Target(), "target")

        def strike() -> list[int | None]:
            with RawClient(address_of(daemon), 0) as client:
                client.send(CONNECT)
                answers = client.receive(), client.receive()
                return [answer and answer.type for answer in answers]

        assert await asyncio.to_thread(strike) == [wire.MSG_CONNECTFAIL, None]


async def test_a_silent_or_half_handshake_is_closed_after_its_time() -> None:
    limits = DaemonLimits(handshake_s=0.1)
    async with Daemon(OF_OUR_OWN, limits=limits) as daemon:
        daemon.register(Target(), "target")
        with RawClient(address_of(daemon), 0) as silent, RawClient(address_of(daemon), 0) as half:
            half.send(header(wire.MSG_CONNECT, size=100) + b"x" * 50)
            await eventually(lambda: daemon.stats()["refusals"] == 2)
            assert await asyncio.to_thread(silent.outcome) == CLOSED
            assert await asyncio.to_thread(half.outcome) == CLOSED


async def test_a_payload_that_drips_in_is_closed_after_its_time() -> None:
    async with Daemon(limits=DaemonLimits(message_s=0.3)) as daemon:
        daemon.register(Target(), "target")

        def drip() -> int:
            request = call("echo", "x" * 10_000)
            with RawClient(address_of(daemon)) as client:
                client.socket.settimeout(0.05)
                for sent in range(len(request)):
                    client.send(request[sent : sent + 1])
                    try:
                        if client.receive() is None:
                            return sent
                    except TimeoutError:
                        continue
                    except OSError:
                        return sent
                return len(request)

        assert await asyncio.to_thread(drip) < 10_000
        assert daemon.stats()["refusals"] == 1


async def test_half_a_message_behind_a_call_that_waited_is_closed_after_its_time() -> None:
    async with Daemon(limits=DaemonLimits(message_s=0.3)) as daemon:
        worker = Worker()
        daemon.register(worker, "target")
        with await asyncio.to_thread(RawClient, address_of(daemon)) as client:
            client.send(call("work", 1) + call("echo", 2, seq=2) + call("echo", 3, seq=3)[:-1])
            await eventually(lambda: worker.begun)
            assert not daemon.connections.partial  # it is not listened to meanwhile
            worker.gate.set()
            outcomes = [await asyncio.to_thread(client.outcome) for _ in range(3)]
            assert outcomes == [RESULT, RESULT, CLOSED]


async def test_a_busy_connection_that_always_ends_in_half_a_message_is_not_closed() -> None:
    async with Daemon(limits=DaemonLimits(message_s=0.3)) as daemon:
        daemon.register(Target(), "target")

        def keep_on() -> int:
            request = call("echo", 1)
            with RawClient(address_of(daemon)) as client:
                client.send(request[:30])
                answered = 0
                while daemon.stats()["uptime_s"] < 1.5:
                    client.send(request[30:] + request[:30])
                    if client.receive() is None:
                        break
                    answered += 1
                return answered if daemon.stats()["uptime_s"] >= 1.5 else -1

        assert await asyncio.to_thread(keep_on) > 0
        assert daemon.stats()["refusals"] == 0


@pytest.mark.parametrize("pipelining", [False, True])
async def test_a_client_that_never_reads_is_not_read_either(pipelining: bool) -> None:
    limits = DaemonLimits(write_buffer_bytes_max=100_000)
    async with Daemon(limits=limits) as daemon:
        daemon.register(Target(), "target")
        rss_before = _rss_bytes()

        def strike() -> int:
            with RawClient(address_of(daemon), pipelining=pipelining) as client:
                client.socket.settimeout(0.5)
                sent = 0
                try:
                    for seq in range(100_000):
                        client.socket.sendall(call("repeat", "x", 100_000, seq=seq & 0xFFFF))
                        sent += 1
                except OSError:
                    pass
                calls = daemon.calls
                assert calls < sent  # most requests wait unread
                assert _rss_bytes() - rss_before < RSS_GROWTH_BYTES_MAX
                client.socket.settimeout(20)
                for _ in range(calls + 50):  # once it reads, it gets all, and more is carried out
                    assert client.outcome() == "result"
                return sent

        assert await asyncio.to_thread(strike) < 100_000
        await eventually(lambda: daemon.stats()["connections"] == 0)


async def test_replies_of_tasks_to_a_client_that_never_reads_are_bounded() -> None:
    limits = DaemonLimits(write_buffer_bytes_max=100_000, unread_bytes_max=1_000_000)
    async with Daemon(OF_OUR_OWN, limits=limits) as daemon:
        daemon.register(Target(), "target")
        client = await asyncio.to_thread(RawClient, address_of(daemon), pipelining=True)
        with client:
            client.send(b"".join(call("repeat_later", 1_000_000, seq=n) for n in range(60)))
            await eventually(lambda: daemon.stats()["refusals"] == 1)
            await eventually(lambda: daemon.stats()["connections"] == 0)

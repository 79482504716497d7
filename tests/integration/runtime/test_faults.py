"""A daemon under many faulty requests: whoever makes them waits, and nobody else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rmi_runtime import Daemon, DaemonLimits, Identity, Proxy, behavior, expose, wire
from rmi_runtime.context import ANONYMOUS, SERVICE
from tests.raw_client import RawClient, call
from tests.support import eventually

BURST = 20
FAULTS = 30
LIMITS = DaemonLimits(faults_per_s=20.0, faults_burst=BURST)
LEAST_S = (FAULTS - BURST - 1) / 20.0
"""How long FAULTS faults take at least, the wait after the last one not counted."""


@expose
class Target:
    """Fails as told."""

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value

    def repeat(self, text: str, times: int) -> str:
        """Return a long text."""
        return text * times

    def fail(self) -> None:
        """Raise."""
        raise AttributeError("of the method's own")


def known(handshake: Any, _: object) -> Identity:
    if handshake == "service":
        return SERVICE
    if isinstance(handshake, int):
        return Identity("client", handshake, "teller")
    if handshake != "hello":
        raise ValueError("unknown here")
    return ANONYMOUS


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with Daemon(limits=LIMITS, authenticate=known) as daemon:
        daemon.register(Target(), "target")
        yield daemon


def uri(daemon: Daemon) -> str:
    return f"PYRO:target@{daemon.location}"


async def took_s(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    await act()
    return time.monotonic() - began


async def faulty(proxy: Proxy, method: str = "_private", *args: Any) -> None:
    for _ in range(FAULTS):
        with pytest.raises(Exception):  # noqa: B017, PT011 (which one depends on the fault)
            await proxy._call(method, args)


@pytest.mark.parametrize(
    ("method", "args"),
    [("_private", ()), ("missing", ()), ("echo", (1, 2, 3)), ("__getattr__", ("__class__",))],
)
async def test_a_stranger_who_makes_many_faults_waits(
    daemon: Daemon, method: str, args: tuple[Any, ...]
) -> None:
    async with Proxy(uri(daemon)) as proxy:
        assert await took_s(lambda: faulty(proxy, method, *args)) >= LEAST_S
        assert await proxy.echo("in the end") == "in the end"


async def test_a_stranger_who_pings_without_end_waits_and_gets_each_answer(daemon: Daemon) -> None:
    host, _, port = daemon.location.rpartition(":")

    def ping_all() -> int:
        with RawClient((host, int(port))) as client:
            client.send(b"".join(wire.encode(wire.MSG_PING, 1, 0, n, b"") for n in range(FAULTS)))
            answers = [client.receive() for _ in range(FAULTS)]
            return sum(one is not None and one.type == wire.MSG_PING for one in answers)

    began = time.monotonic()
    assert await asyncio.to_thread(ping_all) == FAULTS
    assert time.monotonic() - began >= LEAST_S


async def test_faults_under_way_at_once_are_not_cheaper(daemon: Daemon) -> None:
    async with Proxy(uri(daemon)) as proxy:

        async def all_at_once() -> None:
            calls = [proxy._call("_private") for _ in range(FAULTS)]
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in found} == {AttributeError}

        assert await took_s(all_at_once) >= LEAST_S


async def test_new_connections_of_the_same_address_wait_as_well(daemon: Daemon) -> None:
    address = ("127.0.0.1", int(daemon.location.rpartition(":")[2]))

    def strike() -> None:
        for _ in range(FAULTS):
            with RawClient(address, greet=0) as client:
                client.send(b"GET / HTTP/1.1\r\n\r\n" + bytes(40))
                assert client.receive() is None

    assert await took_s(lambda: asyncio.to_thread(strike)) >= LEAST_S


@pytest.mark.parametrize("half", ["of a message", "of the replies read"])
async def test_a_connection_that_ends_half_way_is_a_fault(half: str) -> None:
    def strike(daemon: Daemon) -> None:
        with RawClient(("127.0.0.1", int(daemon.location.rpartition(":")[2]))) as client:
            if half == "of a message":
                client.send(call("echo", 1)[:-1])
            else:
                for seq in range(100):
                    client.send(call("repeat", "x" * 1000, 1000, seq=seq))

    limits = DaemonLimits(faults_per_s=0.001, faults_burst=2)  # none is forgotten meanwhile
    async with Daemon(limits=limits, authenticate=known) as daemon:
        daemon.register(Target(), "target")
        for strikes in range(3):
            assert not daemon.faults.wait_s("127.0.0.1", time.monotonic()), strikes
            await asyncio.to_thread(strike, daemon)
            await eventually(lambda: not daemon.connections)
        assert daemon.faults.wait_s("127.0.0.1", time.monotonic()) > 0


async def test_a_refused_handshake_is_a_fault(daemon: Daemon) -> None:
    async def guess() -> None:
        for _ in range(FAULTS):
            with pytest.raises(Exception, match="unknown here"):
                await Proxy(uri(daemon), handshake="guess")._call("echo", (1,))

    assert await took_s(guess) >= LEAST_S


async def test_clients_and_services_do_not_wait_for_strangers(daemon: Daemon) -> None:
    async with (
        Proxy(uri(daemon)) as stranger,
        Proxy(uri(daemon), handshake=1) as client,
        Proxy(uri(daemon), handshake="service") as service,
    ):
        striking = asyncio.ensure_future(faulty(stranger))
        calls = 0
        while not striking.done():
            assert [await client.echo(calls), await service.echo(calls)] == [calls, calls]
            calls += 1
        await striking
        assert calls > FAULTS, "they were never held"


async def test_one_client_does_not_wait_for_another_and_a_service_for_nobody(
    daemon: Daemon,
) -> None:
    async with (
        Proxy(uri(daemon), handshake=1) as one,
        Proxy(uri(daemon), handshake="service") as service,
    ):
        assert await took_s(lambda: faulty(one)) >= LEAST_S
        assert daemon.faults.wait_s(("client", 2), time.monotonic()) == 0.0
        await faulty(service)
        assert service._connected
        (held,) = [c for c in daemon.connections if c.identity == SERVICE]
        assert not held._held


async def test_what_a_method_raises_is_no_fault(daemon: Daemon) -> None:
    async with Proxy(uri(daemon)) as proxy:
        await faulty(proxy, "fail")
        assert daemon.faults.wait_s("127.0.0.1", time.monotonic()) == 0.0


async def test_refusals_for_lack_of_room_are_no_faults(daemon: Daemon) -> None:
    async with Proxy(uri(daemon)) as proxy:
        daemon.draining = True
        await faulty(proxy, "echo", 1)
        assert daemon.faults.wait_s("127.0.0.1", time.monotonic()) == 0.0


async def test_whoever_hangs_up_while_it_waits_is_forgotten(daemon: Daemon) -> None:
    address = ("127.0.0.1", int(daemon.location.rpartition(":")[2]))

    def strike() -> None:
        with RawClient(address) as client:
            for seq in range(FAULTS):
                client.send(call("_private", seq=seq))

    await asyncio.to_thread(strike)
    async with Proxy(uri(daemon), handshake=3) as proxy:
        assert await proxy.echo(1) == 1


async def test_a_client_does_not_escape_by_connecting_anew(daemon: Daemon) -> None:
    async def strike() -> None:
        for _ in range(FAULTS):
            async with Proxy(uri(daemon), handshake=1) as proxy:
                with pytest.raises(AttributeError):
                    await proxy._call("_private")

    assert await took_s(strike) >= LEAST_S


async def test_faults_in_batches_count(daemon: Daemon) -> None:
    async with Proxy(uri(daemon)) as proxy:

        async def strike() -> None:
            for _ in range(FAULTS):
                calls = [("_private", (), {}), ("echo", (1,), {})]
                assert len(await proxy._call("<batch>", calls, flags=wire.FLAG_BATCH)) == 1

        assert await took_s(strike) >= LEAST_S


async def test_faults_count_where_objects_are_made_on_threads() -> None:
    @expose
    @behavior(instance_mode="percall")
    class Fresh:
        """Made for each call."""

    async with (
        Daemon(limits=LIMITS, threads=1) as daemon,
        Proxy(daemon.register(Fresh)) as proxy,
    ):
        assert await took_s(lambda: faulty(proxy)) >= LEAST_S

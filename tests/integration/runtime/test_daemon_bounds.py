"""The bounds of a daemon: what is over them is refused, and the rest goes on."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest

from rmi_runtime import Daemon, DaemonLimits, Identity, errors, wire
from tests.integration.runtime.worker import Worker, address_of, proxy_of
from tests.raw_client import (
    CLOSED,
    ERROR,
    RESULT,
    SERPENT,
    Address,
    RawClient,
    dumps,
    message,
)
from tests.support import eventually


async def test_past_the_bound_of_a_daemon_calls_are_overloaded_and_pings_are_not(
    worker: Worker,
) -> None:
    async with Daemon(limits=DaemonLimits(inflight_max=2)) as daemon:
        daemon.register(worker, "target")
        async with proxy_of(daemon) as one, proxy_of(daemon) as other:
            working = [asyncio.ensure_future(p.work(1)) for p in (one, other)]
            await eventually(lambda: len(worker.begun) == 2)
            with pytest.raises(errors.Overloaded) as refused:
                await one.work(2)
            assert refused.value.definite
            assert refused.value.fields["retry_after_s"] == 1
            await one._call("ping", object_id="Pyro.Daemon")
            worker.gate.set()
            assert await asyncio.gather(*working) == [1, 1]
            assert await one.work(3) == 3
        assert daemon.stats()["overloads"] == 1


@pytest.mark.parametrize("ending", ["answered", "given up", "hung up"])
async def test_past_the_bound_on_bytes_large_calls_are_overloaded_and_small_ones_are_not(
    worker: Worker, ending: str
) -> None:
    large = "x" * 60_000
    async with Daemon(limits=DaemonLimits(inflight_size_bytes_max=100_000)) as daemon:
        daemon.register(worker, "target")
        async with proxy_of(daemon) as one, proxy_of(daemon) as other:
            patience_s = 1.0 if ending == "given up" else None
            working = asyncio.ensure_future(one._call("work", (large,), timeout_s=patience_s))
            await eventually(lambda: len(worker.begun) == 1)
            with pytest.raises(errors.Overloaded):
                await other.echo(large)
            assert await other.echo("x" * 10_000) == "x" * 10_000
            if ending == "answered":
                worker.gate.set()
                assert await working == large
            elif ending == "hung up":
                await one._close()
            await eventually(lambda: not daemon.dispatcher.running)
            assert daemon.dispatcher.running_size_bytes == 0
            assert await other.echo(large) == large
            await asyncio.gather(working, return_exceptions=True)


async def test_past_the_bound_of_a_connection_its_own_calls_are_overloaded(worker: Worker) -> None:
    async with Daemon(limits=DaemonLimits(connection_inflight_max=2)) as daemon:
        daemon.register(worker, "target")
        async with proxy_of(daemon) as crowded, proxy_of(daemon) as other:
            found = [asyncio.ensure_future(crowded.work(n)) for n in range(3)]
            with pytest.raises(errors.Overloaded):
                await found[2]
            assert await other.echo(1) == 1
            worker.gate.set()
            assert await asyncio.gather(*found[:2]) == [0, 1]


async def test_past_the_bound_of_a_connection_oneway_calls_wait_and_none_is_lost(
    worker: Worker,
) -> None:
    async with Daemon(limits=DaemonLimits(connection_inflight_max=2)) as daemon:
        daemon.register(worker, "target")
        async with proxy_of(daemon) as proxy:
            for number in range(6):
                await proxy.leave_behind(number)
            await eventually(lambda: worker.begun == [0, 1])
            worker.gate.set()
            await eventually(lambda: sorted(worker.finished) == [0, 1, 2, 3, 4, 5])


async def test_one_connection_too_many_is_closed_unless_another_is_silent(worker: Worker) -> None:
    async with Daemon(limits=DaemonLimits(connections_max=2)) as daemon:
        daemon.register(worker, "target")
        with RawClient(address_of(daemon), 0) as silent:
            await eventually(lambda: daemon.stats()["connections"] == 1)
            async with (
                proxy_of(daemon) as one,
                proxy_of(daemon) as other,
            ):  # in the silent one's place
                assert await asyncio.to_thread(silent.outcome) == "closed"
                with pytest.raises(errors.Unavailable):
                    await proxy_of(daemon)._bind()
                assert [await one.echo(1), await other.echo(2)] == [1, 2]
        await eventually(lambda: daemon.stats()["connections"] == 0)
        assert daemon.stats()["refusals"] == 2


def half_a_call(address: Address, client: int) -> RawClient:
    """Return a connection of a client, with a message of 100,000 bytes but for the last one."""
    raw = RawClient(address, 0)
    connect = dumps(SERPENT, {"handshake": client, "object": "target"})
    raw.send(message(wire.MSG_CONNECT, connect))
    assert raw.outcome() == RESULT
    raw.send(message(wire.MSG_INVOKE, b" " * 100_000)[:-1])
    return raw


async def test_whoever_has_most_of_half_messages_makes_way(worker: Worker) -> None:
    def identify(client: object, _: object) -> Identity:
        return Identity("client", int(str(client)))

    limits = DaemonLimits(halves_size_bytes_max=310_000)
    async with Daemon(authenticate=identify, limits=limits) as daemon:
        daemon.register(worker, "target")
        with contextlib.ExitStack() as halves:
            made = [
                halves.enter_context(await asyncio.to_thread(half_a_call, address_of(daemon), who))
                for who in (7, 8, 8, 8, 8)
            ]
            for greedy in made[1:3]:
                assert await asyncio.to_thread(greedy.outcome) == CLOSED
            for left in (made[0], *made[3:]):
                left.send(b" ")  # that makes it a whole one, and none that can be read
                assert await asyncio.to_thread(left.outcome) == ERROR


async def test_strangers_may_send_less_than_those_who_are_known() -> None:
    def identify(handshake: object, _: object) -> Identity:
        return Identity("service") if handshake == "known" else Identity()

    async with Daemon(authenticate=identify) as daemon:
        daemon.register(Worker(), "target")
        async with (
            proxy_of(daemon, handshake="known") as known,
            proxy_of(daemon, serializer="serpent") as stranger,
        ):
            text = "x" * 200_000
            assert await known.echo(text) == text
            assert len(await known.echo([1] * 5000)) == 5000
            with pytest.raises(errors.RmiError):
                await stranger.echo(text)
            with pytest.raises(Pyro5.errors.SerializeError, match="more than 4096 elements"):
                await stranger.echo([1] * 10_000)


async def test_a_reply_that_is_too_large_is_an_error_that_does_not_claim_nothing_happened(
    worker: Worker,
) -> None:
    async with Daemon(limits=DaemonLimits(reply_size_bytes_max=1000)) as daemon:
        daemon.register(worker, "target")
        async with proxy_of(daemon) as proxy:
            with pytest.raises(errors.InternalError, match="at most 1000") as refused:
                await proxy.echo("x" * 2000)
            assert not refused.value.definite
            assert await proxy.echo(1) == 1


async def test_a_batch_past_its_bound_has_no_effect(worker: Worker) -> None:
    async with Daemon(limits=DaemonLimits(batch_max=3)) as daemon:
        daemon.register(worker, "target")
        async with proxy_of(daemon) as proxy:
            batch = proxy._batch()
            for number in range(4):
                batch.work(number)
            with pytest.raises(errors.InvalidRequest, match="at most 3"):
                await batch()
    assert worker.begun == []


@pytest.mark.parametrize("options", [{"annotations": {"NOTE": bytes(50)}}, {"compress": True}])
async def test_a_request_about_as_large_as_the_bound_never_costs_the_connection(
    worker: Worker, options: dict[str, Any]
) -> None:
    noise = random.Random(1).randbytes(10_000)
    async with Daemon(limits=DaemonLimits(message_size_bytes_max=9_000)) as daemon:
        daemon.register(worker, "target")
        async with proxy_of(daemon, **options) as proxy:
            connection, outcomes = proxy._connection, set()
            for size in range(8_900, 9_010, 5):
                try:
                    outcomes.add(await proxy.echo(noise[:size]) == noise[:size])
                except errors.InvalidRequest:
                    outcomes.add(None)
            assert outcomes == {True, None}
            assert proxy._connection is connection

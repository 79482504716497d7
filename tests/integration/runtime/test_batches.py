"""Batches whose results are large, or take their time, or cannot be sent."""

from __future__ import annotations

import asyncio
import threading
import time
import tracemalloc
from typing import Any

import Pyro5.api
import pytest

from rmi_runtime import Daemon, DaemonLimits, Proxy, errors, expose, wire
from rmi_runtime.daemon.turns import ALONE_S
from tests.integration.runtime.worker import address_of, uri_of
from tests.raw_client import SERPENT, RawClient, dumps, message
from tests.support import eventually

SERIALIZERS = ["serpent", "json", "msgpack"]


@expose
class Source:
    """Returns results of all kinds, and counts them."""

    def __init__(self) -> None:
        self.calls = self.turns = self.turns_seen = 0
        self.waits, self.go = asyncio.Event(), asyncio.Event()

    def make(self, size: int) -> str:
        """Return so many characters."""
        self.calls += 1
        return "x" * size

    async def wait(self) -> None:
        """Return when it is time."""
        self.waits.set()
        await self.go.wait()

    def unsendable(self) -> Any:
        """Return what nobody can serialize."""
        self.calls += 1
        return [threading.Lock(), 2**70, {}]

    def stop(self) -> None:
        """Raise what coroutines and futures cannot carry."""
        raise StopIteration(7)

    def fail_at_length(self, size: int) -> None:
        """Raise what has so many characters."""
        raise ValueError("x" * size)

    def fail_unsendably(self) -> None:
        """Raise what nobody can serialize."""
        raise ValueError(threading.Lock())

    def keep_the_loop(self) -> None:
        """Take longer than a turn, and count the turns in which others could do something."""
        self.turns_seen = self.turns
        asyncio.get_running_loop().call_soon(self._count_turn)
        until = time.monotonic() + ALONE_S
        while time.monotonic() < until:
            pass

    def _count_turn(self) -> None:
        self.turns += 1


@pytest.mark.parametrize("serializer", SERIALIZERS)
async def test_a_batch_ends_when_its_reply_would_be_too_large(serializer: str) -> None:
    source = Source()
    async with Daemon(limits=DaemonLimits(reply_size_bytes_max=6_000)) as daemon:
        daemon.register(source, "target")
        async with Proxy(uri_of(daemon), serializer=serializer) as proxy:
            batch = proxy._batch()
            for _ in range(20):
                batch.make(1_000)
            results = await batch()
            assert [next(results) for _ in range(3)] == ["x" * 1_000] * 3
            with pytest.raises(errors.InternalError, match="all that may be sent"):
                next(results)
            assert source.calls == 4  # what nobody will get is not made, nor kept


@pytest.mark.parametrize("serializer", SERIALIZERS)
async def test_an_error_that_is_too_large_costs_no_other_result_of_its_batch(
    serializer: str,
) -> None:
    async with Daemon(limits=DaemonLimits(reply_size_bytes_max=6_000)) as daemon:
        daemon.register(Source(), "target")
        async with Proxy(uri_of(daemon), serializer=serializer) as proxy:
            batch = proxy._batch()
            batch.make(3_000)
            batch.fail_at_length(4_000)
            results = await batch()
            assert next(results) == "x" * 3_000
            with pytest.raises(errors.InternalError, match=r"ValueError.* all that may be sent"):
                next(results)


@pytest.mark.parametrize("serializer", ["serpent", "json"])
async def test_a_batch_of_many_small_results_fits_with_what_separates_them(serializer: str) -> None:
    source = Source()
    async with Daemon(limits=DaemonLimits(reply_size_bytes_max=6_000)) as daemon:
        daemon.register(source, "target")
        async with Proxy(uri_of(daemon), serializer=serializer) as proxy:
            batch = proxy._batch()
            for _ in range(3_000):
                batch.make(0)
            results = await batch()
            assert next(results) == ""
            with pytest.raises(errors.InternalError, match="all that may be sent"):
                list(results)
            assert source.calls < 3_000


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("serializer", SERIALIZERS)
async def test_a_stop_iteration_in_a_batch_is_one_to_stock_clients_too(
    serializer: str, threads: int
) -> None:
    async with Daemon(threads=threads) as daemon:
        daemon.register(Source(), "target")

        def ask() -> None:
            with Pyro5.api.Proxy(uri_of(daemon)) as proxy:
                proxy._pyroSerializer = serializer
                batch = Pyro5.api.BatchProxy(proxy)
                batch.make(1)
                batch.stop()
                results = batch()
                assert next(results) == "x"
                with pytest.raises(RuntimeError) as raised:  # as of any generator
                    next(results)
                assert isinstance(raised.value.__cause__, StopIteration)
                assert raised.value.__cause__.args == (7,)

        await asyncio.to_thread(ask)


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("failing", ["unsendable", "fail_unsendably"])
async def test_what_a_batch_cannot_send_is_an_error_in_its_place(
    failing: str, serializer: str
) -> None:
    source = Source()
    async with Daemon() as daemon:
        daemon.register(source, "target")
        async with Proxy(uri_of(daemon), serializer=serializer) as proxy:
            batch = proxy._batch()
            batch.make(1)
            getattr(batch, failing)()
            results = await batch()
            assert next(results) == "x"
            with pytest.raises(Exception, match="lock"):
                next(results)


async def test_slow_calls_of_a_batch_leave_the_loop_to_others() -> None:
    source = Source()
    async with Daemon() as daemon:
        daemon.register(source, "target")
        async with Proxy(uri_of(daemon)) as proxy:
            batch = proxy._batch()
            for _ in range(20):
                batch.keep_the_loop()
            assert list(await batch()) == [None] * 20
            assert source.turns_seen == 19


async def test_results_of_a_batch_are_not_kept_for_a_client_that_is_gone() -> None:
    source = Source()
    calls = [("make", (1_000_000,), {})] * 20 + [("wait", (), {})]
    request = dumps(SERPENT, ("target", "<batch>", calls, None))
    tracemalloc.start()
    try:
        async with Daemon() as daemon:
            daemon.register(source, "target")
            raw = await asyncio.to_thread(RawClient, address_of(daemon))
            with raw:
                raw.send(message(wire.MSG_INVOKE, request, flags=wire.FLAG_BATCH))
                await source.waits.wait()
                assert tracemalloc.get_traced_memory()[0] > 20_000_000
            await eventually(lambda: tracemalloc.get_traced_memory()[0] < 10_000_000)
            assert daemon.stats()["inflight"], "the call goes on, as with a stock daemon"
            source.go.set()
    finally:
        tracemalloc.stop()

"""Calls that no thread has come to: given up, they are counted and hold nothing, or refused."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rmi_runtime import Daemon, DaemonLimits, Proxy, compat, errors, expose
from rmi_runtime.daemon.dispatch import Request
from tests.support import eventually

PATIENCE_S = 0.05


@expose
class Desk:
    """Has one thread, which can be held up."""

    def __init__(self) -> None:
        self.held, self.gate = threading.Event(), threading.Event()
        self.done: list[Any] = []

    def hold(self) -> None:
        """Take the thread until the gate opens."""
        self.held.set()
        self.gate.wait(30)

    def do(self, what: Any) -> None:
        """Note what was done."""
        self.done.append(what)


@contextlib.asynccontextmanager
async def _held(desk: Desk, **bounds: Any) -> AsyncIterator[tuple[Daemon, str]]:
    """A daemon whose only thread is taken, until this ends."""
    async with Daemon(threads=1, limits=DaemonLimits(**bounds)) as daemon:
        uri = str(daemon.register(desk))
        async with Proxy(uri) as holder:
            holding = asyncio.ensure_future(holder.hold())
            await eventually(desk.held.is_set)
            try:
                yield daemon, uri
            finally:
                desk.gate.set()
            await holding


async def _give_up(daemon: Daemon, proxy: Proxy, what: Any) -> None:
    """Have a call given up that nobody has come to."""
    with pytest.raises(errors.CallTimeout):
        await proxy._call("do", (what,), timeout_s=PATIENCE_S)
    await eventually(lambda: len(daemon.dispatcher.running) == 1)


async def test_what_was_sent_with_them_is_not_kept() -> None:
    desk = Desk()
    async with _held(desk) as (daemon, uri), Proxy(uri) as proxy:
        for _ in range(3):
            await _give_up(daemon, proxy, b"x" * 100_000)
        gc.collect()
        kept = [one for one in gc.get_objects() if type(one) is Request]
        assert sum(len(request.message.payload) for request in kept) < 100_000
    assert desk.done == []


async def test_they_count_until_a_thread_has_come_to_them() -> None:
    desk = Desk()
    async with _held(desk, inflight_max=3) as (daemon, uri), Proxy(uri) as one, Proxy(uri) as other:
        await _give_up(daemon, one, "first")
        await _give_up(daemon, other, "second")
        with pytest.raises(errors.Overloaded) as refused:
            await other.do("third")
        assert refused.value.definite
        assert daemon.stats()["overloads"] == 1
        with pytest.raises(errors.Overloaded):
            await one._call("get_next_stream_item", ("none",), object_id="Pyro.Daemon")
        await one._call("ping", object_id="Pyro.Daemon")
        desk.gate.set()
        await _until_taken(one, "fourth")
    assert desk.done == ["fourth"]


async def test_those_of_one_connection_take_no_room_from_others() -> None:
    desk = Desk()
    bounds = {"connection_inflight_max": 2}
    async with _held(desk, **bounds) as (daemon, uri), Proxy(uri) as one, Proxy(uri) as other:
        await _give_up(daemon, one, "first")
        await _give_up(daemon, one, "second")
        with pytest.raises(errors.Overloaded):
            await one.do("third")
        calling = asyncio.ensure_future(other.do("fourth"))
        await eventually(lambda: len(daemon.dispatcher.running) == 2)
        desk.gate.set()
        await calling
        await _until_taken(one, "fifth")
    assert desk.done == ["fourth", "fifth"]


def _no_threads(patch: pytest.MonkeyPatch) -> None:
    """Have no thread started for a daemon."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("pyro-"):
            raise RuntimeError("can't start new thread")
        real(thread)

    patch.setattr(threading.Thread, "start", start)


async def test_a_client_that_no_thread_can_be_started_for_may_come_again() -> None:
    class Checking(compat.Daemon):
        def validateHandshake(self, conn: Any, data: object) -> object:
            return "welcome"

    checking = Checking(threads=1)
    uri = checking.register(Desk())
    async with checking._serving:
        with pytest.MonkeyPatch.context() as patch:
            _no_threads(patch)
            with pytest.raises(errors.Overloaded, match="rejected"):
                await Proxy(uri)._bind()
        async with Proxy(uri) as proxy:
            await proxy.do("anything")


@pytest.mark.parametrize("dropin", [False, True])
async def test_a_call_that_no_thread_can_be_started_for_is_refused_and_not_done_later(
    dropin: bool,
) -> None:
    desk = Desk()
    daemon = compat.Daemon(threads=1)._serving if dropin else Daemon(threads=1)
    daemon.objects.add(desk, "desk", daemon, force=False, weak=False)
    async with daemon, Proxy(f"PYRO:desk@{daemon.location}") as proxy:
        with pytest.MonkeyPatch.context() as patch:
            _no_threads(patch)
            with pytest.raises(errors.Overloaded):
                await proxy.do("first")
        await proxy.do("second")
    assert desk.done == ["second"]


async def _until_taken(proxy: Proxy, what: Any) -> None:
    """Have something done as soon as there is room for it."""

    async def taken() -> bool:
        try:
            await proxy.do(what)
        except errors.Overloaded:
            return False
        return True

    await eventually(taken)

"""Oneway calls that are larger than what the system takes at once: all of them arrive."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from rmi_runtime import Daemon, Proxy, SyncProxy, errors, expose, oneway
from tests.support import eventually, sync_eventually

LARGE = "x" * 7_000_000  # two of them are more than the system keeps for two sockets

BOTH_LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


@expose
class Notes:
    def __init__(self) -> None:
        self.noted: list[str] = []
        self.reads_on = threading.Event()

    @oneway
    def note(self, name: str, text: str = "") -> None:
        self.noted.append(name)

    @oneway
    def stop_to_read(self) -> None:
        self.reads_on.wait(20)


@BOTH_LOOPS
def test_what_waits_as_a_proxy_is_closed_is_sent_first(
    new_loop: NewLoop,
) -> None:
    async def fill_and_close() -> None:
        notes = Notes()
        async with Daemon() as daemon:
            async with Proxy(daemon.register(notes)) as proxy:
                await asyncio.gather(proxy.note("first", LARGE), proxy.note("second", LARGE))
                await asyncio.sleep(0)  # they leave in the next turn of the loop
                assert proxy._connection is not None
                assert proxy._connection._paused
                await proxy.note("last")
            await eventually(lambda: notes.noted == ["first", "second", "last"])

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(fill_and_close())


@pytest.fixture
def served() -> Iterator[tuple[str, Notes]]:
    """A URI, and what is called there, by a daemon in a thread of its own."""
    notes, uris, over = Notes(), queue.SimpleQueue[str](), threading.Event()

    async def serve() -> None:
        async with Daemon() as daemon:
            uris.put(str(daemon.register(notes)))
            await eventually(over.is_set, timeout_s=60)

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(asyncio.run, serve())
        try:
            yield uris.get(timeout=10), notes
        finally:
            notes.reads_on.set()
            over.set()
            serving.result(20)


@BOTH_LOOPS
def test_those_before_the_end_of_a_loop_arrive(
    served: tuple[str, Notes], new_loop: NewLoop
) -> None:
    uri, notes = served

    async def tell() -> None:
        async with Proxy(uri) as proxy:
            for name in "abcd":
                await proxy.note(name, LARGE)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(tell())
    sync_eventually(lambda: notes.noted == list("abcd"))


def test_one_of_a_script_arrives_though_its_loop_rests(served: tuple[str, Notes]) -> None:
    uri, notes = served
    with SyncProxy(uri) as proxy:
        proxy.note("call", LARGE)
        sync_eventually(lambda: notes.noted == ["call"])
        batch = proxy._batch()
        batch.note("batch", LARGE)
        batch(oneway=True)
        sync_eventually(lambda: notes.noted == ["call", "batch"])


def test_those_before_the_end_of_a_script_arrive(served: tuple[str, Notes]) -> None:
    uri, notes = served
    with SyncProxy(uri) as proxy:
        for name in "abcd":
            proxy.note(name, LARGE)
    sync_eventually(lambda: notes.noted == list("abcd"))


def test_a_script_is_told_of_one_that_is_not_read_in_time(served: tuple[str, Notes]) -> None:
    uri, notes = served
    with SyncProxy(uri) as proxy:

        def fill() -> None:
            for name in "abcd":
                proxy._call("note", (name, LARGE), timeout_s=0.1)

        proxy.stop_to_read()
        with pytest.raises(errors.CallTimeout, match="not read all of a oneway call"):
            fill()
        notes.reads_on.set()
        proxy.note("next")
        sync_eventually(lambda: notes.noted[-1:] == ["next"])

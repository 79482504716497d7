"""Oneway calls that are larger than what the system takes at once: all of them arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from rmi_runtime import Daemon, Proxy, expose, oneway
from tests.support import eventually

LARGE = "x" * 7_000_000  # two of them are more than the system keeps for two sockets


@expose
class Notes:
    def __init__(self) -> None:
        self.noted: list[str] = []

    @oneway
    def note(self, name: str, text: str = "") -> None:
        self.noted.append(name)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_waits_as_a_proxy_is_closed_is_sent_first(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
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

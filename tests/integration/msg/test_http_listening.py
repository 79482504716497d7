"""The HTTP server's sockets: how listening begins, and how it ends."""

from __future__ import annotations

import asyncio

import pytest

from rmi_runtime import errors
from rmi_runtime.http import listen
from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, head, serving

pytestmark = BOTH_EVENT_LOOPS


async def test_draining_finishes_what_is_under_way_and_closes_the_rest() -> None:
    async with serving() as place:
        idle, busy = await place.connect(), await place.connect()
        await (await idle.send(GOOD)).answer()
        await busy.send(head("GET", "/slow"))
        await place.app.entered.wait()
        drained = asyncio.create_task(place.server.drain(5))
        assert await idle.rest() == b""
        with pytest.raises(ConnectionError):
            await place.connect()
        place.app.hold.set()
        answer = await busy.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await drained is True


async def test_draining_gives_up_after_its_time() -> None:
    async with serving() as place:
        busy = await place.connect()
        await busy.send(head("GET", "/slow"))
        await place.app.entered.wait()
        assert await place.server.drain(0.05) is False


async def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with (
        listen("127.0.0.1", 0) as taken,
        pytest.raises(errors.Unavailable, match=r"in use.*choose another port"),
    ):
        listen("127.0.0.1", taken.getsockname()[1])


async def test_several_sockets_share_a_port_if_all_say_so() -> None:
    with listen("127.0.0.1", 0, reuse_port=True) as one:
        address = one.getsockname()
        with listen(*address, reuse_port=True) as other:
            assert other.getsockname() == address


async def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(errors.Unavailable, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0)

"""Clients that are long in asking: what they get, and that nobody waits for them."""

from __future__ import annotations

import asyncio

from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, head, serving, still_serves
from tests.support import eventually

pytestmark = BOTH_EVENT_LOOPS


async def test_headers_that_drip_are_408() -> None:
    async with serving(head_wait_s=0.2) as place:
        connection = await place.connect()
        await connection.send(b"GET / HTTP/1.1\r\nHost: ba")
        answer = await connection.answer()
        assert (answer.status, answer.problem["code"]) == (408, "request_timeout")
        assert await connection.rest() == b""
        await still_serves(place)


async def test_dripping_on_does_not_put_the_408_off() -> None:
    async with serving(head_wait_s=0.3) as place:
        connection = await place.connect()
        answered = asyncio.create_task(connection.answer())
        while not answered.done():
            await connection.send(b"X")
            await asyncio.wait([answered], timeout=0.02)
        assert answered.result().status in {400, 408}
        await still_serves(place)


async def test_a_silent_new_connection_is_408() -> None:
    async with serving(head_wait_s=0.2) as place:
        assert (await (await place.connect()).answer()).status == 408


async def test_a_body_that_drips_is_408_and_has_no_effect() -> None:
    async with serving(body_wait_s=0.2) as place:
        answer = await place.ask(head("POST", "/", "Content-Length: 10"), b"hello")
        assert answer.status == 408
        assert place.app.seen == []
        await eventually(lambda: place.server.bodies_size_bytes == 0)


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with serving(idle_wait_s=0.2) as place:
        connection = await place.connect()
        assert (await (await connection.send(GOOD)).answer()).status == 200
        assert await connection.rest() == b""


async def test_slow_clients_do_not_hold_up_others() -> None:
    async with serving() as place:
        for _ in range(200):
            await (await place.connect()).send(b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 9")
        await still_serves(place)

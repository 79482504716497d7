"""Clients that send very many requests at once, and how far the HTTP server reads ahead."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest

from rmi_runtime.http import Answer
from rmi_runtime.http.direct import DirectExchange, DirectRoute, DirectRoutes
from rmi_runtime.http.exchange import Exchange
from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, Place, Raw, head, serving
from tests.support import eventually

pytestmark = BOTH_EVENT_LOOPS

COUNT = 1000
HELD_MAX = 200  # requests of one connection that may be held, read and not begun


def routes(seen: list[bytes]) -> DirectRoutes:
    """A route with a door of its own, which answers with the body."""

    async def respond(headers: Any, body: bytes) -> Answer:
        seen.append(body)
        return Answer(body)

    return {(b"POST", b"/direct"): DirectRoute("POST", "/direct", respond)}


def post(path: str, body: bytes, *lines: str) -> bytes:
    return head("POST", path, f"Content-Length: {len(body)}", *lines) + body


def mixed(count: int) -> list[bytes]:
    """Requests through both doors, small and larger."""
    ways = (
        lambda n: head("GET", f"/{n}"),
        lambda n: post("/direct", b"%d" % n),
        lambda n: post(f"/{n}", bytes(5000)),
    )
    return [ways[n % 3](n) for n in range(count)]


def held() -> int:
    """Return how many requests there are anywhere in this process."""
    # Not isinstance(): a weak proxy of something that is gone would raise.
    return sum(type(each) in (Exchange, DirectExchange) for each in gc.get_objects())


async def expect_mixed(connection: Raw, count: int) -> None:
    for n in range(count):
        answer = await connection.answer()
        assert answer.status == 200
        assert "connection" not in answer.headers
        told = json.loads(answer.body)
        assert told == n if n % 3 == 1 else told["path"] == f"/{n}"


async def begin_slow(place: Place) -> Raw:
    connection = await place.connect()
    await connection.send(head("GET", "/slow"))
    await place.app.entered.wait()
    return connection


async def test_a_thousand_requests_sent_at_once_are_all_answered_in_order() -> None:
    seen: list[bytes] = []
    async with serving(direct=routes(seen)) as place:
        connection = await place.connect()
        sending = asyncio.ensure_future(connection.send(*mixed(COUNT), GOOD))
        await expect_mixed(connection, COUNT)
        await sending
        assert json.loads((await connection.answer()).body)["path"] == "/good"
        assert seen == [b"%d" % n for n in range(COUNT) if n % 3 == 1]
        assert len(place.app.seen) == COUNT - len(seen) + 1
        assert (await (await connection.send(GOOD)).answer()).status == 200


async def test_what_waits_for_an_answer_is_not_read_into_requests() -> None:
    async with serving() as place:
        connection = await begin_slow(place)
        before = held()
        sending = asyncio.ensure_future(
            connection.send(*(head("GET", f"/{n}") for n in range(COUNT)))
        )
        await eventually(lambda: held() > before)
        assert held() < before + HELD_MAX
        assert [path for _, path, _ in place.app.seen] == ["/slow"]
        place.app.hold.set()
        for path in ("/slow", *(f"/{n}" for n in range(COUNT))):
            assert json.loads((await connection.answer()).body)["path"] == path
        await sending


async def test_who_sends_for_ever_and_never_reads_gets_little_begun_and_is_cut_off() -> None:
    body = bytes(60_000)

    async def respond(headers: Any, _: bytes) -> Answer:
        begun.append(1)
        return Answer(body)

    begun: list[int] = []
    direct = {(b"GET", b"/much"): DirectRoute("GET", "/much", respond)}
    async with serving(direct=direct, write_wait_s=0.5) as place:
        connection = await place.connect()
        connection.writer.transport.pause_reading()
        before = held()
        sending = asyncio.ensure_future(connection.send(head("GET", "/much") * 20_000))
        await eventually(lambda: any(each.writing_paused for each in place.server.connections))
        assert held() < before + HELD_MAX
        await eventually(lambda: not place.server.connections)
        assert len(begun) * len(body) < 50_000_000  # what the sockets' buffers take, and no more
        await sending


async def test_requests_behind_a_wish_for_a_close_are_dropped_and_the_answers_arrive() -> None:
    async with serving() as place:
        connection = await begin_slow(place)
        last = head("GET", "/last", "Connection: close")
        sending = asyncio.ensure_future(connection.send(head("GET", "/first"), last, GOOD * COUNT))
        place.app.hold.set()
        for path in ("/slow", "/first", "/last"):
            answer = await connection.answer()
            assert json.loads(answer.body)["path"] == path
        assert answer.headers["connection"] == "close"
        assert await connection.rest() == b""
        assert len(place.app.seen) == 3
        await sending


@pytest.mark.parametrize("good", [1, 10, 100, 1000])
async def test_a_malformed_request_behind_many_good_ones_is_refused_in_its_turn(good: int) -> None:
    async with serving() as place:
        connection = await place.connect()
        paths = [f"/{n}" for n in range(good)]
        sending = asyncio.ensure_future(
            connection.send(*(head("GET", path) for path in paths), b"NO HTTP\r\n\r\n", GOOD)
        )
        for path in paths:
            assert json.loads((await connection.answer()).body)["path"] == path
        assert (await connection.answer()).status == 400
        assert await connection.rest() == b""
        assert [path for _, path, _ in place.app.seen] == paths
        await sending


async def test_a_server_that_drains_begins_nothing_that_it_holds() -> None:
    async with serving() as place:
        connection = await begin_slow(place)
        before = held()
        sending = asyncio.ensure_future(connection.send(GOOD * COUNT))
        await eventually(lambda: held() > before)
        draining = asyncio.ensure_future(place.server.drain(10))
        await eventually(lambda: place.server.draining)
        place.app.hold.set()
        assert (await connection.answer()).headers["connection"] == "close"
        assert await connection.rest() == b""
        assert await draining
        assert len(place.app.seen) == 1
        await sending


async def test_all_that_is_read_ahead_has_a_bound_and_what_is_beyond_is_503() -> None:
    ahead = b"".join(head("GET", f"/{n}", f"X: {'x' * 1000}") for n in range(20))
    async with serving(ahead_size_bytes_max=30_000) as place:
        first, second = await begin_slow(place), await begin_slow(place)
        await first.send(ahead)
        await eventually(lambda: place.server.ahead.size_bytes > 0)
        await second.send(ahead)
        await eventually(lambda: any(each._refusal for each in place.server.connections))
        place.app.hold.set()
        for path in ("/slow", *(f"/{n}" for n in range(20))):
            assert json.loads((await first.answer()).body)["path"] == path
        while (answer := await second.answer()).status == 200:
            pass
        assert (answer.status, answer.problem["code"]) == (503, "overloaded")
        assert answer.problem["definite"]
        assert await second.rest() == b""
        assert sum(path == "/19" for _, path, _ in place.app.seen) == 1
        assert place.server.ahead.size_bytes == 0
        again = await place.connect()
        await again.send(ahead)
        for n in range(20):
            assert json.loads((await again.answer()).body)["path"] == f"/{n}"


async def test_what_a_lost_connection_has_sent_ahead_counts_no_more() -> None:
    async with serving() as place:
        gone = await begin_slow(place)
        sending = asyncio.ensure_future(gone.send(GOOD * COUNT))
        await eventually(lambda: place.server.ahead.size_bytes > 0)
        for connection in place.server.connections:
            connection.transport.abort()
        await eventually(lambda: place.server.ahead.size_bytes == 0)
        await sending


async def test_what_was_sent_ahead_is_counted_back_exactly_once() -> None:
    async with serving() as place:
        connection = await place.connect()
        for _ in range(3):
            sending = asyncio.ensure_future(connection.send(GOOD * COUNT))
            for _ in range(COUNT):
                assert (await connection.answer()).status == 200
            await sending
        place.hang_up()
        await eventually(lambda: not place.server.connections)
        assert place.server.ahead.size_bytes == 0

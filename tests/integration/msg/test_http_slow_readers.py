"""Clients that ask for much and do not read it: what they may make the HTTP server hold."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from rmi_runtime.http import Answer, HttpLimits
from rmi_runtime.http.direct import DirectRoute, Respond
from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, Place, Raw, head, serving
from tests.support import eventually

pytestmark = BOTH_EVENT_LOOPS

SIZE_BYTES = 20_000_000  # more than two sockets' buffers take


async def much(scope, receive, send) -> None:
    """Answer with one large body, named by the request's path."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = scope["path"].encode() + bytes(SIZE_BYTES)
    await send({"type": "http.response.body", "body": body})


async def deaf(place: Place) -> Raw:
    """Connect and read nothing."""
    connection = await place.connect()
    connection.writer.transport.pause_reading()
    return connection


def unread_bytes(place: Place) -> int:
    return sum(c.unread_bytes for c in place.server.connections)


def paused(place: Place) -> int:
    return sum(c.writing_paused for c in place.server.connections)


@pytest.mark.parametrize("door", ["the application", "direct"])
async def test_pipelined_requests_wait_while_their_client_reads_nothing(door: str) -> None:
    begun = []

    async def app(scope, receive, send) -> None:
        begun.append(scope["path"])
        await much(scope, receive, send)

    def respond(path: str) -> Respond:
        async def answer(headers, body) -> Answer:
            begun.append(path)
            return Answer(path.encode() + bytes(SIZE_BYTES))

        return answer

    paths = [f"/{n}" for n in range(3)]
    routes = {
        (b"GET", path.encode()): DirectRoute("GET", path, respond(path))
        for path in paths
        if door == "direct"
    }
    async with serving(app, routes) as place:
        connection = await deaf(place)
        await connection.send(*(head("GET", path) for path in paths))
        await eventually(lambda: paused(place) == 1)
        await eventually(lambda: place.server.under_way == 0)
        assert begun == ["/0"]
        assert unread_bytes(place) <= SIZE_BYTES + 1000
        connection.writer.transport.resume_reading()
        for path in paths:
            assert (await connection.answer()).body.startswith(path.encode() + b"\0")
        assert begun == paths
        assert (await (await connection.send(GOOD)).answer()).status == 200


async def test_what_all_clients_leave_unread_has_a_bound_and_the_slowest_make_way() -> None:
    async with serving() as place:
        place.server.app = much
        slow = []
        for _ in range(4):
            slow.append(await (await deaf(place)).send(GOOD))
            asked = len(slow)
            await eventually(lambda asked=asked: paused(place) == asked)
        place.server.limits = HttpLimits(unread_size_bytes_max=2 * SIZE_BYTES)
        place.server.sweep()
        await eventually(lambda: 0 < unread_bytes(place) <= 2 * SIZE_BYTES)
        late = slow[-1]
        late.writer.transport.resume_reading()
        assert (await late.answer()).body.startswith(b"/good")


async def test_a_client_that_never_reads_is_cut_off() -> None:
    async with serving(write_wait_s=0.2, idle_wait_s=5) as place:
        connection = await place.connect()
        connection.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 4096
        )
        connection.writer.transport.pause_reading()

        async def pour(scope, receive, send) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})

        place.server.app = pour
        await connection.send(GOOD)
        await eventually(lambda: place.server.under_way == 1)
        await eventually(lambda: not place.server.connections)
        await eventually(lambda: place.server.under_way == 0)


@pytest.mark.parametrize(("parts", "size"), [(200, 65_536), (1, 20_000_000)])
async def test_a_client_that_reads_late_gets_all_and_may_go_on(parts: int, size: int) -> None:
    async def pour(scope, receive, send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(1, parts + 1):
            part = {"type": "http.response.body", "body": bytes(size), "more_body": n < parts}
            await send(part)

    async with serving() as place:
        place.server.app = pour
        connection = await place.connect()
        connection.writer.transport.pause_reading()
        await connection.send(GOOD)
        await eventually(lambda: any(c.writing_paused for c in place.server.connections))
        connection.writer.transport.resume_reading()
        assert len((await connection.answer()).body) == parts * size
        assert (await (await connection.send(GOOD)).answer()).status == 200


@pytest.mark.parametrize("half_closed", [False, True])
async def test_the_end_of_a_long_answer_leaves_no_traceback(half_closed: bool) -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    async with serving() as place:
        place.server.app = much
        connection = await deaf(place)
        await connection.send(head("GET", "/", "Connection: close"))
        if half_closed:
            connection.writer.write_eof()
        await eventually(lambda: any(c.ending for c in place.server.connections))
        connection.writer.transport.resume_reading()
        assert len((await connection.answer()).body) > SIZE_BYTES
        assert await connection.rest() == b""
        connection.writer.close()
        await eventually(lambda: not place.server.connections)
    assert logged == []

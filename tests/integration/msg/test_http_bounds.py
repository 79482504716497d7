"""How much the HTTP server takes: of one body or head, of connections, of all together."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from rmi_runtime.http import Answer
from rmi_runtime.http.direct import DirectRoute, DirectRoutes
from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, Echo, head, serving, still_serves
from tests.support import eventually

pytestmark = BOTH_EVENT_LOOPS


async def test_an_announced_body_over_the_bound_is_413_before_it_is_sent() -> None:
    async with serving(body_size_bytes_max=1000) as place:
        answer = await place.ask(head("POST", "/", "Content-Length: 1001"))
        assert (answer.status, answer.problem["code"]) == (413, "body_too_large")
        assert place.app.seen == []


async def test_an_announced_length_too_large_to_be_counted_is_413_like_others() -> None:
    async with serving() as place:
        answer = await place.ask(head("POST", "/", f"Content-Length: {10**20}"))
        assert (answer.status, answer.problem["code"]) == (413, "body_too_large")
        assert place.app.seen == []


async def test_a_client_that_sends_all_of_a_large_body_first_still_reads_the_413() -> None:
    def send_all_and_read(address: tuple[str, int]) -> bytes:
        with socket.socket() as sock:
            sock.settimeout(10)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # or it would hold it all
            sock.connect(address)
            size = 7_000_000
            sock.sendall(head("POST", "/", f"Content-Length: {size}") + bytes(size))
            return sock.recv(65536)

    async with serving(body_size_bytes_max=1000) as place:
        got = await asyncio.to_thread(send_all_and_read, place.server.address)
        assert got.startswith(b"HTTP/1.1 413 ")


async def test_a_body_of_exactly_the_bound_is_taken() -> None:
    async with serving(body_size_bytes_max=1000) as place:
        answer = await place.ask(head("POST", "/", "Content-Length: 1000"), bytes(1000))
        assert answer.status == 200
        assert place.app.seen[0][2] == bytes(1000)


async def test_chunks_that_add_up_to_more_than_the_bound_are_cut_off() -> None:
    async with serving(body_size_bytes_max=1000) as place:
        connection = await place.connect()
        await connection.send(head("POST", "/", "Transfer-Encoding: chunked"))
        for _ in range(11):
            await connection.send(b"64\r\n", b"x" * 100, b"\r\n")
        answer = await connection.answer()
        assert answer.status == 413
        assert place.app.seen == []


async def test_tiny_chunks_and_trailers_cannot_be_sent_for_ever() -> None:
    async with serving(body_size_bytes_max=100, head_size_bytes_max=1000) as place:
        connection = await place.connect()
        await connection.send(head("POST", "/", "Transfer-Encoding: chunked"), b"0\r\nTrailer: ")
        for _ in range(4):
            await connection.send(b"x" * 1000)
        assert (await connection.answer()).status == 413


@pytest.mark.parametrize("begun", [b"0\r\nX: ", b"5\r\nhello\r\n0\r\nX: ", b"5;x="])
async def test_what_is_no_body_behind_or_between_its_chunks_has_the_bound_of_a_head(
    begun: bytes,
) -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("POST", "/", "Transfer-Encoding: chunked"), begun)
        await connection.send(b"x" * 40_000)
        answer = await connection.answer()
        assert (answer.status, answer.problem["code"]) == (413, "body_too_large")
        assert place.app.seen == []
        await still_serves(place)


async def test_trailers_within_the_bound_are_taken_behind_a_large_body() -> None:
    async with serving() as place:
        body = b"%x\r\n%b\r\n" % (500_000, bytes(500_000)) * 2
        trailer = b"0\r\nX: %b\r\n\r\n" % (b"x" * 32_000)
        answer = await place.ask(head("POST", "/", "Transfer-Encoding: chunked"), body, trailer)
        assert answer.status == 200
        assert len(place.app.seen[0][2]) == 1_000_000


async def test_a_head_behind_another_request_may_be_as_long_as_any() -> None:
    async with serving() as place:
        connection = await place.connect()
        long = head("GET", "/long", f"X: {'x' * 32_000}")
        await connection.send(head("GET", "/", f"X: {'x' * 3900}") + long[:31_000])
        assert (await connection.answer()).status == 200
        assert (await (await connection.send(long[31_000:])).answer()).status == 200


async def test_a_head_behind_another_request_may_be_no_longer_than_any() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(GOOD + head("GET", "/", f"X: {'x' * 33_000}"))
        assert (await connection.answer()).status == 200
        assert (await connection.answer()).status == 431


async def test_a_body_too_large_is_refused_instead_of_continued() -> None:
    async with serving(body_size_bytes_max=10) as place:
        answer = await place.ask(head("POST", "/", "Content-Length: 11", "Expect: 100-continue"))
        assert answer.status == 413


@pytest.mark.parametrize(
    "request_bytes",
    [
        head("GET", "/", "X: " + "a" * 40_000),
        head("GET", "/", *(f"X{n}: {'a' * 400}" for n in range(90))),
        head("GET", "/", *(f"X{n}: a" for n in range(101))),
        b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000,
    ],
    ids=["one long header", "many long headers", "many short headers", "a header without end"],
)
async def test_a_head_over_the_bounds_is_431(request_bytes: bytes) -> None:
    async with serving() as place:
        answer = await place.ask(request_bytes)
        assert (answer.status, answer.problem["code"]) == (431, "head_too_large")
        assert place.app.seen == []
        await still_serves(place)


@pytest.mark.parametrize(("size_bytes", "status"), [(1000, 200), (1001, 431)])
async def test_a_head_of_exactly_the_bound_is_taken(size_bytes: int, status: int) -> None:
    counted = len("/") + len("Host") + len("bank") + 4 + len("X") + 4  # as the bound counts
    async with serving(head_size_bytes_max=1000) as place:
        answer = await place.ask(head("GET", "/", f"X: {'a' * (size_bytes - counted)}"))
        assert answer.status == status


async def test_a_head_request_is_refused_without_a_body() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("HEAD", "/", f"X: {'x' * 40_000}"))
        refusal = await connection.rest()
        assert refusal.startswith(b"HTTP/1.1 431 ")
        assert refusal.endswith(b"\r\n\r\n")
        assert b"content-length: 0" not in refusal


async def test_a_target_over_the_bound_is_414() -> None:
    async with serving() as place:
        answer = await place.ask(head("GET", "/" + "a" * 9000))
        assert (answer.status, answer.problem["code"]) == (414, "target_too_long")


async def test_a_target_over_the_bound_is_414_too_if_it_comes_in_pieces() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(b"GET /")
        for _ in range(5):
            await connection.send(b"a" * 8000)
        assert (await connection.answer()).problem["code"] == "target_too_long"


async def test_a_head_within_the_bounds_is_taken_though_a_large_body_comes_with_it() -> None:
    async with serving() as place:
        assert (
            await place.ask(head("POST", "/", "Content-Length: 200000"), bytes(200_000))
        ).status == 200


async def test_more_connections_than_the_bound_are_503_and_room_is_given_back() -> None:
    async with serving(connections_max=2, silent_s_min=60.0) as place:
        first, second = await place.connect(), await place.connect()
        await eventually(lambda: len(place.server.connections) == 2)
        answer = await (await place.connect()).answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        first.writer.close()
        second.writer.close()
        await eventually(lambda: not place.server.connections)
        await still_serves(place)


async def test_silent_connections_give_way_to_new_ones_oldest_first() -> None:
    async with serving(connections_max=3, silent_s_min=0.0) as place:
        busy = await place.connect()
        await busy.send(head("GET", "/slow"))
        await place.app.entered.wait()
        silent, asking = await place.connect(), await place.connect()
        await asking.send(b"GET / HT")
        await eventually(lambda: len(place.server.connections) == 3)
        await still_serves(place)
        assert await silent.rest() == b""
        assert (await (await asking.send(b"TP/1.1\r\nHost: bank\r\n\r\n")).answer()).status == 200
        place.app.hold.set()
        assert (await busy.answer()).status == 200


async def test_who_has_answers_to_come_is_never_sent_away() -> None:
    async with serving(connections_max=1, silent_s_min=0.0) as place:
        busy = await place.connect()
        await busy.send(head("GET", "/slow"))
        await place.app.entered.wait()
        assert (await (await place.connect()).answer()).status == 503
        place.app.hold.set()
        assert (await busy.answer()).status == 200


async def test_large_bodies_together_have_a_bound() -> None:
    async with serving(bodies_size_bytes_max=1500, small_body_size_bytes=0) as place:
        waiting = await place.connect()
        await waiting.send(head("POST", "/", "Content-Length: 1000"), bytes(999))
        await eventually(lambda: place.server.bodies_size_bytes == 999)
        answer = await place.ask(head("POST", "/", "Content-Length: 1000"))
        assert (answer.status, answer.problem["code"]) == (503, "overloaded")
        assert (await (await waiting.send(b"x")).answer()).status == 200
        assert place.server.bodies_size_bytes == 0


def _slow_route(app: Echo) -> DirectRoutes:
    async def respond(headers: Any, body: bytes) -> Answer:
        await app.hold.wait()
        return Answer(body)

    return {(b"POST", b"/direct"): DirectRoute("POST", "/direct", respond)}


@pytest.mark.parametrize("path", ["/slow", "/direct"])
async def test_large_bodies_count_until_they_are_answered(path: str) -> None:
    app = Echo()
    large = head("POST", path, "Content-Length: 1000") + bytes(1000)
    limits = {"bodies_size_bytes_max": 1050, "small_body_size_bytes": 100}
    async with serving(app, _slow_route(app), **limits) as place:
        first = await place.connect()
        await first.send(large)
        await eventually(lambda: place.server.under_way == 1)
        refused = await place.ask(head("POST", "/", "Content-Length: 1000"))
        assert (refused.status, refused.problem["code"]) == (503, "overloaded")
        chunked = head("POST", "/", "Transfer-Encoding: chunked")
        assert (await place.ask(chunked, b"258\r\n", bytes(600))).status == 503
        small = await place.ask(head("POST", "/", "Content-Length: 100"), bytes(100))
        assert small.status == 200
        slow = await place.connect()
        await slow.send(head("POST", "/", "Content-Length: 100", f"X-Long: {'x' * 200}"), bytes(99))
        await eventually(lambda: place.server.bodies_size_bytes == 1099)
        assert (await (await slow.send(b"x")).answer()).status == 200
        app.hold.set()
        assert (await first.answer()).status == 200
        assert place.server.bodies_size_bytes == 0
        assert (await place.ask(large)).status == 200


@pytest.mark.parametrize("path", ["/slow", "/direct"])
async def test_bodies_on_a_lost_connection_count_until_their_request_is_over(
    path: str,
) -> None:
    app = Echo()
    async with serving(app, _slow_route(app)) as place:
        gone = await place.connect()
        one = head("POST", path, "Content-Length: 1000") + bytes(1000)
        await gone.send(one + one + one)
        await eventually(lambda: place.server.bodies_size_bytes == 3000)
        for connection in place.server.connections:
            connection.transport.abort()
        await eventually(lambda: place.server.bodies_size_bytes == 1000)
        app.hold.set()
        await eventually(lambda: place.server.bodies_size_bytes == 0)

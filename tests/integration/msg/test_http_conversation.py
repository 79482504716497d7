"""Requests and answers on one connection, in every form that HTTP/1 has for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, head, serving
from tests.support import eventually

pytestmark = BOTH_EVENT_LOOPS


async def test_chunks_arrive_whole_and_trailers_are_ignored() -> None:
    async with serving() as place:
        answer = await place.ask(
            head("POST", "/", "Transfer-Encoding: chunked"),
            b'5;name="value"\r\nhello\r\n6\r\n world\r\n0\r\nHost: evil\r\nX: y\r\n\r\n',
        )
        assert answer.status == 200
        assert place.app.seen == [("POST", "/", b"hello world")]
        assert json.loads(answer.body)["headers"] == ["host", "transfer-encoding"]


async def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("GET", "/slow"))
        connection.writer.write_eof()
        await place.app.entered.wait()
        place.app.hold.set()
        assert (await connection.answer()).status == 200
        assert await connection.rest() == b""


async def test_the_connection_of_a_client_that_has_said_all_ends_with_its_answer() -> None:
    async with serving() as place:
        place.server.clock = lambda: 0.0  # nobody is waited for until he has had his time
        connection = await place.connect()
        await connection.send(head("GET", "/slow"))
        connection.writer.write_eof()
        await place.app.entered.wait()
        protocol = next(iter(place.server.connections))
        await eventually(lambda: protocol.heard_all)
        place.app.hold.set()
        assert (await connection.answer()).status == 200
        await eventually(lambda: not place.server.connections)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as place:
        connection = await place.connect()
        post = head("POST", "/two", "Content-Length: 3") + b"abc"
        await connection.send(head("GET", "/slow"), post, head("GET", "/three"))
        await place.app.entered.wait()
        assert len(place.app.seen) == 1
        place.app.hold.set()
        paths = [b"/slow", b"/two", b"/three"]
        for path in paths:
            assert path in (await connection.answer()).body
        assert [body for _, _, body in place.app.seen] == [b"", b"abc", b""]


async def test_100_continue_is_said_before_the_body_and_only_then() -> None:
    async with serving() as place:
        connection = await place.connect()
        ask = head("POST", "/", "Content-Length: 5", "Expect: 100-continue")
        await connection.send(ask)
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await (await connection.send(b"hello")).answer()).status == 200
        assert (await (await connection.send(ask + b"hello")).answer()).status in {100, 200}


async def test_100_continue_waits_for_the_answer_before() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("GET", "/slow"))
        await place.app.entered.wait()
        await connection.send(head("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
        place.app.hold.set()
        assert (await connection.answer()).status == 200
        assert (await connection.answer()).status == 100
        assert (await (await connection.send(b"hello")).answer()).status == 200


async def test_another_expectation_is_417() -> None:
    async with serving() as place:
        assert (await place.ask(head("POST", "/", "Expect: wonders"))).status == 417


async def test_a_stream_comes_in_chunks_and_the_connection_goes_on() -> None:
    async with serving() as place:
        connection = await place.connect()
        assert (await (await connection.send(head("GET", "/stream"))).answer()).body == b"onetwo"
        assert (await (await connection.send(GOOD)).answer()).status == 200


async def test_http_1_0_gets_a_plain_body_and_a_close() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(b"GET /stream HTTP/1.0\r\n\r\n")
        got = await connection.rest()
        assert got.endswith(b"\r\n\r\nonetwo")
        assert b"connection: close" in got


async def test_head_has_the_headers_and_no_body() -> None:
    async with serving() as place:
        connection = await place.connect()
        answer = await (await connection.send(head("HEAD", "/good"))).answer(bodiless=True)
        assert int(answer.headers["content-length"]) > 0
        assert (await (await connection.send(GOOD)).answer()).status == 200


async def test_a_wish_for_a_close_is_granted() -> None:
    async with serving() as place:
        connection = await place.connect()
        answer = await (await connection.send(head("GET", "/good", "Connection: close"))).answer()
        assert answer.headers["connection"] == "close"
        assert await connection.rest() == b""


@pytest.mark.parametrize(
    "host", ["bank", "", "127.0.0.1:8080", "[::1]", "[::1]:80", "b%20a.example.", "bank: ", "a_b:"]
)
async def test_every_form_of_a_host_is_taken(host: str) -> None:
    async with serving() as place:
        request = f"GET /good HTTP/1.1\r\nHost: {host}\r\n\r\n"
        assert (await place.ask(request.encode())).status == 200


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://bank/a?b=c", "/a"),
        ("http://bank", "/"),
        ("/a%20b", "/a b"),
        ("//a", "//a"),
        ("/a%2Fb%2fc", "/a%2Fb%2fc"),
    ],
)
async def test_every_form_of_a_target_finds_its_path(target: str, path: str) -> None:
    async with serving() as place:
        assert (await place.ask(head("GET", target))).status == 200
        assert place.app.seen[0][1] == path


async def test_blanks_around_a_value_are_no_part_of_it() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"][1:])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serving(app) as place:
        await place.ask(head("GET", "/", "Idempotency-Key: \t rent 1 \t ", "X-None: \t "))
    assert seen == [[(b"idempotency-key", b"rent 1"), (b"x-none", b"")]]


@pytest.mark.parametrize("framing", ["Content-Length: 15 \t", "Transfer-Encoding: chunked "])
async def test_blanks_behind_what_frames_a_body_do_not_matter(framing: str) -> None:
    async with serving() as place:
        answer = await place.ask(head("POST", "/", framing), b"5\r\nhello\r\n0\r\n\r\n")
        assert answer.status == 200

"""Offers to go on in another protocol: they are passed over, and nothing of the request is lost."""

from __future__ import annotations

import json

import pytest

from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, Raw, head, serving

pytestmark = BOTH_EVENT_LOOPS

H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAA")
WEBSOCKET = ("Connection: keep-alive, Upgrade", "upgrade: websocket")
PLAIN = head("POST", "/one", *H2C, "Content-Length: 5") + b"hello"
CHUNKED = head("POST", "/two", *H2C, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n"


async def in_pieces(connection: Raw, data: bytes, size: int) -> None:
    """Send *data* so that the server reads it in pieces of at most *size* bytes."""
    for start in range(0, len(data), size):
        await connection.send(data[start : start + size])


@pytest.mark.parametrize("request_bytes", [PLAIN, CHUNKED], ids=["length", "chunks"])
@pytest.mark.parametrize("piece_bytes", [1, 7, 65536])
async def test_a_body_that_comes_with_an_offer_is_read(
    request_bytes: bytes, piece_bytes: int
) -> None:
    async with serving() as place:
        connection = await place.connect()
        await in_pieces(connection, request_bytes, piece_bytes)
        answer = await connection.answer()
        assert (answer.status, json.loads(answer.body)["size"]) == (200, 5)
        assert "connection" not in answer.headers
        assert "upgrade" not in answer.headers
        assert (await (await connection.send(GOOD)).answer()).status == 200
        assert [body for _, _, body in place.app.seen] == [b"hello", b""]


async def test_the_body_of_an_offer_is_never_read_as_a_request() -> None:
    inner = head("GET", "/smuggled")
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("POST", "/", *H2C, f"Content-Length: {len(inner)}"), inner)
        await connection.send(GOOD)
        assert [(await connection.answer()).status for _ in range(2)] == [200, 200]
        assert place.app.seen == [("POST", "/", inner), ("GET", "/good", b"")]


async def test_requests_behind_offers_are_answered_in_order() -> None:
    async with serving() as place:
        connection = await place.connect()
        get = head("GET", "/three", *WEBSOCKET)
        await connection.send(PLAIN, CHUNKED, get, PLAIN, GOOD)
        assert [(await connection.answer()).status for _ in range(5)] == [200] * 5
        paths = [path for _, path, _ in place.app.seen]
        assert paths == ["/one", "/two", "/three", "/one", "/good"]


async def test_an_offer_waits_for_its_turn() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("GET", "/slow"))
        await place.app.entered.wait()
        await connection.send(PLAIN, GOOD)
        place.app.hold.set()
        assert [(await connection.answer()).status for _ in range(3)] == [200] * 3
        assert [body for _, _, body in place.app.seen] == [b"", b"hello", b""]


async def test_an_offer_of_a_client_that_wants_a_close_is_passed_over() -> None:
    async with serving() as place:
        lines = ("Connection: close, Upgrade", "Upgrade: h2c", "Content-Length: 5")
        connection = await place.connect()
        await connection.send(head("POST", "/", *lines), b"hello")
        assert json.loads((await connection.answer()).body)["size"] == 5
        assert await connection.rest() == b""


async def test_an_offer_in_http_1_0_is_passed_over() -> None:
    async with serving() as place:
        lines = "\r\n".join(("POST / HTTP/1.0", *H2C, "Content-Length: 5", "", "hello"))
        assert json.loads((await place.ask(lines.encode())).body)["size"] == 5


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (("Content-Length: 5", "Host: other"), 400),
        (("Content-Length: 2000",), 413),
        (("X: " + "a" * 4000,), 431),
    ],
)
async def test_an_offer_is_checked_as_any_request(lines: tuple[str, ...], status: int) -> None:
    async with serving(body_size_bytes_max=1000, head_size_bytes_max=3000) as place:
        assert (await place.ask(head("POST", "/", *H2C, *lines), b"hello")).status == status
        assert place.app.seen == []


async def test_a_flood_of_offers_is_answered_in_order() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(*(head("GET", f"/{n}", *WEBSOCKET) for n in range(1000)))
        for n in range(1000):
            assert json.loads((await connection.answer()).body)["path"] == f"/{n}"


async def test_what_follows_a_connect_is_dropped() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("CONNECT", "bank:80"), GOOD)
        assert (await connection.answer()).headers["connection"] == "close"
        assert await connection.rest() == b""
        assert len(place.app.seen) == 1

"""What a hostile or broken client can do to the HTTP server, on a raw socket."""

from __future__ import annotations

import pytest

from rmi_runtime import errors
from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, head, serving, still_serves

pytestmark = BOTH_EVENT_LOOPS


AMBIGUOUS = {
    "length and chunked": head("POST", "/", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "chunked and length": head("POST", "/", "Transfer-Encoding: chunked", "Content-Length: 5"),
    "two lengths": head("POST", "/", "Content-Length: 5", "Content-Length: 6"),
    "the same length twice": head("POST", "/", "Content-Length: 5", "Content-Length: 5"),
    "a list of lengths": head("POST", "/", "Content-Length: 5, 5"),
    "negative length": head("POST", "/", "Content-Length: -1"),
    "signed length": head("POST", "/", "Content-Length: +5"),
    "length that is no number": head("POST", "/", "Content-Length: five"),
    "hexadecimal length": head("POST", "/", "Content-Length: 0x5"),
    "empty length": head("POST", "/", "Content-Length: "),
    "another coding": head("POST", "/", "Transfer-Encoding: gzip, chunked"),
    "unknown coding": head("POST", "/", "Transfer-Encoding: xchunked"),
    "chunked twice": head("POST", "/", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunked not last": head("POST", "/", "Transfer-Encoding: chunked, identity"),
    "space before the colon": head("POST", "/", "Content-Length : 5"),
    "folded header": head("POST", "/", "X: a", " b", "Content-Length: 0"),
    "bare line feeds": b"POST / HTTP/1.1\nHost: bank\nContent-Length: 5\n\nhello",
    "nul in a header": head("GET", "/", "X: a\0b"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": head("GET", "/", "Host: other"),
    "space in the host": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "path in the host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "user in the host": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "port that is no number": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "half an address": b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "bytes beyond ASCII in the host": b"GET / HTTP/1.1\r\nHost: b\xfc\r\n\r\n",
    "bad host in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n",
    "two tokens": head("GET", "/", "Authorization: Bearer a", "Authorization: Bearer b"),
    "two keys": head("POST", "/", "Idempotency-Key: a", "Idempotency-Key: b", "Content-Length: 0"),
    "two codings": head("POST", "/", "Content-Encoding: gzip", "Content-Encoding: identity"),
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: bank\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "random bytes": bytes(range(128, 256)) * 4,
    "a TLS greeting": bytes.fromhex("16030100f5010000f10303") + bytes(100),
    "a Pyro message": b"PYRO\x01\xf6\x00\x01" + bytes(32),
    "bytes beyond ASCII in the target": b"GET /\xff\xfe HTTP/1.1\r\nHost: bank\r\n\r\n",
    "bytes beyond ASCII in the query": b"GET /?a=\xff HTTP/1.1\r\nHost: bank\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: bank\r\n\r\n",
    "bad chunk size": head("POST", "/", "Transfer-Encoding: chunked") + b"zz\r\nhello\r\n0\r\n\r\n",
    "negative chunk size": head("POST", "/", "Transfer-Encoding: chunked") + b"-5\r\nhello\r\n",
    "chunk longer than said": head("POST", "/", "Transfer-Encoding: chunked")
    + b"3\r\nhello\r\n0\r\n\r\n",
    "overflowing chunk size": head("POST", "/", "Transfer-Encoding: chunked")
    + b"fffffffffffffffff\r\n",
}


@pytest.mark.parametrize("request_bytes", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_two_readers_could_read_differently_is_refused(request_bytes: bytes) -> None:
    await refused(request_bytes, 400, "malformed")


async def test_a_header_that_may_be_given_twice_is_taken_twice() -> None:
    async with serving() as place:
        answer = await place.ask(head("GET", "/", "Accept: text/html", "Accept: text/plain"))
        assert answer.status == 200


async def test_a_length_that_two_readers_could_count_differently_is_refused() -> None:
    await refused(head("POST", "/", "Content-Length: " + "9" * 60), 413, "body_too_large")


async def refused(request_bytes: bytes, status: int, code: str) -> None:
    async with serving() as place:
        connection = await place.connect()
        # What a smuggler would have the next reader take for a request of its own.
        await connection.send(request_bytes, b"GET /smuggled HTTP/1.1\r\nHost: bank\r\n\r\n")
        answer = await connection.answer()
        assert answer.status == status
        assert answer.problem["code"] == code
        assert answer.headers["connection"] == "close"
        assert await connection.rest() == b""
        assert place.app.seen == []
        await still_serves(place)


async def test_a_length_may_begin_with_any_number_of_zeros() -> None:
    async with serving() as place:
        length = "Content-Length: " + "0" * 5000 + "5"
        answer = await place.ask(head("POST", "/", length), b"hello")
        assert answer.status == 200
        assert place.app.seen == [("POST", "/", b"hello")]
        too_long = "Content-Length: " + "0" * 5000 + "9" * 18
        assert (await place.ask(head("POST", "/", too_long))).status == 413


async def test_half_a_body_and_a_close_has_no_effect() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("POST", "/", "Content-Length: 10"), b"hello")
        connection.writer.write_eof()
        assert await connection.rest() == b""
        await still_serves(place)
        assert place.app.seen == [("GET", "/good", b"")]
        assert place.server.bodies_size_bytes == 0


async def test_a_broken_request_after_good_ones_is_answered_in_its_turn() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("GET", "/slow"))
        await place.app.entered.wait()
        await connection.send(head("GET", "/second"), b"NONSENSE\r\n\r\n")
        place.app.hold.set()
        statuses = [(await connection.answer()).status for _ in range(3)]
        assert statuses == [200, 200, 400]
        assert await connection.rest() == b""


@pytest.mark.parametrize("request_bytes", [head("OPTIONS", "*"), head("CONNECT", "a:1")])
async def test_targets_without_a_path_do_no_harm(request_bytes: bytes) -> None:
    async with serving() as place:
        assert (await place.ask(request_bytes)).status < 500
        await still_serves(place)


async def test_an_application_that_fails_is_500_and_keeps_its_words_to_itself(caplog) -> None:
    async with serving() as place:
        for method, definite in (("GET", True), ("POST", False)):  # a read changes nothing
            answer = await place.ask(head(method, "/broken"))
            assert (answer.status, answer.problem["definite"]) == (500, definite)
            assert b"secret" not in answer.body
        assert "secret words" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("no more"), errors.Unavailable("nobody")])
async def test_a_stream_that_breaks_is_cut_so_that_nobody_takes_it_for_whole(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def breaks(scope, receive, send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise error

    async with serving() as place:
        place.server.app = breaks
        connection = await place.connect()
        await connection.send(GOOD)
        assert not (await connection.rest()).endswith(b"0\r\n\r\n")
    unforeseen = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert unforeseen == ([] if isinstance(error, errors.RmiError) else [error])


async def test_every_answer_has_the_security_headers_and_no_banner() -> None:
    async with serving() as place:
        for answer in (await place.ask(GOOD), await place.ask(b"nonsense\r\n\r\n")):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["date"].endswith("GMT")
            assert "server" not in answer.headers

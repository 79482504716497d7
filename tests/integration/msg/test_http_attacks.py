"""What a hostile or broken client can do to the HTTP server, on a raw socket."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
import uvloop

from rmi_runtime import errors
from rmi_runtime.http import listen
from tests.integration.msg.http_raw import head, serving
from tests.support import eventually

GOOD = head("GET", "/good")


@pytest.fixture(scope="module", params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy])
def event_loop_policy(request):
    """Every test here runs on both event loops: their transports differ where it matters."""
    return request.param()


async def still_serves(place) -> None:
    assert (await place.ask(GOOD)).status == 200


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
    "endless length": head("POST", "/", "Content-Length: " + "9" * 60),
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
    "two tokens": head("GET", "/", "Authorization: Bearer a", "Authorization: Bearer b"),
    "two keys": head("POST", "/", "Idempotency-Key: a", "Idempotency-Key: b", "Content-Length: 0"),
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
    async with serving() as place:
        connection = await place.connect()
        # What a smuggler would have the next reader take for a request of its own.
        await connection.send(request_bytes, b"GET /smuggled HTTP/1.1\r\nHost: bank\r\n\r\n")
        answer = await connection.answer()
        assert answer.status == 400
        assert answer.problem["code"] == "malformed"
        assert answer.headers["connection"] == "close"
        assert await connection.rest() == b""
        assert place.app.seen == []
        await still_serves(place)


async def test_an_announced_body_over_the_bound_is_413_before_it_is_sent() -> None:
    async with serving(body_size_bytes_max=1000) as place:
        answer = await place.ask(head("POST", "/", "Content-Length: 1001"))
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


async def test_chunks_arrive_whole_and_trailers_are_ignored() -> None:
    async with serving() as place:
        answer = await place.ask(
            head("POST", "/", "Transfer-Encoding: chunked"),
            b'5;name="value"\r\nhello\r\n6\r\n world\r\n0\r\nHost: evil\r\nX: y\r\n\r\n',
        )
        assert answer.status == 200
        assert place.app.seen == [("POST", "/", b"hello world")]
        assert json.loads(answer.body)["headers"] == ["host", "transfer-encoding"]


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


async def test_a_target_over_the_bound_is_414() -> None:
    async with serving() as place:
        answer = await place.ask(head("GET", "/" + "a" * 9000))
        assert (answer.status, answer.problem["code"]) == (414, "target_too_long")


async def test_a_head_within_the_bounds_is_taken_though_a_large_body_comes_with_it() -> None:
    async with serving() as place:
        assert (
            await place.ask(head("POST", "/", "Content-Length: 200000"), bytes(200_000))
        ).status == 200


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


async def test_half_a_body_and_a_close_has_no_effect() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("POST", "/", "Content-Length: 10"), b"hello")
        connection.writer.write_eof()
        assert await connection.rest() == b""
        await still_serves(place)
        assert place.app.seen == [("GET", "/good", b"")]
        assert place.server.bodies_size_bytes == 0


async def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(head("GET", "/slow"))
        connection.writer.write_eof()
        await place.app.entered.wait()
        place.app.hold.set()
        assert (await connection.answer()).status == 200
        assert await connection.rest() == b""


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


async def test_a_flood_of_pipelined_requests_is_bounded_and_in_order() -> None:
    async with serving(pipelined_max=10) as place:
        connection = await place.connect()
        await connection.send(head("GET", "/slow"))
        await place.app.entered.wait()
        await connection.send(*(head("GET", f"/{n}") for n in range(1000)))
        place.app.hold.set()
        answered = (await connection.rest()).count(b"HTTP/1.1 200")
        assert 1 < answered < 200
        assert len(place.app.seen) == answered
        assert [path for _, path, _ in place.app.seen[1:]] == [f"/{n}" for n in range(answered - 1)]


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


async def test_a_body_too_large_is_refused_instead_of_continued() -> None:
    async with serving(body_size_bytes_max=10) as place:
        answer = await place.ask(head("POST", "/", "Content-Length: 11", "Expect: 100-continue"))
        assert answer.status == 413


async def test_another_expectation_is_417() -> None:
    async with serving() as place:
        assert (await place.ask(head("POST", "/", "Expect: wonders"))).status == 417


async def test_more_connections_than_the_bound_are_503_and_room_is_given_back() -> None:
    async with serving(connections_max=2) as place:
        first, second = await place.connect(), await place.connect()
        await eventually(lambda: len(place.server.connections) == 2)
        answer = await (await place.connect()).answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        first.writer.close()
        second.writer.close()
        await eventually(lambda: not place.server.connections)
        await still_serves(place)


async def test_large_bodies_together_have_a_bound() -> None:
    async with serving(bodies_size_bytes_max=1500) as place:
        waiting = await place.connect()
        await waiting.send(head("POST", "/", "Content-Length: 1000"), bytes(999))
        await eventually(lambda: place.server.bodies_size_bytes == 999)
        answer = await place.ask(head("POST", "/", "Content-Length: 1000"))
        assert (answer.status, answer.problem["code"]) == (503, "overloaded")
        assert (await (await waiting.send(b"x")).answer()).status == 200
        assert place.server.bodies_size_bytes == 0


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


async def test_an_application_that_fails_is_500_and_keeps_its_words_to_itself(caplog) -> None:
    async with serving() as place:
        connection = await place.connect()
        answer = await (await connection.send(head("GET", "/broken"))).answer()
        assert (answer.status, answer.problem["definite"]) == (500, False)
        assert b"secret" not in answer.body
        assert "secret words" in caplog.text


async def test_a_stream_that_breaks_is_cut_so_that_nobody_takes_it_for_whole() -> None:
    async def breaks(scope, receive, send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("no more")

    async with serving() as place:
        place.server.app = breaks
        connection = await place.connect()
        await connection.send(GOOD)
        assert not (await connection.rest()).endswith(b"0\r\n\r\n")


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


async def test_an_offer_to_upgrade_is_passed_over() -> None:
    async with serving() as place:
        answer = await place.ask(head("GET", "/good", "Connection: Upgrade", "Upgrade: websocket"))
        assert answer.status == 200


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://bank/a?b=c", "/a"), ("http://bank", "/"), ("/a%20b", "/a b"), ("//a", "//a")],
)
async def test_every_form_of_a_target_finds_its_path(target: str, path: str) -> None:
    async with serving() as place:
        assert (await place.ask(head("GET", target))).status == 200
        assert place.app.seen[0][1] == path


@pytest.mark.parametrize("request_bytes", [head("OPTIONS", "*"), head("CONNECT", "a:1")])
async def test_targets_without_a_path_do_no_harm(request_bytes: bytes) -> None:
    async with serving() as place:
        assert (await place.ask(request_bytes)).status < 500
        await still_serves(place)


async def test_every_answer_has_the_security_headers_and_no_banner() -> None:
    async with serving() as place:
        for answer in (await place.ask(GOOD), await place.ask(b"nonsense\r\n\r\n")):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["date"].endswith("GMT")
            assert "server" not in answer.headers


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
        listen("127.0.0.1", one.getsockname()[1], reuse_port=True).close()


async def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(errors.Unavailable, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0)

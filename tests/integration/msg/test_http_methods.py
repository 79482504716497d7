"""Methods: those that a path does not take, and those that nobody knows."""

from __future__ import annotations

import pytest

from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, Answer, head, serving
from tests.unit.msg.http_fakes import Gateway

pytestmark = BOTH_EVENT_LOOPS

UNKNOWN = ["FOO", "get", "Get", "GETX", "M-FOO", "A", "DESCRIBE"]


@pytest.mark.parametrize("method", UNKNOWN)
@pytest.mark.parametrize("piece_bytes", [1, 5, 65536])
async def test_an_unknown_method_is_405(method: str, piece_bytes: int) -> None:
    request = head(method, "/healthz", "Content-Length: 5") + b"hello"
    async with serving() as place:
        connection = await place.connect()
        for start in range(0, len(request), piece_bytes):
            await connection.send(request[start : start + piece_bytes])
        answer = await connection.answer()
        assert (answer.status, answer.problem["code"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
        assert answer.headers["connection"] == "close"
        assert await connection.rest() == b""
        assert place.app.seen == []


async def test_an_unknown_method_is_405_in_its_turn() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(GOOD, head("POST", "/", "Content-Length: 2"), b"hi", head("FOO"))
        assert [(await connection.answer()).status for _ in range(3)] == [200, 200, 405]


@pytest.mark.parametrize("line", ["F@O /x HTTP/1.1", "FOO  /x HTTP/1.1", "FOO /x", "FOO /x y"])
async def test_what_is_no_request_line_is_400_whatever_its_method(line: str) -> None:
    async with serving() as place:
        assert (await place.ask(f"{line}\r\nHost: bank\r\n\r\n".encode())).status == 400


async def test_a_line_with_an_unknown_method_has_a_bound() -> None:
    async with serving() as place:
        connection = await place.connect()
        for _ in range(5):
            await connection.send(b"F" * 10_000)
        assert (await connection.answer()).status in {414, 431}


async def asked(method: str, target: str) -> Answer:
    gateway = Gateway()
    async with gateway.http, serving(gateway.app, gateway.app.direct) as place:
        return await place.ask(head(method, target))


@pytest.mark.parametrize("method", ["DELETE", "PURGE", "QUERY", "M-SEARCH", "MKCOL"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/messages", "GET, HEAD, OPTIONS, POST"),
        ("/bank/accounts/1", "GET, HEAD, OPTIONS"),
        ("/bank/deposits", "OPTIONS, POST"),
    ],
)
async def test_405_and_options_name_the_same_methods(method: str, path: str, allowed: str) -> None:
    refused = await asked(method, path)
    assert (refused.status, refused.problem["code"]) == (405, "method_not_allowed")
    assert refused.headers["allow"] == allowed
    told = await asked("OPTIONS", path)
    assert (told.status, told.headers["allow"], told.body) == (204, allowed, b"")


async def test_options_of_the_server_as_a_whole_names_all_methods() -> None:
    answer = await asked("OPTIONS", "*")
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


async def test_nobody_is_connected_elsewhere() -> None:
    answer = await asked("CONNECT", "bank:80")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        *(("GET", "*"), ("PURGE", "/nowhere"), ("OPTIONS", "/nowhere")),
        *(("GET", "/bank%2Faccounts/1"), ("GET", "//"), ("GET", "//healthz")),
        ("GET", "http://bank//healthz"),
    ],
)
async def test_what_is_nowhere_is_404(method: str, target: str) -> None:
    assert (await asked(method, target)).status == 404

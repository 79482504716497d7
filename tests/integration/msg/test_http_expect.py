"""Clients that ask before they send a body: who is encouraged, and who is refused at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from rmi_runtime import Identity
from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, Place, head, serving
from tests.unit.msg.http_fakes import Gateway

pytestmark = BOTH_EVENT_LOOPS

EXPECT = "Expect: 100-continue"
TELLER = "Authorization: Bearer teller-1"
ADMIN = "Authorization: Bearer admin-3"
JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
CASH = b'{"account":1,"amount":10}'
LENGTH = f"Content-Length: {len(CASH)}"


@contextlib.asynccontextmanager
async def served(**limits: int) -> AsyncIterator[tuple[Gateway, Place]]:
    gateway = Gateway()
    async with gateway.http, serving(gateway.app, gateway.app.direct, **limits) as place:
        place.server.refusal = gateway.app.refusal
        yield gateway, place


REFUSED = {
    "no token": ("POST", "/bank/deposits", 401, JSON),
    "bad token": ("POST", "/bank/deposits", 403, JSON, "Authorization: Bearer fake"),
    "bad token for a batch": ("POST", "/bank/batches", 403, JSON, "Authorization: Bearer fake"),
    "not an admin": ("POST", "/bank/accounts", 403, JSON, TELLER),
    "bad key": ("POST", "/bank/deposits", 422, JSON, TELLER, "Idempotency-Key: "),
    "media type": ("POST", "/bank/deposits", 415, FORM, TELLER),
    "no form": ("POST", "/", 415, JSON),
    "coded": ("POST", "/messages", 415, JSON, "Content-Encoding: gzip"),
    "no such path": ("POST", "/nowhere", 404, JSON),
    "no such account": ("POST", "/bank/accounts/x", 404, JSON, TELLER),
    "two slashes": ("POST", "//bank/deposits", 404, JSON, TELLER),
    "encoded slash": ("POST", "/bank%2Fdeposits", 404, JSON, TELLER),
    "a dot is a dot": ("POST", "/openapixjson", 404, JSON),
    "method": ("PUT", "/bank/deposits", 405, JSON, TELLER),
    "method of an account": ("POST", "/bank/accounts/1", 405, JSON, TELLER),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
async def test_who_is_refused_for_the_head_is_told_at_once(case: tuple[str, str, int]) -> None:
    method, path, status, *lines = case
    async with served() as (gateway, place):
        connection = await place.connect()
        await connection.send(head(method, path, *lines, LENGTH, EXPECT))
        answer = await connection.answer()
        assert (answer.status, answer.problem["status"]) == (status, status)
        assert answer.headers["connection"] == "close"
        assert await connection.rest() == b""
        assert not gateway.bank.operations
        # Asked with the body at once, the answer is the same.
        without = await place.ask(head(method, path, *lines, LENGTH), CASH)
        assert (without.status, without.body) == (answer.status, answer.body)
        assert without.headers.get("allow") == answer.headers.get("allow")


@pytest.mark.parametrize(
    ("path", "lines", "body", "status"),
    [
        ("/bank/deposits", (JSON, TELLER), CASH, 201),
        ("http://bank/bank/deposits?a=b", (JSON, TELLER), CASH, 201),
        ("/bank/accounts", (JSON, ADMIN), b'{"account":9}', 201),
        ("/", (FORM,), b"msg=hello", 200),
        ("/bank/deposits", (JSON, TELLER), b"{", 400),
    ],
)
async def test_others_are_encouraged_and_answered(
    path: str, lines: tuple[str, ...], body: bytes, status: int
) -> None:
    async with served() as (_, place):
        connection = await place.connect()
        for _ in range(2):
            request = head("POST", path, *lines, EXPECT, "Transfer-Encoding: chunked")
            assert (await (await connection.send(request)).answer()).status == 100
            await connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            assert (await connection.answer()).status in {status, 409}


async def test_a_body_that_comes_before_the_word_is_taken() -> None:
    async with served() as (gateway, place):
        asked, decided = asyncio.Event(), asyncio.Event()
        identify = gateway.bank.identify

        async def slow(token: str) -> Identity | None:
            asked.set()
            await decided.wait()
            return await identify(token)

        gateway.bank.identify = slow  # type: ignore[method-assign]
        connection = await place.connect()
        await connection.send(head("POST", "/bank/deposits", JSON, TELLER, LENGTH, EXPECT))
        await asked.wait()
        await connection.send(CASH)
        decided.set()
        answers = [await connection.answer()]
        if answers[0].status == 100:
            answers.append(await connection.answer())
        assert answers[-1].status == 201
        assert len(gateway.bank.operations) == 1


async def test_http_1_0_expects_nothing() -> None:
    async with serving() as place:
        connection = await place.connect()
        await connection.send(b"POST / HTTP/1.0\r\nContent-Length: 5\r\n" + EXPECT.encode())
        await connection.send(b"\r\n\r\n")
        await connection.send(b"hello")
        assert (await connection.answer()).status == 200

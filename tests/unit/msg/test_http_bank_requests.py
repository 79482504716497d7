"""``/bank/*``: requests of a wrong form, and that nothing happens for them."""

from __future__ import annotations

import json

import pytest

from tests.unit.msg.http_bank_requests import CHANGES, TRANSFER
from tests.unit.msg.http_fakes import assert_problem, gateway

MALFORMED = {
    "nothing": b"",
    "half": b'{"source":1,"target":2',
    "no JSON": b"source=1",
    "more than JSON": b'{"source":1,"target":2,"amount":1}}',
    "single quotes": b"{'source':1}",
    "comment": b'{"source":1,"target":2,"amount":1/**/}',
    "leading zero": b'{"source":1,"target":2,"amount":01}',
    "byte order mark": b'\xef\xbb\xbf{"source":1,"target":2,"amount":1}',
    "UTF-16": '{"source":1,"target":2,"amount":1}'.encode("utf-16"),
    "bad UTF-8 in a value": b'{"source":1,"target":2,"amount":"\xff"}',
    "bad UTF-8 in a name": b'{"source":1,"target":2,"am\xffount":1}',
    "extra field": b'{"source":1,"target":2,"amount":1,"memo":"x"}',
    "field twice": b'{"source":1,"target":2,"amount":1,"amount":2}',
    "field twice, once escaped": b'{"source":1,"target":2,"amount":1,"\\u0061mount":2}',
    "deep in an unknown field": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "broken after a wrong value": b'{"source":"x","target":',
    "deep in a known field": b'{"source":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NUL": b"\0",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_cannot_be_read_is_400(body: bytes) -> None:
    async with gateway() as g:
        assert_problem(await g.post("/bank/transfers", raw=body), 400, "malformed")
        assert g.bank.operations == []


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    "amount",
    [
        *("0", "-1", "1.5", "1.0", "1e2", '"1"', "true", "false", "null", "[]", "{}"),
        *("NaN", "Infinity", "-Infinity", "1e400", "-1e400"),
        *(str(10**15 + 1), str(2**63), str(2**64), "9" * 5000, "-" + "9" * 5000),
    ],
)
async def test_an_amount_that_is_no_integer_in_range_is_422(path: str, amount: str) -> None:
    async with gateway() as g:
        body = json.dumps(CHANGES[path]).replace("10", amount).encode()
        document = assert_problem(await g.post(path, raw=body), 422, "invalid")
        assert document["field"] == "amount"
        assert g.bank.operations == []


@pytest.mark.parametrize("account", [0, -1, 2**53 + 1, 1.5, "1", True, None])
async def test_an_account_of_the_wrong_type_or_range_is_422(account: object) -> None:
    async with gateway() as g:
        response = await g.post("/bank/deposits", {"account": account, "amount": 1})
        assert assert_problem(response, 422, "invalid")["field"] == "account"


@pytest.mark.parametrize("field", ["source", "target", "amount"])
async def test_a_missing_field_is_422_and_named(field: str) -> None:
    async with gateway() as g:
        body = {name: value for name, value in TRANSFER.items() if name != field}
        response = await g.post("/bank/transfers", body)
        assert assert_problem(response, 422, "invalid")["field"] == field


@pytest.mark.parametrize("body", [[], "x", 1, None, True])
async def test_a_body_that_is_no_object_is_422(body: object) -> None:
    async with gateway() as g:
        assert_problem(await g.post("/bank/transfers", body), 422, "invalid")


@pytest.mark.parametrize(
    "media_type",
    [
        *("", "text/plain", "application/xml", "application/x-www-form-urlencoded", "json"),
        *("application/json; charset=latin-1", "application/json; charset = latin-1"),
        "application/jsonx",
    ],
)
async def test_another_media_type_or_none_is_415(media_type: str) -> None:
    async with gateway() as g:
        response = await g.post("/bank/transfers", TRANSFER, headers={"Content-Type": media_type})
        assert_problem(response, 415, "unsupported_media_type")
        assert response.headers["accept"] == "application/json"


@pytest.mark.parametrize(
    "media_type",
    ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"'],
)
async def test_json_in_utf_8_is_taken_however_it_is_written(media_type: str) -> None:
    async with gateway() as g:
        response = await g.post("/bank/transfers", TRANSFER, headers={"Content-Type": media_type})
        assert response.status_code == 201


@pytest.mark.parametrize("accept", ["text/html", "image/png", "nonsense;;", ""])
async def test_the_wish_for_another_answer_is_ignored(accept: str) -> None:
    async with gateway() as g:
        response = await g.post("/bank/transfers", TRANSFER, headers={"Accept": accept})
        assert response.status_code == 201


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_another_method_is_405_with_those_allowed(method: str) -> None:
    async with gateway() as g:
        response = await g.http.request(method, "/bank/transfers")
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == {"POST", "OPTIONS"}


async def test_options_tells_the_methods() -> None:
    async with gateway() as g:
        response = await g.http.options("/bank/accounts/1")
        assert response.is_success
        assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


async def test_head_is_get_without_the_body() -> None:
    async with gateway() as g:
        got = await g.get("/bank/accounts/1")
        told = await g.http.head("/bank/accounts/1", headers=dict(got.request.headers))
        assert (told.status_code, told.content) == (200, b"")
        assert told.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("path", ["/nothing", "/bank", "/bank/accounts/1/x", "/bank/deposits/"])
async def test_an_unknown_path_is_404(path: str) -> None:
    async with gateway() as g:
        assert_problem(await g.get(path), 404, "not_found")


@pytest.mark.parametrize(
    "segment", ["x", "1.0", "-1", "+1", "1_0", "%20", "%D9%A1", "9" * 17, "1%00", ""]
)
async def test_a_path_segment_that_is_no_number_is_404(segment: str) -> None:
    async with gateway() as g:
        assert_problem(await g.get(f"/bank/accounts/{segment}"), 404, "not_found")

"""``/bank/*``: every status that DESIGN promises, and that nothing happens unless it says so."""

from __future__ import annotations

import json

import pytest

from rmi_bank.errors import LockTimeout
from rmi_bank.operations import Deposit, Transfer
from rmi_runtime import errors
from tests.unit.msg.http_fakes import ADMIN, CUSTOMER, assert_problem, gateway

TRANSFER = {"source": 1, "target": 2, "amount": 10}
CHANGES = {
    "/bank/deposits": {"account": 1, "amount": 10},
    "/bank/withdrawals": {"account": 1, "amount": 10},
    "/bank/transfers": TRANSFER,
}
BODIES = {
    **CHANGES,
    "/bank/accounts": {"account": 9},
    "/bank/batches": {"operations": [{"type": "transfer", **TRANSFER}]},
}


@pytest.mark.parametrize(
    ("path", "balance"),
    [("/bank/deposits", 1010), ("/bank/withdrawals", 990), ("/bank/transfers", 990)],
)
async def test_a_change_is_201_with_a_receipt(path: str, balance: int) -> None:
    async with gateway() as g:
        response = await g.post(path, CHANGES[path])
        assert response.status_code == 201
        assert response.headers["content-type"] == "application/json"
        receipt = response.json()
        assert set(receipt) == {"request_id", "balance", "commit"}
        assert receipt["balance"] == balance
        assert receipt["request_id"][14] == "7"


@pytest.mark.parametrize("path", CHANGES)
async def test_the_idempotency_key_is_the_request_id_and_all_is_done_once(path: str) -> None:
    async with gateway() as g:
        headers = {"Idempotency-Key": "pay rent #1"}
        first, again = [await g.post(path, CHANGES[path], headers=headers) for _ in "12"]
        assert first.json()["request_id"] == "pay rent #1"
        assert (again.status_code, again.json()) == (201, first.json())
        assert len(g.bank.operations) == 1


async def test_the_same_key_with_another_payload_is_422() -> None:
    async with gateway() as g:
        headers = {"Idempotency-Key": "k"}
        await g.post("/bank/transfers", TRANSFER, headers=headers)
        other = await g.post("/bank/transfers", {**TRANSFER, "amount": 11}, headers=headers)
        assert assert_problem(other, 422, "request_id_reused")["request_id"] == "k"


@pytest.mark.parametrize("key", ["", "a" * 201, "tab\there", "é"])
async def test_a_bad_idempotency_key_is_422(key: str) -> None:
    async with gateway() as g:
        response = await g.http.post(
            "/bank/transfers",
            json=TRANSFER,
            headers={"Authorization": "Bearer teller-1", "Idempotency-Key": key.encode()},
        )
        assert assert_problem(response, 422, "invalid")["field"] == "Idempotency-Key"
        assert g.bank.operations == []


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic dGVsbGVyOjE=", "teller-1", "Token teller-1"]
)
async def test_no_token_is_401_with_a_challenge(path: str, authorization: str) -> None:
    async with gateway() as g:
        response = await g.post(path, BODIES[path], headers={"Authorization": authorization})
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert g.bank.operations == []


@pytest.mark.parametrize("path", ["/bank/accounts/1", "/bank/accounts/1/statement"])
async def test_reading_without_a_token_is_401(path: str) -> None:
    async with gateway() as g:
        assert_problem(await g.get(path, headers={}), 401, "unauthenticated")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("token", ["fake", "x" * 600, "teller-1 x", "ü"])
async def test_a_fake_token_is_403_forbidden_with_the_seeds_word(path: str, token: str) -> None:
    async with gateway() as g:
        response = await g.http.post(
            path, json=BODIES[path], headers={"Authorization": f"Bearer {token}".encode()}
        )
        document = assert_problem(response, 403, "forbidden")
        assert (document["title"], document["detail"]) == ("Forbidden", "Forbidden")
        assert g.bank.operations == []


async def test_a_token_longer_than_any_is_not_even_asked_about() -> None:
    async with gateway() as g:
        await g.get("/bank/accounts/1", {"Authorization": f"Bearer {'x' * 513}"})
        assert g.bank.tokens_asked_for == []


async def test_the_scheme_bearer_may_be_in_any_case() -> None:
    async with gateway() as g:
        assert (await g.get("/bank/accounts/1", {"Authorization": "bearer teller-1"})).is_success


@pytest.mark.parametrize("path", BODIES)
async def test_a_stranger_cannot_make_us_parse(path: str) -> None:
    async with gateway() as g:
        response = await g.post(path, raw=b"{", headers={"Authorization": "", "Content-Type": "x"})
        assert_problem(response, 401, "unauthenticated")


async def test_another_ones_account_is_403() -> None:
    async with gateway() as g:
        assert_problem(await g.get("/bank/accounts/1", CUSTOMER), 403, "another_account")
        response = await g.post("/bank/transfers", TRANSFER, headers=CUSTOMER)
        assert_problem(response, 403, "another_account")


async def test_an_unknown_account_is_404() -> None:
    async with gateway() as g:
        assert_problem(await g.get("/bank/accounts/99"), 404, "unknown_account")
        response = await g.post("/bank/deposits", {"account": 99, "amount": 1})
        assert assert_problem(response, 404, "unknown_account")["account"] == 99


@pytest.mark.parametrize("segment", ["0", "9" * 16])
async def test_an_account_number_that_cannot_be_is_an_unknown_account(segment: str) -> None:
    async with gateway() as g:
        assert_problem(await g.get(f"/bank/accounts/{segment}"), 404, "unknown_account")


@pytest.mark.parametrize(
    "segment", ["x", "1.0", "-1", "+1", "1_0", "%20", "%D9%A1", "9" * 17, "1%00", ""]
)
async def test_a_path_segment_that_is_no_number_is_404(segment: str) -> None:
    async with gateway() as g:
        assert_problem(await g.get(f"/bank/accounts/{segment}"), 404, "not_found")


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


@pytest.mark.parametrize("amount", [1, 1000])
async def test_amounts_up_to_the_balance_are_taken(amount: int) -> None:
    async with gateway() as g:
        response = await g.post("/bank/withdrawals", {"account": 1, "amount": amount})
        assert response.json()["balance"] == 1000 - amount


async def test_the_largest_amount_is_taken() -> None:
    async with gateway() as g:
        response = await g.post("/bank/deposits", {"account": 1, "amount": 10**15})
        assert response.status_code == 201


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


async def test_the_same_account_on_both_sides_is_422() -> None:
    async with gateway() as g:
        response = await g.post("/bank/transfers", {**TRANSFER, "target": 1})
        assert assert_problem(response, 422, "same_account")["field"] == "target"
        assert g.bank.operations == []


async def test_insufficient_funds_are_409_with_the_facts_and_the_request_id() -> None:
    async with gateway() as g:
        headers = {"Idempotency-Key": "k"}
        body = {**TRANSFER, "amount": 1001}
        response = await g.post("/bank/transfers", body, headers=headers)
        document = assert_problem(response, 409, "insufficient_funds")
        assert document["balance"] == 1000
        assert document["request_id"] == "k"


@pytest.mark.parametrize(
    "media_type",
    [
        *("", "text/plain", "application/xml", "application/x-www-form-urlencoded", "json"),
        *("application/json; charset=latin-1", "application/jsonx"),
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
        assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}


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


@pytest.mark.parametrize("accept", ["text/html", "image/png", "nonsense;;", ""])
async def test_the_wish_for_another_answer_is_ignored(accept: str) -> None:
    async with gateway() as g:
        response = await g.post("/bank/transfers", TRANSFER, headers={"Accept": accept})
        assert response.status_code == 201


async def test_the_balance_of_an_account() -> None:
    async with gateway() as g:
        assert (await g.get("/bank/accounts/1")).json() == {"account": 1, "balance": 1000}


async def test_a_statement_is_paged() -> None:
    async with gateway() as g:
        response = await g.get("/bank/accounts/1/statement?after=3&limit=1000")
        assert response.json()["lines"][0]["amount"] == 5
        assert g.bank.statement_args == (3, 1000)
        await g.get("/bank/accounts/1/statement")
        assert g.bank.statement_args == (0, 100)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *((f"limit={bad}", "limit") for bad in ("abc", "-1", "0", "1001", "1000000000", "1.5", "")),
        *((f"after={bad}", "after") for bad in ("abc", "-1", "9" * 30, "%00")),
        ("limit=%D9%A1", "limit"),
    ],
)
async def test_bad_query_parameters_are_422(query: str, field: str) -> None:
    async with gateway() as g:
        response = await g.get(f"/bank/accounts/1/statement?{query}")
        assert assert_problem(response, 422, "invalid")["field"] == field


@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=%ff", "&".join("a=1" * 40)])
async def test_a_query_that_cannot_be_read_is_400(query: str) -> None:
    async with gateway() as g:
        response = await g.get(f"/bank/accounts/1/statement?{query}")
        assert_problem(response, 400, "malformed")


async def test_unknown_query_parameters_are_ignored() -> None:
    async with gateway() as g:
        assert (await g.get("/bank/accounts/1/statement?utm=x")).is_success


async def test_an_admin_opens_accounts_and_others_do_not() -> None:
    async with gateway() as g:
        body = {"account": 9, "balance": 5, "owner": 2}
        assert_problem(await g.post("/bank/accounts", body), 403, "forbidden")
        assert 9 not in g.bank.balances
        response = await g.post("/bank/accounts", body, headers=ADMIN)
        assert (response.status_code, response.json()) == (201, {"account": 9, "balance": 5})
        again = await g.post("/bank/accounts", body, headers=ADMIN)
        assert_problem(again, 409, "account_exists")


@pytest.mark.parametrize("body", [{"account": 9, "balance": -1}, {"account": 9, "owner": "x"}, {}])
async def test_a_bad_account_is_422(body: dict[str, object]) -> None:
    async with gateway() as g:
        assert_problem(await g.post("/bank/accounts", body, headers=ADMIN), 422, "invalid")


async def test_a_batch_has_an_outcome_per_operation() -> None:
    async with gateway() as g:
        operations = [
            {"type": "deposit", "account": 1, "amount": 5, "request_id": "a"},
            {"type": "withdrawal", "account": 2, "amount": 5000},
            {"type": "transfer", "source": 1, "target": 2, "amount": 1},
            {"type": "balance", "account": 2},
        ]
        response = await g.post("/bank/batches", {"operations": operations})
        assert response.status_code == 200
        outcomes = response.json()["outcomes"]
        assert [outcome["status"] for outcome in outcomes] == ["ok", "error", "ok", "ok"]
        assert outcomes[0]["request_id"] == "a"
        assert outcomes[1]["code"] == "insufficient_funds"
        assert outcomes[3]["balance"] == 1001
        assert isinstance(g.bank.operations[0], Deposit)


async def test_a_batch_sent_again_under_its_key_is_done_once() -> None:
    async with gateway() as g:
        operations = [
            {"type": "deposit", "account": 1, "amount": 5},
            {"type": "balance", "account": 2},
            {"type": "deposit", "account": 1, "amount": 5},
            {"type": "deposit", "account": 1, "amount": 5, "request_id": "own"},
        ]
        batch = {"operations": operations}
        first, again = [
            await g.post("/bank/batches", batch, headers={"Idempotency-Key": "k"}) for _ in "12"
        ]
        ids = [outcome["request_id"] for outcome in first.json()["outcomes"]]
        assert first.json() == again.json()
        assert ids[3] == "own"
        assert len(set(ids)) == 4
        other = await g.post("/bank/batches", batch, headers={"Idempotency-Key": "l"})
        assert other.json()["outcomes"][0]["request_id"] != ids[0]
        refused = await g.post("/bank/batches", batch, headers={"Idempotency-Key": "x" * 201})
        assert_problem(refused, 422, "invalid")


@pytest.mark.parametrize(
    ("item", "status", "field"),
    [
        ({"type": "theft", "account": 1, "amount": 1}, 422, "operations[1].type"),
        ({"account": 1, "amount": 1}, 422, "operations[1].type"),
        ({"type": "deposit", "account": 1, "amount": 0}, 422, "operations[1].amount"),
        ({"type": "deposit", "account": 1}, 422, "operations[1].amount"),
        ({"type": "deposit", "account": 1, "amount": 1, "x": 1}, 400, "operations[1].x"),
        (
            {"type": "deposit", "account": 1, "amount": 1, "request_id": ""},
            422,
            "operations[1].request_id",
        ),
        (
            {"type": "deposit", "account": 1, "amount": 1, "request_id": "a\n"},
            422,
            "operations[1].request_id",
        ),
        ({"type": "deposit", "account": 1, "amount": 1, "request_id": None}, 422, None),
        ({"type": "transfer", "source": 1, "target": 1, "amount": 1}, 422, "operations[1].target"),
        ("deposit", 422, "operations[1]"),
    ],
)
async def test_one_bad_operation_refuses_the_whole_batch(
    item: object, status: int, field: str | None
) -> None:
    async with gateway() as g:
        good = {"type": "deposit", "account": 1, "amount": 1}
        response = await g.post("/bank/batches", {"operations": [good, item]})
        assert response.status_code == status
        assert field is None or response.json()["field"] == field
        assert g.bank.operations == []


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_of_none_or_too_many_is_422(count: int) -> None:
    async with gateway() as g:
        operations = [{"type": "balance", "account": 1}] * count
        response = await g.post("/bank/batches", {"operations": operations})
        assert assert_problem(response, 422, "invalid")["field"] == "operations"


async def test_repeated_names_in_a_batch_are_400() -> None:
    async with gateway() as g:
        raw = b'{"operations":[{"type":"deposit","account":1,"account":2,"amount":1}]}'
        assert_problem(await g.post("/bank/batches", raw=raw), 400, "malformed")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Unavailable("10.0.0.7:5555 refused"), "unavailable"),
        (errors.Overloaded("queue of 16384 is full"), "overloaded"),
        (errors.Draining("leaving"), "draining"),
        (errors.DeadlinePassed("late"), "deadline_passed"),
        (LockTimeout("locked"), "lock_timeout"),
    ],
)
async def test_no_service_in_time_is_503_and_certainly_nothing_happened(
    error: Exception, code: str
) -> None:
    async with gateway() as g:
        g.bank.error = error
        response = await g.post("/bank/transfers", TRANSFER, headers={"Idempotency-Key": "k"})
        document = assert_problem(response, 503, code)
        assert (document["definite"], document["request_id"]) == (True, "k")
        assert response.headers["retry-after"] == "1"
        assert "10.0.0.7" not in response.text


@pytest.mark.parametrize(
    "error", [errors.ConnectionLost("x"), errors.CallTimeout("x"), errors.Interrupted("x")]
)
async def test_what_may_have_happened_is_503_with_the_id_to_ask_again(
    error: errors.RmiError,
) -> None:
    async with gateway() as g:
        g.bank.error = error
        response = await g.post("/bank/transfers", TRANSFER)
        document = assert_problem(response, 503, error.code)
        assert document["definite"] is False
        assert response.headers["retry-after"]
        g.bank.error = None
        headers = {"Idempotency-Key": document["request_id"]}
        assert (await g.post("/bank/transfers", TRANSFER, headers=headers)).status_code == 201
        assert "request_id" not in error.fields  # the error may be shared with other waiters


async def test_a_batch_that_may_have_happened_names_all_its_ids() -> None:
    async with gateway() as g:
        g.bank.error = errors.CallTimeout("x")
        operations = [
            {"type": "transfer", **TRANSFER, "request_id": "a"},
            {"type": "transfer", **TRANSFER},
        ]
        response = await g.post("/bank/batches", {"operations": operations})
        ids = assert_problem(response, 503, "call_timeout")["request_ids"]
        assert ids[0] == "a"
        assert len(ids[1]) == 36


@pytest.mark.parametrize("error", [errors.InternalError("secret"), RuntimeError("secret")])
async def test_a_failure_inside_is_500_without_its_words(error: Exception, caplog) -> None:
    async with gateway() as g:
        g.bank.error = error
        response = await g.post("/bank/transfers", TRANSFER)
        document = assert_problem(response, 500, "internal")
        assert document["definite"] is False
        assert "secret" not in response.text
        assert "Traceback" not in response.text


async def test_a_retry_after_of_the_error_is_passed_on() -> None:
    async with gateway() as g:
        g.bank.error = errors.Overloaded("full", retry_after_s=2.2)
        response = await g.post("/bank/transfers", TRANSFER)
        assert response.headers["retry-after"] == "3"


async def test_request_ids_made_here_rise() -> None:
    async with gateway() as g:
        for _ in range(20):
            await g.post("/bank/transfers", {**TRANSFER, "amount": 1})
        ids = [operation.request_id for operation in g.bank.operations]
        assert ids == sorted(set(ids))
        assert all(isinstance(operation, Transfer) for operation in g.bank.operations)

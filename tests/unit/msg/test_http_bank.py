"""``/bank/*``: what a good request gets, and what the accounts make of it."""

from __future__ import annotations

import pytest

from rmi_bank.operations import Transfer
from tests.unit.msg.http_bank_requests import CHANGES, TRANSFER
from tests.unit.msg.http_fakes import ADMIN, assert_problem, gateway


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


async def test_request_ids_made_here_rise() -> None:
    async with gateway() as g:
        for _ in range(20):
            await g.post("/bank/transfers", {**TRANSFER, "amount": 1})
        ids = [operation.request_id for operation in g.bank.operations]
        assert ids == sorted(set(ids))
        assert all(isinstance(operation, Transfer) for operation in g.bank.operations)


@pytest.mark.parametrize("amount", [1, 1000])
async def test_amounts_up_to_the_balance_are_taken(amount: int) -> None:
    async with gateway() as g:
        response = await g.post("/bank/withdrawals", {"account": 1, "amount": amount})
        assert response.json()["balance"] == 1000 - amount


async def test_the_largest_amount_is_taken() -> None:
    async with gateway() as g:
        response = await g.post("/bank/deposits", {"account": 1, "amount": 10**15})
        assert response.status_code == 201


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


async def test_an_unknown_account_is_404() -> None:
    async with gateway() as g:
        assert_problem(await g.get("/bank/accounts/99"), 404, "unknown_account")
        response = await g.post("/bank/deposits", {"account": 99, "amount": 1})
        assert assert_problem(response, 404, "unknown_account")["account"] == 99


@pytest.mark.parametrize("segment", ["0", "9" * 16])
async def test_an_account_number_that_cannot_be_is_an_unknown_account(segment: str) -> None:
    async with gateway() as g:
        assert_problem(await g.get(f"/bank/accounts/{segment}"), 404, "unknown_account")


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
        assert assert_problem(again, 409, "account_exists")["request_id"]


@pytest.mark.parametrize("body", [{"account": 9, "balance": -1}, {"account": 9, "owner": "x"}, {}])
async def test_a_bad_account_is_422(body: dict[str, object]) -> None:
    async with gateway() as g:
        assert_problem(await g.post("/bank/accounts", body, headers=ADMIN), 422, "invalid")

"""``/bank/batches``: an outcome per operation, all done once."""

from __future__ import annotations

import pytest

from rmi_bank.operations import Deposit
from rmi_runtime import errors
from tests.unit.msg.http_bank_requests import TRANSFER
from tests.unit.msg.http_fakes import assert_problem, gateway


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


async def test_a_balance_may_have_a_request_id_and_is_told_it() -> None:
    async with gateway() as g:
        operations = [
            {"type": "balance", "account": 2, "request_id": "look"},
            {"type": "deposit", "account": 2, "amount": 1, "request_id": "look"},
            {"type": "balance", "account": 2, "request_id": "look"},
        ]
        response = await g.post("/bank/batches", {"operations": operations})
        outcomes = response.json()["outcomes"]
        assert [(one["request_id"], one["balance"]) for one in outcomes] == [
            ("look", 1000),
            ("look", 1001),
            ("look", 1001),
        ]
        operations[0]["request_id"] = "\n"
        refused = await g.post("/bank/batches", {"operations": operations})
        assert assert_problem(refused, 422, "invalid")["field"] == "operations[0].request_id"


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
        (
            {"type": "deposit", "account": 1, "amount": 1, "request_id": "mañana"},
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


async def test_an_operation_of_an_unknown_type_is_told_the_types_there_are() -> None:
    async with gateway() as g:
        response = await g.post("/bank/batches", {"operations": [{"type": "theft", "account": 1}]})
        detail = assert_problem(response, 422, "invalid")["detail"]
        expected = "expected one of deposit, withdrawal, transfer, balance"
        assert detail == f"operations[0].type: invalid value 'theft'; {expected}"


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

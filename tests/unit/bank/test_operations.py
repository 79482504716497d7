"""What counts as an operation, and how batches travel."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rmi_bank import operations as op
from rmi_bank.errors import SameAccount, UnknownAccount
from rmi_bank.request_ids import new_request_id
from rmi_runtime.errors import InvalidRequest, MalformedRequest

DEPOSIT = {"type": "deposit", "account": 1, "amount": 5, "request_id": "r"}
TRANSFER = {"type": "transfer", "source": 1, "target": 2, "amount": 5, "request_id": "r"}


def test_dictionaries_become_operations() -> None:
    assert op.parse_operation(DEPOSIT) == op.Deposit(1, 5, "r")
    assert op.parse_operation(TRANSFER) == op.Transfer(1, 2, 5, "r")
    assert op.parse_operation({"type": "balance", "account": 3}) == op.BalanceQuery(3)
    named = {"type": "balance", "account": 3, "request_id": "r"}
    assert op.parse_operation(named) == op.BalanceQuery(3, "r")
    withdrawal = {**DEPOSIT, "type": "withdrawal"}
    assert op.parse_operation(withdrawal) == op.Withdrawal(1, 5, "r")
    opening = {"type": "open", "account": 1, "request_id": "r"}
    assert op.parse_operation(opening) == op.OpenAccount(1, "r", 0, None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": 1.0}, "amount"),
        ({"amount": "1"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": float("nan")}, "amount"),
        ({"amount": 10**15 + 1}, "amount"),
        ({"amount": 10**5000}, "amount"),
        ({"account": 0}, "account"),
        ({"account": -3}, "account"),
        ({"account": 2**53 + 1}, "account"),
        ({"account": True}, "account"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 201}, "request_id"),
        ({"request_id": "a\nb"}, "request_id"),
        ({"request_id": "\x00"}, "request_id"),
        ({"request_id": "\ud800"}, "request_id"),
        ({"request_id": 7}, "request_id"),
        ({"type": "theft"}, "type"),
        ({"type": 7}, "type"),
    ],
)
def test_a_value_out_of_range_or_of_another_type_is_refused_by_name(
    change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        op.parse_operation({**DEPOSIT, **change})
    assert caught.value.code == "invalid"
    assert caught.value.fields == {"field": field}


@pytest.mark.parametrize("field", ["type", "account", "amount", "request_id"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        op.parse_operation({name: value for name, value in DEPOSIT.items() if name != field})
    assert caught.value.fields == {"field": field}


def test_what_is_wrong_is_not_read_off_a_callers_own_words() -> None:
    with pytest.raises(MalformedRequest):
        op.parse_operation({**DEPOSIT, "two\nlines": 1})
    for words in ("unknown field `amount`", "missing required field `amount`"):
        with pytest.raises(InvalidRequest) as caught:
            op.parse_operation({**DEPOSIT, "type": words})
        assert (type(caught.value), caught.value.fields["field"]) == (InvalidRequest, "type")


def test_an_unknown_type_is_refused_with_the_types_there_are_and_the_field_named_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        op.parse_batch([DEPOSIT, {**DEPOSIT, "type": "theft"}])
    assert str(caught.value) == (
        "operations[1].type: Invalid value 'theft'; "
        "expected one of deposit, withdrawal, transfer, open, balance"
    )


def test_a_type_that_is_named_as_expected_is_taken() -> None:
    with pytest.raises(InvalidRequest) as caught:
        op.parse_operation({"type": "theft"})
    for kind in str(caught.value).rpartition("one of ")[2].split(", "):
        with pytest.raises(InvalidRequest) as missing:
            op.parse_operation({"type": kind})
        assert "is missing" in str(missing.value)


def test_an_unknown_field_is_malformed() -> None:
    with pytest.raises(MalformedRequest) as caught:
        op.parse_operation({**DEPOSIT, "note": "rent"})
    assert caught.value.fields == {"field": "note"}


@pytest.mark.parametrize(
    "data", [{"type": "\ud800"}, {"\ud800": 1}, {**DEPOSIT, "request_id": "\ud800"}]
)
def test_a_lone_surrogate_is_refused_like_anything_else(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        op.parse_operation(data)


def test_words_like_those_of_an_error_are_read_once() -> None:
    words = " - at `$[" * 100_000 + "]x"
    with pytest.raises(InvalidRequest) as caught:  # read from each of them it takes minutes
        op.parse_operation({"type": words})
    assert caught.value.fields["field"] == "type"


def test_source_and_target_must_differ() -> None:
    with pytest.raises(SameAccount):
        op.parse_operation({**TRANSFER, "target": 1})


@pytest.mark.parametrize("thing", [None, 7, "deposit", [("type", "deposit")], {7: 8}])
def test_what_is_no_dictionary_of_names_is_refused(thing: Any) -> None:
    with pytest.raises(InvalidRequest):
        op.parse_operation(thing)


@pytest.mark.parametrize(
    "request_id", ["r", "x" * 200, "a b", "ключ-1", "01a2001c-e634-7000-8dd8-55c2a4117ca6"]
)
def test_printable_ids_are_taken(request_id: str) -> None:
    assert op.parse_operation({**DEPOSIT, "request_id": request_id})


def test_a_batch_arrives_as_it_was_sent() -> None:
    requests: list[op.Request] = [
        (op.Principal(1, "teller"), op.Deposit(1, 5, "r")),
        (op.Principal(2, "customer"), op.Transfer(1, 2, 10**15, "ключ")),
        (op.Principal(3, "admin"), op.OpenAccount(2**53, "r", 7, None)),
        (op.Principal(3, "admin"), op.BalanceQuery(1)),
    ]
    assert op.unpack_batch(op.pack_batch(requests)) == requests


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"\xc1",
        b"\x91",
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode([[1, "teller"]]),
        msgspec.msgpack.encode([[True, "teller", DEPOSIT]]),
        msgspec.msgpack.encode([[1, "teller", {**DEPOSIT, "amount": 0}]]),
        msgspec.msgpack.encode([[1, "teller", {**TRANSFER, "target": 1}]]),
        b"\x91\x93\x01\xa1\xff\x80",
    ],
)
def test_a_batch_that_makes_no_sense_is_invalid(batch: bytes) -> None:
    with pytest.raises(InvalidRequest):
        op.unpack_batch(batch)


def test_a_batch_has_a_bound() -> None:
    request: op.Request = (op.Principal(1, "teller"), op.BalanceQuery(1))
    assert len(op.unpack_batch(op.pack_batch([request] * op.OPERATIONS_MAX))) == op.OPERATIONS_MAX
    with pytest.raises(InvalidRequest, match="4097"):
        op.unpack_batch(op.pack_batch([request] * (op.OPERATIONS_MAX + 1)))


def test_outcomes_arrive_as_they_were_sent() -> None:
    error = UnknownAccount("account 3 has not been opened", account=3)
    outcomes: list[op.Outcome] = [op.Done(2**62 - 1, 2**40), op.Refused.from_error(error)]
    found = op.unpack_outcomes(op.pack_outcomes(outcomes))
    assert found == outcomes
    again = found[1].to_error()  # type: ignore[union-attr]
    assert type(again) is UnknownAccount
    assert (again.message, again.fields) == (error.message, error.fields)


@pytest.mark.parametrize("definite", [True, False])
def test_a_refusal_of_a_code_nobody_knows_keeps_whether_it_is_definite(definite: bool) -> None:
    error = op.Refused("from_the_future", "?", definite, {"a": 1}).to_error()
    assert error.definite is definite
    assert error.fields == {"a": 1}
    assert error.code == "from_the_future"


def test_request_ids_rise_and_never_repeat() -> None:
    ids = [new_request_id() for _ in range(20_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 36 and one[14] == "7" and one[19] in "89ab" for one in ids)

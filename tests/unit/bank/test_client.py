"""What the client repeats, with which request id, and what it says in the end."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import Any

import pytest

from rmi_bank import BankClient
from rmi_bank.errors import InsufficientFunds, LockTimeout
from rmi_runtime import StoreGone
from rmi_runtime.errors import (
    CallTimeout,
    ConnectionLost,
    DeadlinePassed,
    Forbidden,
    Interrupted,
    InvalidRequest,
    RmiError,
    Unavailable,
)


class Business:
    """Business objects that answer, call by call, as a list says; the last entry for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[Any, ...]] = []

    async def call(
        self, method: str, *args: Any, timeout_s: float, repeatable: bool, unsure: Any
    ) -> Any:
        assert repeatable, "every call may be repeated: it only reads, or it has a request id"
        assert timeout_s > 0
        self.calls.append((method, *args))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, RmiError):
            raise answer
        return answer


def make_client(*answers: Any) -> tuple[BankClient, Business]:
    client = BankClient(token="t", timeout_s=0.1)
    business = Business(*answers)
    client._business = business  # type: ignore[assignment]
    client._loop = asyncio.get_running_loop()  # as if it had been entered
    return client, business


DONE = {"request_id": "r", "balance": 5, "commit": 1}


@pytest.mark.parametrize(
    "failure",
    [
        LockTimeout("busy"),
        DeadlinePassed("late"),
        Interrupted("half-way"),
        CallTimeout("silence"),
        ConnectionLost("gone"),
    ],
)
async def test_what_passes_is_repeated_with_the_same_id(failure: RmiError) -> None:
    client, business = make_client(failure, failure, DONE)
    assert await client.transfer(1, 2, 5) == DONE
    assert len(business.calls) == 3
    assert len(set(business.calls)) == 1
    assert business.calls[0][:4] == ("transfer", 1, 2, 5)
    assert len(business.calls[0][4]) == 36


async def test_a_given_id_is_used() -> None:
    client, business = make_client(DONE)
    await client.deposit(1, 5, request_id="mine")
    assert business.calls == [("deposit", 1, 5, "mine")]


async def test_an_empty_id_is_not_taken_for_none() -> None:
    client, business = make_client(InvalidRequest("request_id: too short"))
    with pytest.raises(InvalidRequest):
        await client.deposit(1, 5, request_id="")
    assert business.calls == [("deposit", 1, 5, "")]


@pytest.mark.parametrize("refusal", [InsufficientFunds("poor"), Forbidden("no"), Unavailable("-")])
async def test_a_refusal_is_not_repeated(refusal: RmiError) -> None:
    client, business = make_client(refusal, DONE)
    with pytest.raises(type(refusal)):
        await client.withdraw(1, 5)
    assert len(business.calls) == 1


async def test_a_refusal_that_knows_the_request_ends_the_doubt() -> None:
    client, _ = make_client(ConnectionLost("gone"), InsufficientFunds("poor"))
    with pytest.raises(InsufficientFunds):
        await client.withdraw(1, 5)


@pytest.mark.parametrize(
    "later", [LockTimeout("busy"), Forbidden("no"), Unavailable("nobody"), StoreGone("deleted")]
)
async def test_once_in_doubt_no_refusal_that_knows_nothing_of_it_makes_it_definite(
    later: RmiError,
) -> None:
    client, business = make_client(ConnectionLost("gone"), later)
    with pytest.raises(ConnectionLost) as caught:
        await client.withdraw(1, 5)
    assert caught.value.fields["request_id"] == business.calls[0][3], "to ask again with"


async def test_without_doubt_the_last_failure_is_told() -> None:
    client, business = make_client(LockTimeout("busy"))
    with pytest.raises(LockTimeout):
        await client.withdraw(1, 5)
    assert len(business.calls) > 1


async def test_changes_of_a_batch_get_ids_and_an_error_tells_them() -> None:
    client, business = make_client(CallTimeout("silence"))
    operations = [
        {"type": "deposit", "account": 1, "amount": 5},
        {"type": "balance", "account": 1},
        {"type": "deposit", "account": 1, "amount": 5, "request_id": "mine"},
    ]
    with pytest.raises(CallTimeout) as caught:
        await client.execute(operations)
    ids = caught.value.fields["request_ids"]
    sent = business.calls[0][1]
    assert ids == [sent[0]["request_id"], None, "mine"]
    assert all(call == business.calls[0] for call in business.calls)
    assert "request_id" not in operations[0], "the caller's own dictionaries are left alone"


@pytest.mark.parametrize("lost", [True, False])
async def test_what_a_batch_is_refused_for_now_is_in_doubt_only_after_a_lost_reply(
    lost: bool,
) -> None:
    ok = {"request_id": "a", "status": "ok", "balance": 5, "commit": 1}
    error = {"status": "error", "message": "m", "definite": True, "fields": {}}
    poor = {"request_id": "b", **error, "code": "insufficient_funds"}
    full = {"request_id": "c", **error, "code": "store_full"}
    client, _ = make_client(*([ConnectionLost("?")] if lost else []), [ok, poor, full])
    found = await client.execute([{"type": "deposit"}] * 3)
    assert found[:2] == [ok, poor]
    assert found[2]["request_id"] == "c"
    assert (found[2]["code"], found[2]["definite"]) == (
        ("interrupted", False) if lost else ("store_full", True)
    )


async def test_any_mapping_is_sent_as_a_plain_dictionary() -> None:
    client, business = make_client([DONE, DONE])
    plain = {"type": "deposit", "account": 1, "amount": 5, "request_id": "mine"}
    balance = {"type": "balance", "account": 1}
    await client.execute([MappingProxyType(plain), MappingProxyType(balance)])
    assert [type(operation) for operation in business.calls[0][1]] == [dict, dict]
    assert business.calls[0][1] == [plain, balance]


async def test_a_name_server_is_not_shown_the_token() -> None:
    client = BankClient(token="secret")
    assert client._name_servers._handshake == "hello"
    assert client._business._proxies._handshake == {"token": "secret"}


@pytest.mark.parametrize("operations", ["x", b"x", 5, {"type": "balance"}, ["x"], [None]])
async def test_what_is_no_list_of_dictionaries_is_refused_before_it_is_sent(
    operations: Any,
) -> None:
    client, business = make_client(DONE)
    with pytest.raises(InvalidRequest, match="dictionar"):
        await client.execute(operations)
    assert not business.calls


@pytest.mark.parametrize("location", ["127.0.0.1", "x", "127.0.0.1:", "127.0.0.1:ns", ""])
def test_a_name_server_that_is_no_place_is_refused_by_name(location: str) -> None:
    with pytest.raises(InvalidRequest, match="host:port") as caught:
        BankClient(["127.0.0.1:9090", location], token="t")
    assert repr(location) in caught.value.message


@pytest.mark.parametrize("timeout_s", [None, "5", float("nan")])
def test_a_timeout_that_is_no_number_is_refused_at_once(timeout_s: Any) -> None:
    with pytest.raises(ValueError, match="expected a number of seconds"):
        BankClient(token="t", timeout_s=timeout_s)

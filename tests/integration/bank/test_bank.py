"""The whole bank in one process: several business objects over one data object, and its clients."""

from __future__ import annotations

import asyncio
import random
import re
import threading
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest

from rmi_bank import BankClient, SyncBankClient, new_request_id
from rmi_bank import operations as op
from rmi_bank.errors import (
    AccountExists,
    AnotherAccount,
    InsufficientFunds,
    RequestIdReused,
    SameAccount,
    UnknownAccount,
)
from rmi_runtime import Proxy
from rmi_runtime.errors import (
    Forbidden,
    InvalidRequest,
    MalformedRequest,
    RmiError,
    Unauthenticated,
)
from tests.integration.bank.cluster import BankCluster

ACCOUNTS = range(1, 11)


async def test_the_four_operations(bank: BankCluster, client: BankClient) -> None:
    done = await client.deposit(1, 50)
    assert done["balance"] == 1050
    assert (await client.withdraw(1, 30))["balance"] == 1020
    assert (await client.transfer(1, 2, 20))["balance"] == 1000
    assert await client.balance(2) == 1020
    page = await client.statement(1, limit=2)
    assert [line["amount"] for line in page["lines"]] == [1000, 50]
    assert page["lines"][1]["request_id"] == done["request_id"]
    assert page["lines"][1]["commit"] == done["commit"]
    page = await client.statement(1, page["next"])
    assert [(line["debit"], line["credit"]) for line in page["lines"]] == [(1, 0), (1, 2)]
    assert page["next"] is None
    assert (await client.statement(1, limit=4))["next"] is None, "there are just as many"


async def test_a_request_id_has_one_effect_through_whichever_business_object(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    first = await one.transfer(1, 2, 5, "r")
    assert await two.transfer(1, 2, 5, "r") == first
    assert await one.transfer(1, 2, 5, "r") == first
    assert bank.balances(1, 2) == [995, 1005]


async def test_the_same_id_at_once_through_two_business_objects_has_one_effect(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    for number in range(20):
        answers = await asyncio.gather(
            *(proxy.transfer(1, 2, 5, f"r{number}") for proxy in (one, two) * 4)
        )
        assert all(answer == answers[0] for answer in answers)
    assert bank.balances(1, 2) == [900, 1100]


async def test_the_same_id_at_once_with_other_payloads_has_one_effect(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    for number in range(20):
        ended = await asyncio.gather(
            one.transfer(1, 2, 5, f"r{number}"),
            two.transfer(3, 4, 7, f"r{number}"),
            return_exceptions=True,
        )
        assert sorted(type(end).__name__ for end in ended) == ["RequestIdReused", "dict"]
    moved = 1000 - (bank.balances(1)[0] or 0), 1000 - (bank.balances(3)[0] or 0)
    assert moved[0] // 5 + moved[1] // 7 == 20


async def test_ids_of_different_clients_are_different_requests(
    bank: BankCluster, one: Proxy, client: BankClient
) -> None:
    await one.deposit(1, 5, "r")
    await client.deposit(1, 6, request_id="r")
    assert bank.balances(1) == [1011]


async def test_a_refusal_for_lack_of_money_stays_a_refusal(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    with pytest.raises(InsufficientFunds) as caught:
        await one.withdraw(1, 1001, "r")
    assert caught.value.fields == {"account": 1, "balance": 1000, "amount": 1001}
    await one.deposit(1, 500, "s")
    with pytest.raises(InsufficientFunds):
        await two.withdraw(1, 1001, "r")
    assert (await two.withdraw(1, 1001, "t"))["balance"] == 499


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("deposit", (1, 0, "r"), InvalidRequest),
        ("deposit", (1, -1, "r"), InvalidRequest),
        ("deposit", (1, 1.5, "r"), InvalidRequest),
        ("deposit", (1, "1", "r"), InvalidRequest),
        ("deposit", (1, True, "r"), InvalidRequest),
        ("deposit", (1, 10**15 + 1, "r"), InvalidRequest),
        ("deposit", (0, 1, "r"), InvalidRequest),
        ("deposit", (1, 1, ""), InvalidRequest),
        ("deposit", (1, 1, None), InvalidRequest),
        ("deposit", (99, 1, "r"), UnknownAccount),
        ("withdraw", (1, 10**15, "r"), InsufficientFunds),
        ("transfer", (1, 1, 1, "r"), SameAccount),
        ("transfer", (1, 99, 1, "r"), UnknownAccount),
        ("balance", (99,), UnknownAccount),
        ("balance", (True,), InvalidRequest),
        ("balance", (0,), InvalidRequest),
        ("statement", (99,), UnknownAccount),
        ("statement", (1, -1), InvalidRequest),
        ("statement", (1, 0, 1001), InvalidRequest),
        ("open_account", (50,), Forbidden),
        ("execute_packed", (b"",), Forbidden),
        ("identify", ("a" * 64,), Forbidden),
        ("statement_for", (1, "teller", 1), Forbidden),
        ("execute", ("all",), InvalidRequest),
        ("execute", ([{"type": "balance", "account": 1}] * 4097,), InvalidRequest),
    ],
)
async def test_every_mistake_has_its_error_and_no_effect(
    bank: BankCluster, one: Proxy, method: str, arguments: tuple[Any, ...], error: type[RmiError]
) -> None:
    before = bank.balances(*ACCOUNTS)
    with pytest.raises(error) as caught:
        await one._call(method, arguments)
    assert caught.value.definite
    assert bank.balances(*ACCOUNTS) == before


async def test_a_stock_client_gets_builtin_errors_with_a_code(bank: BankCluster) -> None:
    token = await bank.token(1, "teller")
    uri = bank.parts["bank.business.1"].uri

    def script() -> list[tuple[str, str, bool]]:
        caught = []
        with Pyro5.api.Proxy(uri) as proxy:
            proxy._pyroHandshake = {"token": token}
            assert proxy.transfer(1, 2, 5, "r")["balance"] == 995
            assert proxy.balance(account=2)["balance"] == 1005
            for method, arguments in (
                ("withdraw", (1, 10**12, "s")),
                ("deposit", (1, -1, "t")),
                ("balance", (99,)),
                ("open_account", (50,)),
                ("transfer", (1, 2, 6, "r")),
            ):
                try:
                    getattr(proxy, method)(*arguments)
                except (ValueError, LookupError, PermissionError) as error:
                    caught.append((type(error).__name__, error.code, error.definite))  # type: ignore[union-attr]
        return caught

    assert await asyncio.to_thread(script) == [
        ("ValueError", "insufficient_funds", True),
        ("ValueError", "invalid", True),
        ("LookupError", "unknown_account", True),
        ("PermissionError", "forbidden", True),
        ("ValueError", "request_id_reused", True),
    ]


async def test_no_token_and_fake_tokens(bank: BankCluster) -> None:
    async with bank.proxy("bank.business.1", "hello") as proxy:
        with pytest.raises(Unauthenticated):
            await proxy.balance(1)
    with pytest.raises(Forbidden):
        await bank.proxy("bank.business.1", {"token": "fake"})._bind()
    async with BankClient([bank.location], token="fake", timeout_s=2.0) as client:
        with pytest.raises(Forbidden):
            await client.deposit(1, 5)
    assert bank.balances(1) == [1000]


async def test_a_customer_has_its_own_accounts_only(bank: BankCluster) -> None:
    await bank.open_accounts(21, balance=100, owner=7)
    token = await bank.token(7, "customer")
    async with BankClient([bank.location], token=token) as customer:
        assert await customer.balance(21) == 100
        assert (await customer.transfer(21, 1, 40))["balance"] == 60
        assert len((await customer.statement(21))["lines"]) == 2
        for forbidden in (
            customer.balance(1),
            customer.statement(1),
            customer.withdraw(1, 5),
            customer.deposit(1, 5),
            customer.transfer(1, 21, 5),
        ):
            with pytest.raises(AnotherAccount):
                await forbidden
    assert bank.balances(1, 21) == [1040, 60]


async def test_an_admin_opens_accounts_and_makes_tokens_and_moves_no_money(
    bank: BankCluster,
) -> None:
    token = await bank.token(9, "admin")
    async with BankClient([bank.location], token=token) as admin:
        assert (await admin.open_account(30, 70, 7, request_id="r"))["balance"] == 70
        assert (await admin.open_account(30, 70, 7, request_id="r"))["balance"] == 70
        with pytest.raises(AccountExists):
            await admin.open_account(30)
        with pytest.raises(InvalidRequest):
            await admin.open_account(31, request_id="")
        with pytest.raises(InvalidRequest):
            await bank.data.open_account(31, request_id="")
        assert await admin.balance(30) == 70
        with pytest.raises(Forbidden):
            await admin.deposit(30, 5)
    assert bank.balances(30) == [70]


async def test_a_batch_is_answered_per_operation_in_order(
    bank: BankCluster, client: BankClient
) -> None:
    outcomes = await client.execute(
        [
            {"type": "transfer", "source": 1, "target": 2, "amount": 1000, "request_id": "a"},
            {"type": "balance", "account": 2},
            {"type": "withdrawal", "account": 1, "amount": 1, "request_id": "b"},
            {"type": "deposit", "account": 1, "amount": 1, "request_id": "a"},
            {"type": "deposit", "account": 99, "amount": 1},
        ]
    )
    assert [outcome.get("code", outcome["status"]) for outcome in outcomes] == [
        "ok",
        "ok",
        "insufficient_funds",
        "request_id_reused",
        "unknown_account",
    ]
    assert outcomes[1]["balance"] == 2000
    assert outcomes[1]["commit"] == outcomes[0]["commit"]
    assert outcomes[4]["request_id"]


@pytest.mark.parametrize(
    ("operation", "error", "field"),
    [
        ({"type": "deposit", "account": 1, "amount": 0}, InvalidRequest, "amount"),
        ({"type": "deposit", "account": 1, "amount": 1, "x": 1}, MalformedRequest, "x"),
        ({"type": "theft"}, InvalidRequest, "type"),
        ({}, InvalidRequest, "type"),
    ],
)
async def test_if_one_operation_of_a_batch_is_malformed_none_is_done(
    bank: BankCluster,
    client: BankClient,
    operation: dict[str, Any],
    error: type[RmiError],
    field: str,
) -> None:
    with pytest.raises(error) as caught:
        await client.execute([{"type": "deposit", "account": 1, "amount": 1}, operation])
    assert caught.value.fields["field"] == f"operations[1].{field}"
    assert bank.balances(1) == [1000]


async def test_balances_of_one_batch_are_of_one_moment(
    bank: BankCluster, client: BankClient, one: Proxy
) -> None:
    async def move() -> None:
        rng = random.Random(1)
        for _ in range(30):
            source, target = rng.sample(ACCOUNTS, 2)
            await one.transfer(source, target, 1, new_request_id())

    async def look() -> None:
        for _ in range(30):
            outcomes = await client.execute([{"type": "balance", "account": a} for a in ACCOUNTS])
            assert sum(outcome["balance"] for outcome in outcomes) == 10_000
            assert len({outcome["commit"] for outcome in outcomes}) == 1

    await asyncio.gather(move(), look())


async def test_concurrent_transfers_through_all_business_objects_keep_the_books(
    bank: BankCluster, client: BankClient
) -> None:
    rng = random.Random(2)

    async def one_request(number: int) -> int:
        source, target = rng.sample(range(1, 5), 2)
        try:
            await client.transfer(source, target, rng.randint(1, 400), request_id=f"r{number}")
        except InsufficientFunds:
            return 0
        return 1

    done = sum(await asyncio.gather(*(one_request(number) for number in range(400))))
    assert 0 < done < 400
    assert sum(balance or 0 for balance in bank.balances(*ACCOUNTS)) == 10_000
    bank.check_books()
    logged = [bank.path / f"bank.business.{number}.log" for number in (1, 2, 3)]
    lines = [path.read_text().splitlines() for path in logged]
    assert all(lines), "every business object had some of it"
    assert sum(map(len, lines)) == done


async def test_the_business_log_is_in_the_seeds_format(bank: BankCluster, one: Proxy) -> None:
    await one.deposit(9, 299, "a")
    await one.deposit(9, 299, "a")
    await one.balance(6)
    await one.withdraw(2, 146, "b")
    await one.transfer(3, 4, 5, "c")
    with pytest.raises(InsufficientFunds):
        await one.withdraw(2, 10**9, "d")
    with pytest.raises(UnknownAccount):
        await one.balance(99)
    lines = (bank.path / "bank.business.1.log").read_text().splitlines()
    stamp = r"Timestamp:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} - "
    assert all(re.match(stamp, line) for line in lines)
    assert [line.split(" - ", 1)[1] for line in lines] == [
        "OperationNumber: 1 - ClientID: 1 - OperationType: Deposito - Account: 9 - Value: 299",
        "OperationNumber: 2 - ClientID: 1 - OperationType: Saldo - Account: 6 - Value: N/A",
        "OperationNumber: 3 - ClientID: 1 - OperationType: Saque - Account: 2 - Value: 146",
        "OperationNumber: 4 - ClientID: 1 - OperationType: Transferencia - Account: 3 - Value: 5",
    ]


async def test_packed_batches_act_for_many_clients(bank: BankCluster) -> None:
    await bank.open_accounts(21, balance=100, owner=7)
    requests: list[op.Request] = [
        (op.Principal(1, "teller"), op.Transfer(1, 2, 5, "r")),
        (op.Principal(2, "teller"), op.Transfer(1, 2, 5, "r")),
        (op.Principal(7, "customer"), op.Withdrawal(21, 100, "r")),
        (op.Principal(7, "customer"), op.Withdrawal(1, 100, "s")),
        (op.Principal(7, "customer"), op.BalanceQuery(21)),
    ]
    async with bank.proxy("bank.business.1") as gateway:
        outcomes = op.unpack_outcomes(await gateway.execute_packed(op.pack_batch(requests)))
        assert [getattr(outcome, "code", "ok") for outcome in outcomes] == [
            "ok",
            "ok",
            "ok",
            "another_account",
            "ok",
        ]
        with pytest.raises(InvalidRequest):
            await gateway.execute_packed(b"nonsense")
        with pytest.raises(InvalidRequest):
            await gateway.execute_packed("text")


async def test_the_plain_script_client_does_the_same_without_a_thread_of_its_own(
    bank: BankCluster,
) -> None:
    token = await bank.token(1, "teller")

    def script() -> tuple[int, int, int]:
        before = threading.active_count()
        with SyncBankClient([bank.location], token=token) as client:
            first = client.transfer(1, 2, 5, request_id="r")
            assert client.transfer(1, 2, 5, request_id="r") == first
            assert client.deposit(3, 5)["balance"] == 1005
            assert client.withdraw(3, 5)["balance"] == 1000
            assert len(client.statement(3)["lines"]) == 3
            assert client.execute([{"type": "balance", "account": 3}])[0]["balance"] == 1000
            with pytest.raises(RequestIdReused):
                client.transfer(1, 2, 6, request_id="r")
            with pytest.raises(Forbidden):
                client.open_account(77)
            return client.balance(2), before, threading.active_count()

    balance, before, after = await asyncio.to_thread(script)
    assert balance == 1005
    assert after == before


async def test_what_can_be_no_token_is_nobodys(bank: BankCluster) -> None:
    async with bank.proxy("bank.business.1") as business:
        for wrong in ([], {}, None, 7, b"a", "a", "é" * 64):
            assert await business.identify(wrong) is None

"""The bank as a gateway sees it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rmi_bank import (
    BalanceQuery,
    BankGateway,
    Deposit,
    Operation,
    Transfer,
    Withdrawal,
    new_request_id,
)
from rmi_bank.errors import AnotherAccount, InsufficientFunds, StoreFull, UnknownAccount
from rmi_bank.gateway_bank import SENDS_UNDER_WAY
from rmi_bank.operations import Done, Outcome, Refused, pack_outcomes, unpack_batch
from rmi_runtime import ANONYMOUS, SERVICE, Endpoints, Identity
from rmi_runtime.errors import (
    ConnectionLost,
    Draining,
    Forbidden,
    Interrupted,
    InvalidRequest,
    RmiError,
    Unavailable,
)
from tests.integration.bank.cluster import SERVICE_HANDSHAKE, BankCluster
from tests.support import eventually, turns

TELLER = Identity("client", 1, "teller")
CUSTOMER = Identity("client", 7, "customer")
ADMIN = Identity("client", 9, "admin")


class Counting:
    """Passes calls on, and counts them by method."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.calls: dict[str, int] = {}

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        assert options["repeatable"], "request ids make all of them so"
        self.calls[method] = self.calls.get(method, 0) + 1
        return await self.endpoints.call(method, *args, **options)


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[BankCluster]:
    async with BankCluster(tmp_path, 2) as bank:
        await bank.open_accounts(1, 2, 3)
        await bank.open_accounts(21, owner=7)
        yield bank


@pytest.fixture
async def calls(bank: BankCluster) -> AsyncIterator[Counting]:
    names = bank.name_servers()
    async with Endpoints(
        names, "bank.business.", handshake=SERVICE_HANDSHAKE, policy="less_busy", timeout_s=5.0
    ) as endpoints:
        yield Counting(endpoints)
    await names.aclose()


@pytest.fixture
async def gateway(calls: Counting) -> AsyncIterator[BankGateway]:
    gateway = BankGateway(calls)
    yield gateway
    await gateway.aclose()


async def test_single_operations(gateway: BankGateway) -> None:
    done = await gateway.execute(TELLER, Transfer(1, 2, 5, "r"))
    assert (done["request_id"], done["balance"]) == ("r", 995)
    assert await gateway.execute(TELLER, Transfer(1, 2, 5, "r")) == done
    found = await gateway.balance(TELLER, 2)
    assert (found["account"], found["balance"]) == (2, 1005)
    opened = await gateway.open_account(ADMIN, 50, 70, 7, "s")
    assert opened["balance"] == 70
    assert (await gateway.balance(CUSTOMER, 50))["balance"] == 70
    page = await gateway.statement(TELLER, 1, 0, 10)
    assert [line["amount"] for line in page["lines"]] == [1000, 5]
    assert set(page) == {"lines", "next"}


async def test_refusals_are_raised_as_they_are(gateway: BankGateway) -> None:
    with pytest.raises(InsufficientFunds):
        await gateway.execute(TELLER, Withdrawal(1, 1001, "r"))
    with pytest.raises(UnknownAccount):
        await gateway.balance(TELLER, 99)
    for forbidden in (
        gateway.balance(CUSTOMER, 1),
        gateway.statement(CUSTOMER, 1),
        gateway.execute(CUSTOMER, Withdrawal(1, 5, "r")),
    ):
        with pytest.raises(AnotherAccount):
            await forbidden
    for identity in (ANONYMOUS, SERVICE):
        with pytest.raises(Forbidden):
            await gateway.balance(identity, 1)


async def test_hundreds_of_requests_at_once_are_few_calls(
    bank: BankCluster, gateway: BankGateway, calls: Counting
) -> None:
    await asyncio.gather(
        *(gateway.execute(TELLER, Deposit(1, 1, new_request_id())) for _ in range(500)),
        *(gateway.balance(TELLER, 2) for _ in range(500)),
    )
    assert bank.balances(1) == [1500]
    assert calls.calls["execute_packed"] < 50


async def test_one_invalid_operation_does_not_spoil_what_it_travels_with(
    bank: BankCluster, gateway: BankGateway
) -> None:
    ended = await asyncio.gather(
        gateway.execute(TELLER, Deposit(1, 5, "a")),
        gateway.execute(TELLER, Deposit(1, -5, "b")),
        gateway.execute(TELLER, Deposit(1, 7, "c")),
        return_exceptions=True,
    )
    assert [type(end) for end in ended] == [dict, InvalidRequest, dict]
    assert bank.balances(1) == [1012]


async def test_what_is_too_much_for_one_message_goes_in_halves(
    bank: BankCluster, gateway: BankGateway, calls: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = calls.call

    async def narrow(method: str, packed: bytes, loose: bool, **options: Any) -> Any:
        if len(packed) > 5_000:
            raise InvalidRequest("send less at once")
        return await call(method, packed, loose, **options)

    monkeypatch.setattr(calls, "call", narrow)
    await asyncio.gather(*(gateway.execute(TELLER, Deposit(1, 1, f"{n}")) for n in range(1000)))
    assert bank.balances(1) == [2000]
    assert calls.calls["execute_packed"] < 50


async def test_what_was_done_before_the_business_objects_went_away_is_told_as_done(
    bank: BankCluster, gateway: BankGateway, calls: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = calls.call

    async def going_away(*args: Any, **options: Any) -> Any:
        if calls.calls.get("execute_packed") == 2:  # all at once (refused), the first
            raise Unavailable("nobody is there any more")
        return await call(*args, **options)

    monkeypatch.setattr(calls, "call", going_away)
    ended = await asyncio.gather(
        *(gateway.execute(TELLER, Deposit(1, amount, f"{amount}")) for amount in (5, -5, 7)),
        return_exceptions=True,
    )
    assert [type(end) for end in ended] == [dict, Unavailable, Unavailable]
    assert bank.balances(1) == [1005]


async def test_on_a_full_disk_what_was_done_before_is_told_whatever_it_travels_with(
    bank: BankCluster, gateway: BankGateway
) -> None:
    done = await gateway.execute(TELLER, Transfer(1, 2, 5, "r"))

    def fill(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    await bank.ledger._writer.run(fill)
    number = 0
    full = False
    while not full:  # the pages there are have room for some
        many = [Deposit(3, 1, f"{number + i}" + "x" * 100) for i in range(500)]
        try:
            outcomes = await gateway.execute_many(TELLER, many)
        except StoreFull:
            full = True
        else:
            assert {outcome["status"] for outcome in outcomes} == {"ok"}
            number += len(many)
    ended = await asyncio.gather(
        *(gateway.execute(TELLER, Deposit(3, 1, f"new {i}" + "x" * 190)) for i in range(200)),
        gateway.execute(TELLER, Transfer(1, 2, 5, "r")),
        return_exceptions=True,
    )
    assert {type(end) for end in ended[:-1]} == {StoreFull}
    assert ended[-1] == done
    both = await gateway.execute_many(
        TELLER,
        [Transfer(1, 2, 5, "r"), *(Deposit(3, 1, f"other {i}" + "x" * 190) for i in range(200))],
    )
    assert both[0] == {"status": "ok", **done}
    assert {outcome["code"] for outcome in both[1:]} == {"store_full"}
    assert bank.balances(1, 3) == [995, 1000 + number]


class Losing:
    """Business objects of which the first to be called loses its reply."""

    def __init__(self, error: RmiError) -> None:
        self.outcomes: list[Outcome] = [Refused.from_error(error), Done(1, 1)]

    async def call(self, method: str, *args: Any, unsure: Any = None, **options: Any) -> Any:
        unsure(ConnectionLost("no reply"))
        return pack_outcomes(self.outcomes)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreFull("no room"), Interrupted),
        (Unavailable("away"), Interrupted),
        (InsufficientFunds("too little"), InsufficientFunds),
        (AnotherAccount("not yours"), AnotherAccount),
    ],
)
async def test_what_is_refused_for_now_after_a_lost_reply_may_have_been_done(
    error: RmiError, told: type[RmiError]
) -> None:
    gateway = BankGateway(Losing(error))
    ended = await asyncio.gather(
        gateway.execute(TELLER, Deposit(1, 1, "a")),
        gateway.execute(TELLER, Deposit(1, 1, "b")),
        return_exceptions=True,
    )
    assert type(ended[0]) is told
    assert isinstance(ended[1], dict)
    await gateway.aclose()


async def test_a_batch_is_answered_per_operation(gateway: BankGateway) -> None:
    operations: list[Operation] = [Deposit(1, 5, "a"), BalanceQuery(1), Withdrawal(99, 5, "b")]
    outcomes = await gateway.execute_many(TELLER, operations)
    assert [outcome["status"] for outcome in outcomes] == ["ok", "ok", "error"]
    assert outcomes[1]["balance"] == 1005
    assert outcomes[2]["code"] == "unknown_account"
    assert await gateway.execute_many(TELLER, []) == []


async def test_tokens_are_identified_and_asked_for_once_in_a_while(
    bank: BankCluster, gateway: BankGateway, calls: Counting
) -> None:
    token = await bank.token(7, "customer")
    for _ in range(5):
        assert await gateway.identify(token) == CUSTOMER
        assert await gateway.identify("fake") is None
    assert calls.calls["identify"] == 2


class Frozen:
    """Business objects that answer when they are let."""

    def __init__(self) -> None:
        self.asked = 0
        self.let = asyncio.Event()

    async def call(self, method: str, packed: bytes, *args: Any, **options: Any) -> bytes:
        self.asked += 1
        await self.let.wait()
        return pack_outcomes([Done(5, 1) for _ in unpack_batch(packed)])


@pytest.mark.parametrize("operation", [BalanceQuery(1), Deposit(1, 5, "a")])
async def test_closing_finishes_what_is_under_way(operation: Operation) -> None:
    frozen = Frozen()
    gateway = BankGateway(frozen)
    asked = asyncio.ensure_future(gateway.execute(TELLER, operation))
    await eventually(lambda: frozen.asked)
    closing = asyncio.ensure_future(gateway.aclose())
    await turns()
    assert not closing.done()
    frozen.let.set()
    assert (await asked)["balance"] == 5
    await closing
    with pytest.raises(Draining):
        await gateway.execute(TELLER, operation)


async def test_what_cannot_be_sent_in_time_is_refused() -> None:
    frozen = Frozen()
    gateway = BankGateway(frozen, batch_max=1, wait_s_max=0.5)
    under_way = []
    for number in range(SENDS_UNDER_WAY):
        operation = Deposit(1, 5, f"{number}")
        under_way.append(asyncio.ensure_future(gateway.execute(TELLER, operation)))
        await eventually(lambda: frozen.asked == len(under_way))
    late = asyncio.ensure_future(gateway.execute(TELLER, Deposit(1, 5, "late")))
    await turns()
    too_late_s = time.monotonic() + 0.6
    await eventually(lambda: time.monotonic() > too_late_s)
    frozen.let.set()
    with pytest.raises(Unavailable):
        await late
    assert len(await asyncio.gather(*under_way)) == frozen.asked
    await gateway.aclose()


async def test_without_any_business_object_the_error_is_definite(
    bank: BankCluster, gateway: BankGateway, calls: Counting
) -> None:
    calls.endpoints._timeout_s = 0.5
    await bank.stop("bank.business.1")
    await bank.stop("bank.business.2")
    with pytest.raises(Unavailable):
        await gateway.execute(TELLER, Deposit(1, 5, "a"))

"""Somebody holds an account for long: who needs it waits, and the rest of the bank goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from pathlib import Path
from typing import Any

import Pyro5.api
import pytest

from rmi_bank import BankClient
from rmi_bank.errors import LockTimeout
from rmi_bank.execution import PATIENCE_S
from rmi_bank.gateway_bank import ALONE_MAX, BankGateway
from rmi_bank.locks import Ticket
from rmi_bank.operations import Deposit, Outcome, Transfer
from rmi_bank.request_ids import new_request_id
from rmi_runtime import Endpoints, Identity, Proxy
from rmi_runtime.errors import Indefinite, Overloaded
from tests.integration.bank.cluster import SERVICE_HANDSHAKE, BankCluster
from tests.support import eventually

TELLER = Identity("client", client=1, role="teller")
HELD = 5
LEASE_S = 120.0
"""Longer than any of these tests, however slow the machine: nothing goes on by a lease's end."""

FREE_S = 8.0
"""Much less than that."""


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[BankCluster]:
    async with BankCluster(tmp_path, 3, data_options={"lease_s": LEASE_S}) as bank:
        await bank.open_accounts(*range(1, 11))
        yield bank


@pytest.fixture
async def one(bank: BankCluster) -> AsyncIterator[Proxy]:
    token = await bank.token(1, "teller")
    async with bank.proxy("bank.business.1", {"token": token}, timeout_s=LEASE_S) as proxy:
        yield proxy


@pytest.fixture
async def holder(bank: BankCluster) -> AsyncIterator[Proxy]:
    async with bank.proxy("bank.data") as proxy:
        yield proxy


@pytest.fixture
async def gateway(bank: BankCluster) -> AsyncIterator[BankGateway]:
    names = bank.name_servers()
    async with Endpoints(
        names, "bank.business.", policy="less_busy", handshake=SERVICE_HANDSHAKE, timeout_s=LEASE_S
    ) as endpoints:
        gateway = BankGateway(endpoints)
        yield gateway
        await gateway.aclose()
    await names.aclose()


async def done_in_time(some: Iterable[Awaitable[Any]]) -> list[Any]:
    async with asyncio.timeout(FREE_S):
        return await asyncio.gather(*some)


async def test_over_http_only_operations_on_the_account_wait(
    bank: BankCluster, holder: Proxy, gateway: BankGateway
) -> None:
    held = await holder.lock(99, [HELD])
    waiting = [
        asyncio.ensure_future(gateway.execute(TELLER, Deposit(HELD, 1, f"held-{n}")))
        for n in range(50)
    ]
    for wave in range(10):  # each of them has some that must wait
        waiting.append(
            asyncio.ensure_future(gateway.execute(TELLER, Transfer(1, HELD, 1, f"to-{wave}")))
        )
        await done_in_time(
            gateway.execute(TELLER, Transfer(1 + n % 4, 6 + n % 5, 1, f"{wave}-{n}"))
            for n in range(40)
        )
    assert not any(one.done() for one in waiting)
    await holder.unlock(held["lease"])
    await asyncio.gather(*waiting)
    assert bank.balances(HELD) == [1060]
    bank.check_books()


async def test_balances_are_told_while_the_account_is_held(
    bank: BankCluster, holder: Proxy, gateway: BankGateway, one: Proxy
) -> None:
    held = await holder.lock(99, [HELD])
    waiting = asyncio.ensure_future(gateway.execute(TELLER, Deposit(HELD, 1, "held")))
    found = await done_in_time([gateway.balance(TELLER, HELD), one.balance(HELD)])
    assert [answer["balance"] for answer in found] == [1000, 1000]
    assert not waiting.done()
    await holder.unlock(held["lease"])
    await waiting


async def test_over_pyro_only_operations_on_the_account_wait(
    bank: BankCluster, holder: Proxy, client: BankClient, one: Proxy
) -> None:
    held = await holder.lock(99, [HELD])
    waiting = [asyncio.ensure_future(one.deposit(HELD, 1, f"held-{n}")) for n in range(20)]
    batch = [{"type": "deposit", "account": a, "amount": 1, "request_id": f"b{a}"} for a in (4, 5)]
    waiting.append(asyncio.ensure_future(one.execute(batch)))
    for wave in range(5):
        await done_in_time(client.transfer(1, 2, 1) for _ in range(20))
        await done_in_time([one.transfer(4, 3, 1, f"four-{wave}")])
    assert not any(one.done() for one in waiting)
    await holder.unlock(held["lease"])
    await asyncio.gather(*waiting)
    assert bank.balances(4, HELD) == [996, 1021]
    bank.check_books()


async def test_all_the_accounts_of_a_holder_are_learnt_at_once(
    bank: BankCluster, holder: Proxy, gateway: BankGateway
) -> None:
    held = await holder.lock(99, [5, 6, 7, 8, 9, 10])
    waiting = [
        asyncio.ensure_future(gateway.execute(TELLER, Deposit(account, 1, f"held-{account}")))
        for account in range(5, 11)
    ]
    await done_in_time(gateway.execute(TELLER, Deposit(1, 1, f"free-{n}")) for n in range(50))
    assert not any(one.done() for one in waiting)
    await holder._close()  # and with its connection its lease ends
    assert held["lease"]
    await asyncio.gather(*waiting)
    assert bank.balances(5, 10, 1) == [1001, 1001, 1050]


async def test_who_waits_for_it_without_patience_keeps_its_other_accounts_from_nobody_else(
    bank: BankCluster, holder: Proxy, gateway: BankGateway
) -> None:
    held = await holder.lock(99, [HELD])
    async with bank.proxy("bank.data", timeout_s=30.0) as other:
        patient = asyncio.ensure_future(other.lock(98, [HELD, 1], [], 30.0))
        await bank.has_tickets(2)
        waiting = asyncio.ensure_future(gateway.execute(TELLER, Deposit(1, 1, "behind it")))
        await done_in_time(
            gateway.execute(TELLER, Deposit(account, 1, f"free-{account}")) for account in (2, 3, 4)
        )
        assert not waiting.done()
        await holder.unlock(held["lease"])
        await other.unlock((await patient)["lease"])
        await waiting
    assert bank.balances(1, 2, 3, 4) == [1001] * 4


async def test_what_the_next_holder_has_not_taken_is_free(
    bank: BankCluster, holder: Proxy, gateway: BankGateway
) -> None:
    held = await holder.lock(99, [HELD, 6])
    waiting = [
        asyncio.ensure_future(gateway.execute(TELLER, Deposit(account, 1, f"held-{account}")))
        for account in (HELD, 6)
    ]
    await bank.has_tickets(2)  # the holder's, and of who waits for it
    async with bank.proxy("bank.data", timeout_s=30.0) as next_holder:
        taken = asyncio.ensure_future(next_holder.lock(98, [HELD], [], 30.0))
        await eventually(lambda: next_of(bank, HELD) == 98)
        await holder.unlock(held["lease"])
        await taken
        await done_in_time([waiting[1], gateway.execute(TELLER, Deposit(6, 1, "free"))])
        assert not waiting[0].done()
    await waiting[0]
    assert bank.balances(HELD, 6) == [1001, 1002]


async def test_holders_that_follow_each_other_let_others_have_their_turn(
    bank: BankCluster, holder: Proxy, one: Proxy
) -> None:
    async with bank.proxy("bank.data", timeout_s=30.0) as other:
        holders, held = [holder, other], await holder.lock(99, [HELD])
        waiting = asyncio.ensure_future(one.deposit(HELD, 1, "r"))
        while not waiting.done():
            await eventually(lambda: waiting.done() or is_waited_for(bank))
            now, then = holders
            taken = asyncio.ensure_future(then.lock(98, [HELD], [], 30.0))
            await eventually(lambda: next_of(bank, HELD, last=True) == 98)
            await now.unlock(held["lease"])
            held = await taken
            holders.reverse()
        assert (await waiting)["balance"] == 1001


def is_waited_for(bank: BankCluster) -> bool:
    """Whether the next one on the account tries it alone, or waits in turn: no impatient round."""
    queue = queue_of(bank, HELD)
    return bool(queue) and (queue[0].keys == {HELD} or queue[0].patience_s > PATIENCE_S)


def next_of(bank: BankCluster, account: int, *, last: bool = False) -> int:
    queue = queue_of(bank, account)
    return queue[-1 if last else 0].business_id if queue else 0


def queue_of(bank: BankCluster, account: int) -> Sequence[Ticket]:
    table = bank.data._desk._table
    assert table is not None
    return table._behind.get(account, ())


async def test_who_waits_no_longer_learns_that_nothing_was_done(
    bank: BankCluster, holder: Proxy, one: Proxy
) -> None:
    held = await holder.lock(99, [HELD])
    async with bank.proxy("bank.business.1", timeout_s=1.5) as hurried:
        with pytest.raises(LockTimeout) as caught:
            await hurried.deposit(HELD, 1, "r")
    assert caught.value.definite
    assert not caught.value.fields, "whose the accounts are that others hold is not for clients"
    await holder.unlock(held["lease"])
    assert (await one.deposit(HELD, 1, "r"))["balance"] == 1001


async def test_a_service_without_patience_is_told_what_is_held(
    bank: BankCluster, holder: Proxy
) -> None:
    await holder.lock(99, [HELD, 6], ["1:a", "1:b"])
    async with bank.proxy("bank.data") as service:
        with pytest.raises(LockTimeout) as caught:
            await service.lock(7, [4, HELD], ["1:a"], 5.0, 1.0, 0.1)
    assert caught.value.fields == {"accounts": [HELD, 6], "request_ids": ["1:a"]}
    uri = bank.parts["bank.data"].uri
    assert await asyncio.to_thread(_code_for_stock_proxy, uri) == "lock_timeout"


def _code_for_stock_proxy(uri: str) -> str:
    with Pyro5.api.Proxy(uri) as stock:
        stock._pyroHandshake = SERVICE_HANDSHAKE
        with pytest.raises(TimeoutError) as raised:
            stock.lock(7, [4, HELD], [], 5.0, patience_s=0.1)
        return str(raised.value.code)  # type: ignore[attr-defined]


async def test_a_lock_is_waited_for_as_long_as_a_business_object_was_told(tmp_path: Path) -> None:
    async with BankCluster(tmp_path, 1, business_options={"lock_wait_s": 1.5}) as bank:
        await bank.open_accounts(1)
        data = bank.objects["bank.business.1"]._data
        call, waits = data.call, []

        async def noted(method: str, *args: Any, **options: Any) -> Any:
            if method == "lock":
                waits.append(args[3])
            return await call(method, *args, **options)

        data.call = noted
        async with bank.proxy("bank.business.1") as service:
            await service.deposit(1, 5, "r")
    assert waits == [1.5]


async def test_those_that_wait_by_themselves_are_bounded(
    holder: Proxy, gateway: BankGateway
) -> None:
    held = await holder.lock(99, [HELD])
    gateway._alone = ALONE_MAX - 1
    waiting = asyncio.ensure_future(gateway.execute(TELLER, Deposit(HELD, 1, new_request_id())))
    await eventually(lambda: gateway._alone == ALONE_MAX)
    with pytest.raises(Overloaded):
        await gateway.execute(TELLER, Deposit(HELD, 1, new_request_id()))
    await done_in_time([gateway.execute(TELLER, Deposit(1, 1, new_request_id()))])
    await holder.unlock(held["lease"])
    await waiting
    assert gateway._alone == ALONE_MAX - 1


async def test_what_may_have_been_done_is_no_definite_refusal_when_another_holds_the_account(
    bank: BankCluster, holder: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        _lose_the_first_reply(bank, holder, f"bank.business.{number}", monkeypatch)
    names = bank.name_servers()
    async with Endpoints(
        names, "bank.business.", handshake=SERVICE_HANDSHAKE, timeout_s=2.0
    ) as endpoints:
        await eventually(lambda: len(endpoints.view()) == 3)
        gateway = BankGateway(endpoints)
        with pytest.raises(Indefinite):
            await gateway.execute(TELLER, Deposit(HELD, 1, "r"))
        await gateway.aclose()
    await names.aclose()
    assert bank.balances(HELD) == [1001]


def _lose_the_first_reply(
    bank: BankCluster, holder: Proxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lose the first reply of all, once it is on disk; and let the holder have the account then."""
    rounds, connections = bank.objects[name]._changes, bank.parts[name].daemon.connections
    run = rounds._run

    async def done_and_lost(*args: Any) -> list[Outcome]:
        outcomes: list[Outcome] = await run(*args)
        monkeypatch.undo()
        await holder.lock(99, [HELD])
        for connection in list(connections):
            connection.abort()
        return outcomes

    monkeypatch.setattr(rounds, "_run", done_and_lost)

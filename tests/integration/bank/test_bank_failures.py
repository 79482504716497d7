"""The whole bank while parts of it die, restart or lose their replies."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rmi_bank import BankClient, execution
from rmi_bank.stores import transactions
from rmi_runtime import Proxy
from rmi_runtime.errors import (
    Forbidden,
    Indefinite,
    Unavailable,
)
from tests.integration.bank.cluster import BankCluster
from tests.support import eventually

ACCOUNTS = range(1, 11)


class Caller:
    """Calls the data object through a function of a test's."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self.call = call


async def test_a_business_object_that_dies_between_lock_and_commit_frees_its_accounts(
    bank: BankCluster, two: Proxy
) -> None:
    async with bank.proxy("bank.business.1") as doomed:
        data_lock = bank.objects["bank.business.1"]._execution._decide
        locked = asyncio.Event()

        async def hang(*args: Any) -> Any:
            locked.set()
            await asyncio.Event().wait()
            return await data_lock(*args)

        bank.objects["bank.business.1"]._execution._decide = hang
        lost = asyncio.ensure_future(doomed.transfer(1, 2, 5, "r"))
        await locked.wait()
        waiting = asyncio.ensure_future(two.transfer(1, 2, 7, "s"))
        await eventually(lambda: bank.data.figures()["tickets"] == 2)
        bank.parts["bank.business.1"].stack.pop_all()  # a crash closes nothing in order
        await bank.objects["bank.business.1"]._data.__aexit__(None, None, None)
        assert (await waiting)["balance"] == 993
        lost.cancel()
    assert bank.balances(1, 2) == [993, 1007]


async def test_a_business_object_that_freezes_between_lock_and_commit_holds_nobody_up_for_long(
    bank: BankCluster, two: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "LEASE_S", 0.3)
    frozen = bank.objects["bank.business.1"]._execution
    decide = frozen._decide
    locked, thaw = asyncio.Event(), asyncio.Event()

    async def freeze(*args: Any) -> Any:
        locked.set()
        await thaw.wait()
        return await decide(*args)

    frozen._decide = freeze
    async with bank.proxy("bank.business.1", timeout_s=8.0) as proxy:
        late = asyncio.ensure_future(proxy.transfer(1, 2, 5, "r"))
        await locked.wait()
        # Any lease may live 10 s, and this gives up after 8.
        assert (await two.transfer(1, 2, 7, "s"))["balance"] == 993
        thaw.set()
        assert (await late)["balance"] == 988, "it has locked again"
    assert bank.data.figures()["leases_expired"] >= 1


class FailingReads:
    """Stands for what reads from the store, and cannot for so many times."""

    def __init__(self, execute: Callable[..., Any], times: int) -> None:
        self._execute = execute
        self.times = times

    def execute(self, *args: Any) -> Any:
        if self.times:
            self.times -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return self._execute(*args)


async def test_a_store_that_cannot_be_read_for_a_moment_delays_what_needs_it(
    bank: BankCluster, one: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await one.transfer(1, 2, 5, "r")
    assert bank.ledger._reader is not None
    known = FailingReads(bank.ledger._reader.execute, 3)
    monkeypatch.setattr(bank.ledger, "_reader", known)
    assert await one.transfer(1, 2, 5, "r") == done
    pages = FailingReads(transactions.statement, 1)
    monkeypatch.setattr(transactions, "statement", pages.execute)
    assert len((await one.statement(1))["lines"]) == 2
    assert (known.times, pages.times) == (0, 0)
    monkeypatch.setattr(bank.ledger, "_reader", FailingReads(known.execute, 1))
    with pytest.raises(Unavailable, match="cannot be read"):
        bank.ledger.known(["1:r"])
    monkeypatch.undo()


async def test_a_restart_of_the_data_object_is_not_noticed_by_clients(
    bank: BankCluster, client: BankClient
) -> None:
    numbers = iter(range(10_000))
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def worker() -> None:
        while not stop.is_set():
            request_id = f"r{next(numbers)}"
            await client.transfer(1, 2, 1, request_id=request_id)
            acknowledged.append(request_id)

    workers = [asyncio.ensure_future(worker()) for _ in range(8)]
    for _ in range(3):
        count = len(acknowledged)
        await eventually(lambda count=count: len(acknowledged) > count + 20)
        await bank.stop("bank.data")
        await bank.start_data()
    count = len(acknowledged)
    await eventually(lambda: len(acknowledged) > count + 20)
    stop.set()
    await asyncio.gather(*workers)
    assert bank.balances(1, 2) == [1000 - len(acknowledged), 1000 + len(acknowledged)]
    assert len(bank.ledger.known([f"2:{key}" for key in acknowledged])) == len(acknowledged)


async def test_a_business_object_that_goes_away_is_not_noticed_by_clients(
    bank: BankCluster, client: BankClient
) -> None:
    async def worker() -> None:
        for _ in range(40):
            await client.transfer(1, 2, 1)

    workers = [asyncio.ensure_future(worker()) for _ in range(8)]
    await eventually(lambda: (bank.balances(2)[0] or 0) > 1020)
    await bank.stop("bank.business.1")
    await asyncio.gather(*workers)
    assert bank.balances(1, 2) == [680, 1320]


async def test_a_reply_that_is_lost_after_the_commit_does_not_double_it(
    bank: BankCluster, one: Proxy
) -> None:
    data = bank.objects["bank.business.1"]._data
    call = data.call
    lost = 0

    async def losing(method: str, *args: Any, **options: Any) -> Any:
        nonlocal lost
        result = await call(method, *args, **options)
        if method == "commit" and not lost:
            lost += 1
            raise Indefinite("the reply was lost")
        return result

    bank.objects["bank.business.1"]._execution._data = type(
        "Losing", (), {"call": staticmethod(losing)}
    )()
    answer = await one.transfer(1, 2, 5, "r")
    assert lost == 1
    assert answer["balance"] == 995
    assert bank.balances(1, 2) == [995, 1005]


@pytest.mark.parametrize("in_doubt", [False, True])
async def test_if_the_data_object_stays_away_the_error_says_truly_whether_it_is_definite(
    tmp_path: Path, in_doubt: bool
) -> None:
    async with BankCluster(tmp_path, 1, business_options={"call_timeout_s": 1.0}) as bank:
        await bank.open_accounts(1, 2)
        business = bank.objects["bank.business.1"]
        call = business._data.call

        async def cut(method: str, *args: Any, **options: Any) -> Any:
            if method == "commit" and in_doubt:
                await bank.stop("bank.data")
                raise Indefinite("the reply was lost")
            return await call(method, *args, **options)

        business._execution._data = Caller(cut)
        if not in_doubt:
            await bank.stop("bank.data")
        async with bank.proxy("bank.business.1", timeout_s=3.0) as proxy:
            with pytest.raises(Indefinite if in_doubt else Unavailable) as caught:
                await proxy._call("transfer", (1, 2, 5, "r"), timeout_s=1.0)
            assert caught.value.definite is not in_doubt


async def test_a_revoked_token_is_refused_within_two_seconds(bank: BankCluster) -> None:
    made = await bank.data.token_create(3, "teller")

    async def refused() -> bool:
        proxy = bank.proxy("bank.business.1", {"token": made["token"]})
        try:
            await proxy._bind()
        except Forbidden:
            return True
        finally:
            await proxy._close()
        return False

    assert not await refused()
    await bank.data.token_revoke(made["id"])
    await eventually(refused, timeout_s=2.0)


async def test_more_than_one_commit_takes_are_several_rounds_however_large_these_may_be(
    tmp_path: Path,
) -> None:
    options = {"round_max": 2**16, "call_timeout_s": 30.0}
    async with BankCluster(tmp_path, 1, business_options=options) as bank:
        async with bank.proxy("bank.business.1", timeout_s=30.0) as service:
            # The first are under way while the others gather: 16,000 accounts, each once.
            batches = [
                [
                    {"type": "transfer", "source": at, "target": at + 1, "amount": 1}
                    | {"request_id": f"{at}"}
                    for at in range(first, first + 2000, 2)
                ]
                for first in range(1, 20_000, 2000)
            ]
            answers = await asyncio.gather(*(service.execute(batch) for batch in batches))
        assert {row["code"] for answer in answers for row in answer} == {"unknown_account"}

"""The data object over the wire: its store, its log and its tokens."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from typing import Any

import pytest

from rmi_bank.errors import AccountExists, LockTimeout, RequestIdReused, StaleLease, StoreFull
from rmi_bank.stores import sqlite as sqlite_store
from rmi_bank.stores import transactions
from rmi_runtime import Proxy
from rmi_runtime.errors import Indefinite, InvalidRequest, RmiError, Unavailable
from tests.integration.bank.cluster import BankCluster
from tests.support import eventually


def io_error() -> sqlite3.OperationalError:
    """Return what SQLite says of a disk that fails."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


async def test_a_store_that_fails_is_opened_anew_and_the_truth_is_told(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    held = await two.lock(2, [3])
    stuck = asyncio.ensure_future(two.lock(2, [1], [], 30))
    got = await one.lock(1, [2], ["7:a"])
    writer = bank.ledger._writer
    written = writer.run

    async def failing(function: Any, *args: Any) -> Any:
        await written(function, *args)
        raise io_error()

    writer.run = failing  # type: ignore[method-assign]
    await stuck
    waiter = asyncio.ensure_future(two.lock(2, [2], [], 30))
    await bank.has_tickets(4)
    with pytest.raises(Indefinite):
        await one.commit(got["lease"], [[2, 0, 5, 0]], [["7:a", "op", "995"]])
    with pytest.raises(Unavailable):
        await waiter

    async def opened() -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await one.lock(1, [2], ["7:a"])
            return found
        except Unavailable:
            return None

    again = await eventually(opened)
    assert again["balances"] == [995], "it was written, after all"
    assert list(again["outcomes"]) == ["7:a"]
    with pytest.raises(StaleLease):
        await two.commit(held["lease"], [[3, 0, 5]])
    assert await one.commit(again["lease"], [[2, 0, 5]])


async def test_the_operation_log_has_a_line_per_account_and_step(
    bank: BankCluster, one: Proxy
) -> None:
    got = await one.lock(5, [1, 2])
    await one.commit(got["lease"], [[1, 2, 30]])
    got = await one.lock(5, [3], ["7:a"])
    await one.unlock(got["lease"])
    await one.balances([2, 99], 6)
    lines = (bank.path / "bank.data.log").read_text().splitlines()
    told = [line.split(" - ", 2)[2] for line in lines if "BusinessServerID: 0" not in line]
    assert told == [
        "BusinessServerID: 5 - OperationType: getlock - Account: 1 - Value: 0",
        "BusinessServerID: 5 - OperationType: getlock - Account: 2 - Value: 0",
        "BusinessServerID: 5 - OperationType: commit - Account: 1 - Value: 970",
        "BusinessServerID: 5 - OperationType: commit - Account: 2 - Value: 1030",
        "BusinessServerID: 5 - OperationType: getlock - Account: 3 - Value: 0",
        "BusinessServerID: 5 - OperationType: unlock - Account: 3 - Value: 0",
        "BusinessServerID: 6 - OperationType: saldo - Account: 2 - Value: 1030",
    ]


async def test_a_commit_that_is_not_written_is_not_logged(
    bank: BankCluster, one: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(transactions, "insert", full)
        got = await one.lock(5, [1, 2])
        with pytest.raises(StoreFull):
            await one.commit(got["lease"], [[1, 2, 30]])
    got = await one.lock(5, [1, 2])
    await one.commit(got["lease"], [[1, 2, 7]])
    lines = (bank.path / "bank.data.log").read_text().splitlines()
    told = [line.split(" - ")[-1] for line in lines if "ID: 5 - OperationType: commit" in line]
    assert told == ["Value: 993", "Value: 1007"]


async def test_tokens_are_made_listed_and_revoked(one: Proxy) -> None:
    made = await one.token_create(4, "customer", 3600)
    assert made["expires_at"] > made["created_at"]
    await one.token_create(5, "admin")
    listed = await one.token_list()
    assert [(token["client"], token["role"]) for token in listed["tokens"]] == [
        (4, "customer"),
        (5, "admin"),
    ]
    assert "token" not in listed["tokens"][0]
    await one.token_revoke(made["id"])
    with pytest.raises(RmiError):
        await one.token_revoke(made["id"])
    for arguments in ((-1, "teller"), (1, "king"), (1, "teller", 0), (True, "teller")):
        with pytest.raises(InvalidRequest):
            await one.token_create(*arguments)


async def test_a_token_that_nobody_waits_for_and_that_is_not_written_is_no_error_of_the_loop(
    bank: BankCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def add_token(token: object) -> None:
        begun.set()
        await go_on.wait()
        raise StoreFull("the disk is full")

    monkeypatch.setattr(bank.ledger, "add_token", add_token)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    looks: list[None] = []
    monkeypatch.setattr(bank.data._store, "look", lambda: looks.append(None))
    making = asyncio.ensure_future(bank.data.token_create(7, "teller"))
    await begun.wait()
    making.cancel()
    await asyncio.wait([making])
    del making  # it remembers whom it waited for
    go_on.set()
    await eventually(lambda: looks)
    gc.collect()
    assert complaints == []


async def test_a_store_that_fails_is_opened_anew_also_if_its_caller_has_given_up(
    bank: BankCluster, one: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, fail = threading.Event(), threading.Event()

    def failing(*args: Any) -> None:
        begun.set()
        assert fail.wait(10)
        raise io_error()

    monkeypatch.setattr(transactions, "add_token", failing)
    epoch = bank.ledger.epoch
    async with bank.proxy("bank.data") as impatient:
        asked = asyncio.ensure_future(impatient.token_create(1, "teller"))
        assert await asyncio.to_thread(begun.wait, 10)
        asked.cancel()
    await eventually(lambda: not bank.parts["bank.data"].daemon.dispatcher.running)
    fail.set()
    await eventually(lambda: bank.ledger.epoch > epoch and not bank.ledger.broken)
    monkeypatch.undo()
    assert (await one.token_create(1, "teller"))["token"]


async def test_a_store_is_opened_anew_however_that_failed_before(
    bank: BankCluster, one: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bank.ledger.start
    errors = [RuntimeError("can't start new thread"), MemoryError(), io_error()]

    async def failing() -> None:
        if errors:
            raise errors.pop()
        await start()

    monkeypatch.setattr(bank.ledger, "start", failing)
    bank.data._store.reopen_soon()
    with pytest.raises(Unavailable):
        await one.lock(1, [1])
    await eventually(lambda: not bank.ledger.broken and not bank.data._store.reopening)
    assert not errors
    assert (await one.lock(1, [1]))["balances"] == [1000]


async def test_a_data_object_that_leaves_lets_nobody_in_again_when_its_store_fails(
    bank: BankCluster, one: Proxy
) -> None:
    data = bank.data
    data._store.reopen_soon()
    data._store.leave()
    await eventually(lambda: not data._store.reopening)
    with pytest.raises(Unavailable):
        await one.lock(1, [1])


async def test_a_commit_that_fails_as_the_store_is_closed_does_not_open_it_again(
    bank: BankCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, fail = threading.Event(), threading.Event()

    def failing(*args: Any) -> None:
        begun.set()
        assert fail.wait(10)
        raise io_error()

    monkeypatch.setattr(transactions, "insert", failing)
    data: Any = bank.data
    commit = asyncio.ensure_future(data.commit(data.lock(1, [1, 2])["lease"], [[1, 2, 5]]))
    assert await asyncio.to_thread(begun.wait, 10)
    stopping = asyncio.ensure_future(bank.stop("bank.data"))
    await eventually(lambda: data._desk._table is None)
    fail.set()
    with pytest.raises(Indefinite):
        await commit
    await stopping
    assert not data._store.reopening
    assert data._ledger.broken


async def test_an_account_that_cannot_be_opened_is_free_at_once(one: Proxy) -> None:
    with pytest.raises(AccountExists):
        await one.open_account(1, 5, None, "r")
    got = await one.lock(1, [1], ["0:r"], 0.0)
    assert got["outcomes"]["0:r"][0] == "open 1 5 None"
    await one.unlock(got["lease"])
    with pytest.raises(RequestIdReused):
        await one.open_account(2, 6, None, "r")
    await one.lock(1, [1, 2], ["0:r"], 0.0)


async def test_an_opening_goes_on_when_its_caller_gives_up_and_keeps_the_account_till_then(
    bank: BankCluster, one: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    insert = sqlite_store._write

    def slow(*args: Any) -> None:
        begun.set()
        assert go_on.wait(10)
        insert(*args)

    monkeypatch.setattr(sqlite_store, "_write", slow)
    opening = asyncio.ensure_future(bank.data.open_account(4, 70))
    assert await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    await asyncio.wait([opening])
    with pytest.raises(LockTimeout):
        await one.lock(1, [4], [], 0.0)
    go_on.set()
    assert (await one.lock(1, [4]))["balances"] == [70]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_lock_that_cannot_tell_the_state_locks_nothing(
    bank: BankCluster, one: Proxy, two: Proxy, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    held = await one.lock(1, [2 if waits else 3])

    def unreadable(*args: Any) -> None:
        raise Unavailable("the store cannot be read now")

    with monkeypatch.context() as patch:
        patch.setattr(bank.ledger, "known", unreadable)
        with pytest.raises(Unavailable):
            await two.lock(2, [1, 2], ["7:a"])
    await one.unlock(held["lease"])
    assert (await one.lock(1, [1, 2], ["7:a"], 0.0))["balances"] == [1000, 1000]


async def test_an_account_that_is_being_opened_is_listed_with_its_balance_or_not_at_all(
    bank: BankCluster, one: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, told = threading.Event(), threading.Event()
    insert = sqlite_store._write

    def slow(*args: Any) -> None:
        insert(*args)
        written.set()
        assert told.wait(10)

    monkeypatch.setattr(sqlite_store, "_write", slow)
    opening = asyncio.ensure_future(one.open_account(4, 70))
    assert await asyncio.to_thread(written.wait, 10)
    listed = await one.account_list(-1, 10)  # it is on disk, and nobody has been told
    assert [row["account"] for row in listed["accounts"]] == [0, 1, 2, 3]
    assert sum(row["balance"] for row in listed["accounts"]) == 0
    told.set()
    opened = await opening
    listed = await one.account_list(-1, 10)
    assert [row["balance"] for row in listed["accounts"]] == [-3070, 1000, 1000, 1000, 70]
    assert listed["commit"] == opened["commit"]


async def test_accounts_opened_while_they_are_listed_are_listed_with_the_cash_they_took(
    bank: BankCluster, one: Proxy
) -> None:
    async def open_some(first: int) -> None:
        for account in range(first, first + 20):
            await one.open_account(account, 5)

    opening = [asyncio.ensure_future(open_some(first)) for first in (100, 200, 300)]
    while not all(task.done() for task in opening):
        listed = await one.account_list(-1, 1000)
        assert sum(row["balance"] for row in listed["accounts"]) == 0
    await asyncio.gather(*opening)
    assert len((await one.account_list(0, 1000))["accounts"]) == 63

"""The data object over the wire: locks, leases, commits, and what a broken connection does."""

from __future__ import annotations

import asyncio
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest

from rmi_bank.errors import InsufficientFunds, LockTimeout, StaleLease, UnknownAccount
from rmi_runtime import Proxy
from rmi_runtime.errors import (
    Conflict,
    DeadlinePassed,
    Forbidden,
    Indefinite,
    InvalidRequest,
    RmiError,
    Unauthenticated,
    Unavailable,
)
from tests.integration.bank.cluster import SERVICE_HANDSHAKE, BankCluster
from tests.support import Clock, eventually


async def test_lock_tells_the_state_and_commit_changes_it(bank: BankCluster, one: Proxy) -> None:
    got = await one.lock(1, [1, 2, 9], ["7:a", "7:b"])
    assert got["balances"] == [1000, 1000, None]
    assert got["owners"] == [None, None, None]
    assert got["outcomes"] == {}
    assert got["cash"] == -3000
    number = await one.commit(got["lease"], [[1, 2, 30, 0]], [["7:a", "transfer 1 2 30", "970"]])
    assert number == got["commit"] + 1
    again = await one.lock(1, [2, 1], ["7:a", "7:b"])
    assert again["balances"] == [1030, 970]
    assert again["outcomes"] == {"7:a": ["transfer 1 2 30", "970", number]}
    assert again["commit"] == number
    assert again["lease"] > got["lease"]
    bank.check_books()


async def test_a_lock_waits_for_its_turn(bank: BankCluster, one: Proxy, two: Proxy) -> None:
    first = await one.lock(1, [1, 2])
    second = asyncio.ensure_future(two.lock(2, [2, 3]))
    await bank.has_tickets(2)
    assert not second.done()
    await one.commit(first["lease"], [[1, 2, 5]])
    assert (await second)["balances"] == [1005, 1000]


async def test_an_unlock_has_no_effect_but_to_free(one: Proxy, two: Proxy) -> None:
    first = await one.lock(1, [1])
    await one.unlock(first["lease"])
    assert (await two.lock(2, [1]))["balances"] == [1000]
    with pytest.raises(StaleLease):
        await one.unlock(first["lease"])


async def test_a_lock_on_a_request_id_alone_makes_others_of_that_id_wait(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    first = await one.lock(1, [1], ["7:a"])
    second = asyncio.ensure_future(two.lock(2, [2], ["7:a"]))
    await bank.has_tickets(2)
    number = await one.commit(first["lease"], [], [["7:a", "op", "1"]])
    assert (await second)["outcomes"] == {"7:a": ["op", "1", number]}


async def test_an_outcome_is_not_written_over(bank: BankCluster, one: Proxy) -> None:
    first = await one.lock(1, [1, 2], ["7:a"])
    number = await one.commit(first["lease"], [[1, 2, 5, 0]], [["7:a", "op", "1"]])
    second = await one.lock(1, [1, 2], ["7:a"])
    with pytest.raises(Conflict):
        await one.commit(second["lease"], [[1, 2, 7, 0]], [["7:a", "other", "2"]])
    await one.unlock(second["lease"])
    third = await one.lock(1, [1, 2], ["7:a"])
    assert third["balances"] == [995, 1005]
    assert third["outcomes"] == {"7:a": ["op", "1", number]}


async def test_a_lock_that_takes_too_long_is_refused_definitely(
    bank: BankCluster, clock: Clock, one: Proxy, two: Proxy
) -> None:
    held = await one.lock(1, [1])
    with pytest.raises(LockTimeout) as caught:
        await two.lock(2, [1, 2], [], 0)
    assert caught.value.definite
    assert bank.data.figures()["tickets"] == 1
    await one.unlock(held["lease"])
    assert (await two.lock(2, [1, 2], [], 0))["lease"]


async def test_a_lock_waits_no_longer_than_its_caller(
    bank: BankCluster, clock: Clock, one: Proxy, two: Proxy
) -> None:
    await one.lock(1, [1])
    waiting = asyncio.ensure_future(two._call("lock", (2, [1], [], 50.0), timeout_s=5.0))
    await bank.has_tickets(2)
    clock.now_s += 5.0
    bank.data._desk._ring()
    with pytest.raises(LockTimeout):
        await waiting
    assert bank.data.figures()["tickets"] == 1


@pytest.mark.parametrize("lease", [0, 1, 2**32, 2**62, 2**63 - 1])
async def test_an_invented_lease_commits_nothing(bank: BankCluster, one: Proxy, lease: int) -> None:
    with pytest.raises(StaleLease):
        await one.commit(lease, [[1, 2, 5]])
    assert bank.balances(1, 2) == [1000, 1000]


async def test_another_connections_lease_commits_nothing(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    got = await one.lock(1, [1, 2])
    for attempt in (two.commit(got["lease"], [[1, 2, 5]]), two.unlock(got["lease"])):
        with pytest.raises(StaleLease):
            await attempt
    assert await one.commit(got["lease"], [[1, 2, 5]])
    assert bank.balances(1, 2) == [995, 1005]


async def test_a_lease_commits_once(bank: BankCluster, one: Proxy) -> None:
    got = await one.lock(1, [1, 2])
    ended = await asyncio.gather(
        *(one.commit(got["lease"], [[1, 2, 5]]) for _ in range(5)), return_exceptions=True
    )
    assert [type(end) for end in ended].count(int) == 1
    assert [type(end) for end in ended].count(StaleLease) == 4
    assert bank.balances(1, 2) == [995, 1005]


async def test_an_expired_lease_commits_nothing_and_its_accounts_are_free(
    bank: BankCluster, clock: Clock, one: Proxy, two: Proxy
) -> None:
    got = await one.lock(1, [1, 2])
    clock.now_s += 10.0
    with pytest.raises(StaleLease):
        await one.commit(got["lease"], [[1, 2, 5]])
    bank.data._desk._ring()
    second = await two.lock(2, [1, 2], [], 0)
    assert second["balances"] == [1000, 1000]
    assert second["lease"] > got["lease"]
    with pytest.raises(StaleLease):
        await one.commit(got["lease"], [[1, 2, 5]])
    assert bank.data.figures()["leases_expired"] == 1


async def test_a_lost_connection_frees_what_it_had_and_what_it_waited_for(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    lost = bank.proxy("bank.data")
    await lost.lock(3, [1])
    mine = await one.lock(1, [2])
    doomed = asyncio.ensure_future(lost.lock(3, [2, 3]))
    await bank.has_tickets(3)
    next_one = asyncio.ensure_future(two.lock(2, [1, 3]))
    await bank.has_tickets(4)
    await lost._close()
    assert (await next_one)["balances"] == [1000, 1000]
    with pytest.raises(Indefinite):
        await doomed
    await one.unlock(mine["lease"])
    assert len(bank.data._connections) == 2, "nothing is kept of the lost one"


async def test_a_stock_client_that_hangs_up_does_not_wait_for_ever(
    bank: BankCluster, one: Proxy
) -> None:
    first = await one.lock(1, [1])
    part = bank.parts["bank.data"]

    def hang_up() -> None:
        with Pyro5.api.Proxy(part.uri) as stock:
            stock._pyroHandshake, stock._pyroTimeout = SERVICE_HANDSHAKE, 0.1
            with pytest.raises(Pyro5.errors.TimeoutError):
                stock.lock(2, [1], [], 60.0)

    running = part.daemon.dispatcher.running
    await asyncio.to_thread(hang_up)
    await bank.has_tickets(1)
    await eventually(lambda: not running)
    await one.unlock(first["lease"])


async def test_a_caller_that_stops_waiting_holds_nobody_up(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    first = await one.lock(1, [1])
    with pytest.raises((Indefinite, DeadlinePassed)):
        await two._call("lock", (2, [1, 2], [], 60.0), timeout_s=0.05)
    await bank.has_tickets(1)
    assert (await two.lock(2, [2], [], 0))["lease"]
    await one.unlock(first["lease"])


async def test_a_commit_goes_on_when_its_caller_is_gone(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    lost = bank.proxy("bank.data")
    got = await lost.lock(3, [1, 2], ["7:a"])
    written = bank.ledger._writer.run
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(function: Any, *args: Any) -> Any:
        started.set()
        await go_on.wait()
        return await written(function, *args)

    bank.ledger._writer.run = slow  # type: ignore[method-assign]
    committing = asyncio.ensure_future(
        lost.commit(got["lease"], [[1, 2, 5, 0]], [["7:a", "x", "1"]])
    )
    await started.wait()
    await lost._close()
    with pytest.raises(Indefinite):
        await committing
    asking = asyncio.ensure_future(one.lock(1, [1, 2], ["7:a"]))
    await bank.has_tickets(2)
    assert not asking.done(), "the accounts are kept until the commit has ended"
    assert (await two.balances([1, 2]))["balances"] == [1000, 1000]
    go_on.set()
    found = await asking
    assert found["balances"] == [995, 1005]
    assert list(found["outcomes"]) == ["7:a"]


@pytest.mark.parametrize(
    ("postings", "outcomes", "opened", "error"),
    [
        ([[1, 2, 1001]], [], [], InsufficientFunds),
        ([[1, 3, 1]], [], [], InvalidRequest),
        ([[1, 9, 1]], [], [], UnknownAccount),
        ([[1, 2, 0]], [], [], InvalidRequest),
        ([[1, 2, -5]], [], [], InvalidRequest),
        ([[1, 2, True]], [], [], InvalidRequest),
        ([[1, 2, 1.5]], [], [], InvalidRequest),
        ([[1, 2, 10**15 + 1]], [], [], InvalidRequest),
        ([[1, 2]], [], [], InvalidRequest),
        ([[1, 1, 5]], [], [], InvalidRequest),
        ([["1", 2, 5]], [], [], InvalidRequest),
        ([[-1, 2, 5]], [], [], InvalidRequest),
        ([[1, 2, 5, 0]], [], [], InvalidRequest),
        ("no list", [], [], InvalidRequest),
        ([], [["7:b", "x", "1"]], [], InvalidRequest),
        ([], [["7:a", "x"]], [], InvalidRequest),
        ([], [["7:a", "x", "y" * 2001]], [], InvalidRequest),
        ([], [], [[8, None]], InvalidRequest),
        ([], [], [[0, None]], InvalidRequest),
    ],
)
async def test_a_commit_against_the_rules_changes_nothing_and_keeps_the_lease(
    bank: BankCluster,
    one: Proxy,
    postings: Any,
    outcomes: Any,
    opened: Any,
    error: type[RmiError],
) -> None:
    got = await one.lock(1, [1, 2, 9], ["7:a"])
    with pytest.raises(error) as caught:
        await one.commit(got["lease"], postings, outcomes, opened)
    assert caught.value.definite
    assert bank.ledger.commit_no == got["commit"]
    assert await one.commit(got["lease"], [[1, 2, 5]]) == got["commit"] + 1


@pytest.mark.parametrize(
    "arguments",
    [
        (1, []),
        (1, [0]),
        (1, [2**53 + 1]),
        (1, ["1"]),
        (1, [True]),
        (1, 5),
        (1, [1], [""]),
        (1, [1], ["x" * 300]),
        (1, [1], [5]),
        (1, [1], [], -1),
        (1, [1], [], 61),
        (1, [1], [], "soon"),
        (1, [1], [], float("nan")),
        (-1, [1]),
        ("one", [1]),
        (1, list(range(1, 20_000))),
    ],
)
async def test_a_lock_that_makes_no_sense_is_refused(
    bank: BankCluster, one: Proxy, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(InvalidRequest):
        await one.lock(*arguments)
    assert bank.data.figures()["tickets"] == 0


async def test_an_empty_commit_frees_and_tells_the_last_number(one: Proxy, two: Proxy) -> None:
    got = await one.lock(1, [1])
    assert await one.commit(got["lease"], []) == got["commit"]
    assert (await two.lock(2, [1], [], 0))["commit"] == got["commit"]


async def test_accounts_can_be_opened_by_a_commit(bank: BankCluster, one: Proxy) -> None:
    got = await one.lock(1, [8], ["7:a"])
    await one.commit(got["lease"], [[0, 8, 50, 0]], [["7:a", "open", "50"]], [[8, 7]])
    found = await one.balances([8, 0, 9])
    assert found["balances"] == [50, -3050, None]
    assert found["owners"] == [7, None, None]


async def test_a_restart_keeps_everything_but_the_leases(bank: BankCluster) -> None:
    async with bank.proxy("bank.data") as before:
        done = await before.lock(1, [1, 2], ["7:a"])
        number = await before.commit(done["lease"], [[1, 2, 5, 0]], [["7:a", "op", "995"]])
        held = await before.lock(1, [1, 2])
    await bank.stop("bank.data")
    await bank.start_data()
    async with bank.proxy("bank.data") as after:
        with pytest.raises(StaleLease):
            await after.commit(held["lease"], [[1, 2, 5]])
        got = await after.lock(1, [1, 2], ["7:a"], 0)
        assert got["balances"] == [995, 1005]
        assert got["outcomes"] == {"7:a": ["op", "995", number]}
        assert got["lease"] > held["lease"]
        assert await after.commit(got["lease"], [[1, 2, 5]]) == number + 1


async def test_statements_and_lists_come_in_pages(bank: BankCluster, one: Proxy) -> None:
    for amount in (5, 6):
        got = await one.lock(1, [1, 2], [f"7:{amount}"])
        await one.commit(got["lease"], [[1, 2, amount, 0]], [[f"7:{amount}", "op", "1"]])
    page = await one.statement(1, 0, 2)
    assert [(line["debit"], line["credit"], line["amount"]) for line in page["lines"]] == [
        (0, 1, 1000),
        (1, 2, 5),
    ]
    assert page["lines"][1]["request_id"] == "5"
    rest = await one.statement(1, page["next"], 2)
    assert [line["amount"] for line in rest["lines"]] == [6]
    assert rest["next"] is None
    with pytest.raises(UnknownAccount):
        await one.statement(99)
    listed = await one.account_list(0, 2)
    assert [entry["balance"] for entry in listed["accounts"]] == [989, 1011]
    rest = await one.account_list(listed["next"], 2)
    assert [entry["account"] for entry in rest["accounts"]] == [3]
    assert rest["next"] is None


@pytest.mark.parametrize("handshake", ["hello", {"token": "fake"}])
async def test_only_services_get_in(bank: BankCluster, handshake: object) -> None:
    proxy = bank.proxy("bank.data", handshake)
    with pytest.raises((Unauthenticated, Forbidden)):
        await proxy.lock(1, [1])
    with pytest.raises((Unauthenticated, Forbidden)):
        await proxy.token_create(1, "admin")
    await proxy._close()


async def test_the_life_cycle_is_not_callable_from_outside(one: Proxy) -> None:
    for name in ("_close", "_start", "_committed"):
        with pytest.raises(AttributeError):
            await one._call(name)
    assert "lock" in one._methods
    assert not {name for name in one._methods if name.startswith("_")}


async def test_an_account_whose_turn_comes_as_the_data_object_leaves_is_not_opened(
    bank: BankCluster,
) -> None:
    data: Any = bank.data
    lease = data.lock(1, [5])["lease"]
    opening = asyncio.ensure_future(data.open_account(5, 70))
    await bank.has_tickets(2)
    data.unlock(lease)
    data._store.leave()  # in the same turn of the loop: what was granted is worth nothing any more
    with pytest.raises(Unavailable):
        await opening
    await bank.stop("bank.data")
    await bank.start_data()
    assert bank.balances(5) == [None], "a definite error is a promise"

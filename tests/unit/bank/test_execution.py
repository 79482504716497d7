"""Rounds of operations against a data object that fails in every way, with a clock that is ours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rmi_bank import execution
from rmi_bank.errors import (
    BalanceLimit,
    LockTimeout,
    RequestIdReused,
    StaleLease,
    StoreFull,
    UnknownAccount,
)
from rmi_bank.execution import LEASE_S, PATIENCE_S, PAUSE_S_MAX, PAUSE_S_MIN, Unfinished
from rmi_bank.operations import BalanceQuery, Deposit, Done, Principal, Refused, Request
from rmi_runtime import StoreGone
from rmi_runtime.errors import (
    CallTimeout,
    Conflict,
    ConnectionLost,
    DeadlinePassed,
    Definite,
    Draining,
    Forbidden,
    Indefinite,
    InternalError,
    Interrupted,
    InvalidRequest,
    Overloaded,
    RmiError,
    Unavailable,
)
from tests.unit.bank.scripted_data import DEPOSIT, READ, TELLER, Data


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries take no time, but the calls' clock goes on."""
    monkeypatch.setattr(execution, "PAUSE_S_MIN", 0.0)


PASSING = [StaleLease, LockTimeout, Overloaded, Unavailable, Draining, DeadlinePassed, StoreFull]


@pytest.mark.parametrize("error", PASSING)
@pytest.mark.parametrize("method", ["lock", "commit"])
async def test_a_definite_failure_is_tried_again(method: str, error: type[RmiError]) -> None:
    data = Data(**{method: [error("not now"), error("not now")]})
    outcomes, done = await data.execution().change(DEPOSIT, 10.0)
    assert outcomes == [Done(105, 1)]
    assert done == [0]
    assert data.balance == 105


@pytest.mark.parametrize("error", [BalanceLimit, Conflict])
async def test_a_commit_refused_by_the_state_is_decided_anew(error: type[RmiError]) -> None:
    data = Data(commit=[error("no")])
    assert (await data.execution().change(DEPOSIT, 10.0))[0] == [Done(105, 1)]
    assert data.calls == ["lock", "commit", "unlock", "lock", "commit"]


@pytest.mark.parametrize("error", [ConnectionLost, CallTimeout, InternalError])
async def test_a_lock_whose_answer_is_lost_is_asked_for_again(error: type[RmiError]) -> None:
    data = Data(lock=[error("?"), "lost"])
    assert (await data.execution().change(DEPOSIT, 10.0))[0] == [Done(105, 1)]


async def test_a_commit_whose_answer_is_lost_is_found_done() -> None:
    data = Data(commit=["lost"])
    outcomes, done = await data.execution().change(DEPOSIT, 10.0)
    assert outcomes == [Done(105, 1)]
    assert data.balance == 105
    assert done == [], "what is known before is not done now, and not logged twice"
    assert not data.leases


async def test_a_commit_that_was_lost_on_the_way_is_made_again() -> None:
    data = Data(commit=[ConnectionLost("?"), CallTimeout("?")])
    assert (await data.execution().change(DEPOSIT, 10.0))[0] == [Done(105, 1)]
    assert data.balance == 105


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"lock": [Unavailable("away")] * 2000}, Unavailable),
        ({"lock": [LockTimeout("busy")] * 2000}, LockTimeout),
        ({"lock": [Overloaded("full")] * 2000}, Overloaded),
        ({"lock": [ConnectionLost("?")] * 2000}, Unavailable),
        ({"commit": [StaleLease("stale")] * 2000}, Unavailable),
        ({"commit": [StoreFull("full")] * 2000}, StoreFull),
        ({"commit": [ConnectionLost("?")], "lock": ["ok", *[LockTimeout("busy")] * 2000]}, None),
        ({"commit": ["lost"], "lock": ["ok", *[Unavailable("away")] * 2000]}, None),
        ({"commit": ["lost"], "lock": ["ok", *[LockTimeout("held", accounts=[1])] * 2000]}, None),
        ({"commit": [ConnectionLost("?"), *[StoreFull("full")] * 2000]}, StoreFull),
    ],
)
async def test_at_the_deadline_the_error_says_truly_whether_nothing_happened(
    script: dict[str, list[RmiError | str]], expected: type[RmiError] | None
) -> None:
    data = Data(**script)
    with pytest.raises(expected or Indefinite) as caught:
        await data.execution().change(DEPOSIT, 10.0)
    assert caught.value.definite is (expected is not None)
    assert data.now_s < 10.1
    if expected is not None:
        assert data.balance == 100, "a definite error is a promise"


async def test_pauses_between_tries_grow_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data(lock=[Unavailable("away")] * 2000)
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        data.now_s += pause_s

    monkeypatch.setattr(execution, "PAUSE_S_MIN", PAUSE_S_MIN)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(Unavailable):
        await data.execution().change(DEPOSIT, 10.0)
    assert pauses[:3] == [PAUSE_S_MIN, 2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN]
    assert pauses[-1] == max(pauses) == PAUSE_S_MAX
    assert data.now_s < 10.1


@pytest.mark.parametrize(("left_s", "expected_s"), [(60.0, 5.0), (3.0, 2.5), (0.4, 0.2)])
async def test_a_lock_waits_no_longer_than_leaves_time_for_its_answer(
    left_s: float, expected_s: float
) -> None:
    data = Data()
    lock, waits = data.lock, []

    def noted(*args: Any) -> Any:
        waits.append(args[3])
        return lock(*args)

    data.lock = noted  # type: ignore[method-assign]
    await data.execution().change(DEPOSIT, left_s)
    assert waits == [pytest.approx(expected_s)]


@pytest.mark.parametrize("refusal", [StoreGone("deleted"), Conflict("another version")])
async def test_a_refused_lock_does_not_settle_what_became_of_a_commit(refusal: RmiError) -> None:
    data = Data(commit=["lost"], lock=["ok", refusal])
    with pytest.raises(Indefinite):
        await data.execution().change(DEPOSIT, 10.0)
    assert data.balance == 105
    assert data.calls == ["lock", "commit", "lock"], "at once: another try would not help"
    data = Data(lock=[refusal])
    with pytest.raises(type(refusal)):
        await data.execution().change(DEPOSIT, 10.0)


async def test_a_mistake_of_ours_is_not_tried_for_ever_and_frees_the_accounts() -> None:
    data = Data(commit=[InvalidRequest("a posting is wrong")])
    with pytest.raises(InvalidRequest):
        await data.execution().change(DEPOSIT, 10.0)
    assert data.calls == ["lock", "commit", "unlock"]


async def test_a_state_that_makes_no_sense_is_not_committed_on_and_the_accounts_are_free() -> None:
    data = Data()
    lock = data.lock
    data.lock = lambda *args: {**lock(*args), "balances": []}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="zip"):
        await data.execution().change(DEPOSIT, 10.0)
    assert data.calls == ["lock", "unlock"]


async def test_a_probe_locks_accounts_and_request_ids_and_frees_them() -> None:
    data = Data()
    call, asked = data.call, []

    async def noted(method: str, *args: Any, timeout_s: float, **options: Any) -> Any:
        asked.append((method, args, timeout_s))
        return await call(method, *args, timeout_s=timeout_s, **options)

    data.call = noted  # type: ignore[method-assign]
    await data.execution().probe([5, "1:r", 6], 2.0)
    (method, args, timeout_s), (last, *_) = asked
    assert (method, last) == ("lock", "unlock")
    assert args == (1, [5, 6], ["1:r"], 2.0, LEASE_S, PATIENCE_S)
    assert timeout_s > 2.0, "else it is not heard that they are held, and by whom"


async def test_what_changes_nothing_is_not_committed() -> None:
    data = Data()
    await data.execution().change(DEPOSIT, 10.0)
    data.calls.clear()
    outcomes, done = await data.execution().change(DEPOSIT, 10.0)
    assert outcomes == [Done(105, 1)]
    assert done == []
    assert data.calls == ["lock", "unlock"]


async def test_an_unlock_that_fails_fails_nothing() -> None:
    data = Data(unlock=[ConnectionLost("?")])
    refused: list[Request] = [(Principal(1, "customer"), Deposit(1, 5, "r"))]
    outcomes, _ = await data.execution().change(refused, 0.02)  # no time is left to ask again
    assert isinstance(outcomes[0], Refused)


async def test_reads_take_no_lock_and_a_lost_answer_is_no_doubt() -> None:
    data = Data()
    assert await data.execution().read(READ, 10.0) == [Done(100, 0)]
    assert data.calls == ["balances"]
    with pytest.raises(Unavailable):
        await Data(balances=[CallTimeout("?")]).execution().read(READ, 10.0)


async def test_a_read_that_is_refused_spoils_no_other_of_its_round() -> None:
    data = Data()
    data.balances = lambda accounts, business_id: {  # type: ignore[method-assign]
        "commit": 7,
        "balances": [100 * n if n != 2 else None for n in accounts],
        "owners": list(accounts),
    }
    customer = Principal(3, "customer")
    requests: list[Request] = [
        (TELLER, BalanceQuery(1)),
        (TELLER, BalanceQuery(2)),
        (customer, BalanceQuery(1)),
        (customer, BalanceQuery(3)),
    ]
    first, unknown, foreign, last = await data.execution().read(requests, 10.0)
    assert (first, last) == (Done(100, 7), Done(300, 7))
    assert isinstance(unknown, Refused)
    assert isinstance(unknown.to_error(), UnknownAccount)
    assert isinstance(foreign, Refused)
    assert isinstance(foreign.to_error(), Forbidden)


async def test_an_unlock_has_time_also_when_the_deadline_has_come() -> None:
    data = Data()
    given: list[float] = []
    call = data.call

    async def timed(method: str, *args: Any, timeout_s: float = 0.0, **options: Any) -> Any:
        if method == "commit":
            data.now_s = 100.0
            raise Conflict("no")
        if method == "unlock":
            given.append(timeout_s)
        return await call(method, *args, timeout_s=timeout_s, **options)

    data.call = timed  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await data.execution().change(DEPOSIT, 10.0)
    assert given[0] >= 0.5


async def test_a_round_can_be_given_up_by_its_caller() -> None:
    data = Data()
    hang = asyncio.Event()

    async def never(*args: Any, **options: Any) -> Any:
        await hang.wait()

    data.call = never  # type: ignore[method-assign]
    task = asyncio.ensure_future(data.execution().change(DEPOSIT, 10.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [StoreFull, Overloaded, Unavailable, ConnectionLost])
async def test_what_was_done_before_is_known_though_the_rest_cannot_be_written(
    error: type[RmiError],
) -> None:
    data = Data()
    await data.execution().change(DEPOSIT, 10.0)
    data.script["commit"] = [error("not now")] * 2000
    again = [DEPOSIT[0], READ[0], (TELLER, Deposit(1, 5, "new")), (TELLER, Deposit(1, 6, "r"))]
    with pytest.raises(Unfinished) as caught:
        await data.execution().change(again, data.now_s + 10.0)
    assert type(caught.value.error) is (error if issubclass(error, Definite) else Interrupted)
    on_record = caught.value.on_record
    assert list(on_record) == [0, 3], "neither what was read nor what is new"
    assert on_record[0] == Done(105, 1)
    assert isinstance(on_record[3], Refused)
    assert on_record[3].code == RequestIdReused.code
    assert data.balance == 105


async def test_what_was_done_before_is_known_though_the_rest_is_in_doubt() -> None:
    data = Data()
    await data.execution().change(DEPOSIT, 10.0)
    data.script.update(commit=["lost"], lock=["ok", *[Unavailable("away")] * 2000])
    with pytest.raises(Unfinished) as caught:
        await data.execution().change(
            [(TELLER, Deposit(1, 5, "new")), DEPOSIT[0]], data.now_s + 10.0
        )
    assert isinstance(caught.value.error, Interrupted)
    assert caught.value.on_record == {1: Done(105, 1)}

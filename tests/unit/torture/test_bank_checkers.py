"""The bank's checkers accept what is right, and catch each kind of wrong."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_torture.checkers import (
    Ledger,
    Line,
    Step,
    check_bank_order,
    check_books,
    check_by_search,
    check_effects,
    search,
)
from rmi_torture.history import OK, Operation
from tests.unit.torture.simulation import ACCOUNTS, OPENING, Simulation

INITIAL = dict.fromkeys(ACCOUNTS, OPENING)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_a_right_history_is_valid(seed: int, clients: int) -> None:
    simulation = Simulation(seed, clients).run(80)
    history, ledger = simulation.operations(), simulation.ledger()
    assert check_bank_order(history, ledger).as_dict()["examples"] == []
    assert check_effects(history, ledger, simulation.opening).as_dict()["examples"] == []
    assert check_books(history, ledger, sum(INITIAL.values())).as_dict()["examples"] == []
    assert check_by_search(history, INITIAL, 40).as_dict()["examples"] == []


@pytest.fixture
def run() -> Simulation:
    return Simulation(7).run(300)


def acknowledged(history: list[Operation], *kinds: str) -> list[Operation]:
    return [op for op in history if op.outcome == OK and op.f in kinds]


def test_a_lost_acknowledged_operation_is_caught(run: Simulation) -> None:
    history = run.operations()
    victim = acknowledged(history, "deposit")[-1].asked["request_id"]
    ledger = Ledger(line for line in run.lines if line.request_id != victim)
    assert check_effects(history, ledger, run.opening).counts["lost"] == 1
    assert not check_bank_order(history, ledger).valid
    assert not check_books(history, ledger, sum(INITIAL.values())).valid


def test_an_open_account_that_was_said_to_be_unknown_is_caught(run: Simulation) -> None:
    history, ledger = run.operations(), run.ledger()
    for f, asked in (
        ("transfer", {"source": 1, "target": 2, "amount": 5, "request_id": "denied"}),
        ("balance", {"account": 3}),
        ("balances", {"accounts": [1, 2, 3]}),
    ):
        denied = Operation(10**6, 99, f, asked, run.now + 1, run.now + 2, "fail")
        denied.error = {"code": "unknown_account"}
        found = check_effects([*history, denied], ledger, run.opening, INITIAL)
        assert found.counts["denied"] == 1
        assert not found.valid
        few = dict.fromkeys(set(ACCOUNTS) - {3, 2}, OPENING)
        assert check_effects([*history, denied], ledger, run.opening, few).valid


def test_an_operation_done_twice_is_caught(run: Simulation) -> None:
    history = run.operations()
    first = next(line for line in run.lines if line.request_id not in run.opening)
    again = first._replace(line=len(run.lines) + 1, commit=run.commit + 1)
    ledger = Ledger([*run.lines, again])
    assert check_effects(history, ledger, run.opening).counts["doubled"] == 1


def test_a_refusal_that_is_kept_and_becomes_a_success_is_caught(run: Simulation) -> None:
    history = run.operations()
    done = next(op for op in history if op.f == "deposit" and op.outcome == "ok")
    earlier = replace(done, outcome="fail", got={}, error={"code": "insufficient_funds"})
    ledger = Ledger(run.lines)
    for tries in ([earlier, *history], [*history, earlier]):
        assert check_effects(tries, ledger, run.opening).counts["refused but done"] == 1
    passing = replace(earlier, error={"code": "unavailable"})
    assert check_effects([passing, *history], ledger, run.opening).valid


def test_a_refused_operation_that_happened_is_caught(run: Simulation) -> None:
    history = run.operations()
    refused = next(op for op in history if op.code == "insufficient_funds" and op.f != "transfer")
    line = run.lines[-1]._replace(
        line=len(run.lines) + 1,
        debit=refused.asked["account"],
        credit=0,
        amount=refused.asked["amount"],
        request_id=refused.asked["request_id"],
    )
    ledger = Ledger([*run.lines, line])
    assert check_effects(history, ledger, run.opening).counts["refused but done"] == 1


def test_money_from_nowhere_is_caught(run: Simulation) -> None:
    line = run.lines[-1]._replace(line=len(run.lines) + 1, request_id="nobody's")
    verdict = check_effects(run.operations(), Ledger([*run.lines, line]), run.opening)
    assert verdict.counts["invented"] == 1


def test_half_a_transfer_is_caught(run: Simulation) -> None:
    history = run.operations()
    victim = acknowledged(history, "transfer")[0].asked["request_id"]
    lines = [line._replace(credit=0) if line.request_id == victim else line for line in run.lines]
    assert check_effects(history, Ledger(lines), run.opening).counts["altered"] == 1


@pytest.mark.parametrize("kind", ["balance", "balances"])
def test_a_read_that_shows_the_past_is_caught(run: Simulation, kind: str) -> None:
    history = run.operations()
    read = acknowledged(history, kind)[-1]
    ledger = run.ledger()
    old = {account: ledger.account(account).at(3) for account in ACCOUNTS}
    past = {"commit": 3}
    past |= {"balances": old} if kind == "balances" else {"balance": old[read.asked["account"]]}
    read.got = {**read.got, **past}
    assert check_bank_order(history, ledger).counts["stale"] == 1


def test_a_read_without_a_commit_number_that_shows_the_past_is_caught(run: Simulation) -> None:
    history = run.operations()
    reads = acknowledged(history, "balance")
    for read in reads:
        read.got = {"balance": read.got["balance"]}
    assert check_bank_order(history, run.ledger()).valid
    reads[-1].got = {"balance": 123_456}
    assert check_bank_order(history, run.ledger()).counts["stale"] == 1
    assert not check_by_search(history, INITIAL, 1000).valid


def test_a_balance_of_its_own_making_is_caught(run: Simulation) -> None:
    history = run.operations()
    told = acknowledged(history, "withdrawal")[-1]
    told.got = {**told.got, "balance": told.got["balance"] + 1}
    assert check_bank_order(history, run.ledger()).counts["wrong balance"] == 1


def test_commits_against_real_time_are_caught(run: Simulation) -> None:
    history = run.operations()
    mutations = acknowledged(history, "deposit", "withdrawal", "transfer")
    early = mutations[0]
    late = next(op for op in mutations if op.began_ns > early.ended_ns)
    ids = [early.asked["request_id"], late.asked["request_id"]]
    commits = [early.got["commit"], late.got["commit"]]
    lines = [
        line._replace(commit=commits[1 - ids.index(line.request_id)])
        if line.request_id in ids
        else line
        for line in run.lines
    ]
    early.got, late.got = (
        {**early.got, "commit": commits[1]},
        {**late.got, "commit": commits[0]},
    )
    assert check_bank_order(history, Ledger(lines)).counts["stale"] >= 1


def test_an_account_below_zero_is_caught(run: Simulation) -> None:
    line = run.lines[-1]._replace(line=len(run.lines) + 1, debit=1, credit=0, amount=10**9)
    verdict = check_bank_order(run.operations(), Ledger([*run.lines, line]))
    assert verdict.counts["overdrawn"] == 1


def test_the_same_id_answered_differently_is_caught(run: Simulation) -> None:
    history = run.operations()
    first = acknowledged(history, "deposit")[0]
    again = dataclasses.replace(
        first, index=10**6, got={**first.got, "balance": 1, "commit": 10**6}
    )
    verdict = check_effects([*history, again], run.ledger(), run.opening)
    assert verdict.counts["changed answer"] == 1


def test_an_id_used_again_for_another_amount_must_be_refused(run: Simulation) -> None:
    history = run.operations()
    first = acknowledged(history, "transfer")[0]
    asked = {**first.asked, "amount": first.asked["amount"] + 1}
    again = dataclasses.replace(first, index=10**6, asked=asked)
    error = {"code": "request_id_reused"}
    refused = dataclasses.replace(again, outcome="fail", got={}, error=error)
    for other, altered in ((again, 1), (refused, 0)):
        both = [*history, other]
        assert check_effects(both, run.ledger(), run.opening).counts["altered"] == altered
    assert check_bank_order([*history, refused], run.ledger()).valid


def test_the_search_knows_concurrent_from_sequential() -> None:
    # A deposit and a read at the same time: the read may see either; one after it may not.
    deposit = Step(0, 10, change=5, after=5)
    assert search([deposit, Step(5, 15, after=0)], 0) == "linearizable"
    assert search([deposit, Step(5, 15, after=5)], 0) == "linearizable"
    assert search([deposit, Step(11, 15, after=0)], 0) == "not linearizable"


def test_the_search_lets_an_operation_of_unknown_end_happen_or_not() -> None:
    unknown = Step(0, 2**63 - 1, change=5, certain=False)
    for seen in (0, 5):
        assert search([unknown, Step(5, 6, after=seen)], 0) == "linearizable"
    assert search([unknown, Step(5, 6, after=6)], 0) == "not linearizable"


def test_the_search_gives_up_after_so_many_steps() -> None:
    steps = [Step(0, 100, change=n) for n in range(1, 12)] + [Step(0, 100, after=-1)]
    assert search(steps, 0, steps_max=50) == "unknown"


def test_a_read_among_the_changes_of_its_commit_may_see_any_moment_between_them() -> None:
    lines = [Line(1, 1, 0, 1, 50, "a"), Line(2, 2, 0, 1, 5, "b"), Line(3, 2, 0, 1, 7, "c")]
    for seen, valid in ((50, True), (55, True), (62, True), (57, False)):
        got = {"balance": seen, "commit": 2}
        read = Operation(9, 1, "balance", {"account": 1}, 10, 20, OK, got)
        assert check_bank_order([read], Ledger(lines)).valid is valid
    full = {"balances": {"1": 55}, "commit": 2}
    read = Operation(9, 1, "balances", {"accounts": [1]}, 10, 20, OK, full)
    assert not check_bank_order([read], Ledger(lines)).valid


def test_books_count_each_request_once_however_often_it_was_tried() -> None:
    lines = [Line(1, 1, 0, 1, 50, "")]
    tries = [
        Operation(
            n, n, "deposit", {"account": 1, "amount": 5, "request_id": "r"}, n, n + 1, outcome
        )
        for n, outcome in enumerate(("info", "ok", "ok"))
    ]
    done = Ledger([*lines, Line(2, 2, 0, 1, 5, "r")])
    assert check_books(tries, done, 50).valid
    assert not check_books(tries, Ledger(lines), 50).valid
    # Without any answer it may be there or not.
    assert check_books(tries[:1], done, 50).valid
    assert check_books(tries[:1], Ledger(lines), 50).valid


def test_the_search_of_a_long_history_looks_at_its_beginning_only() -> None:
    simulation = Simulation(3, 4).run(1500)
    history = simulation.operations()
    verdict = check_by_search(history, INITIAL, 30)
    assert verdict.valid
    assert verdict.checked
    first = next(op for op in history if op.f == "balance" and op.outcome == OK)
    first.got = {**first.got, "balance": 123_456}
    assert not check_by_search(history, INITIAL, 30).valid

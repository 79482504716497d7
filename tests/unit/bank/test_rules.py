"""The rules: each one by example, and all of them under hypothesis against a naive model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_bank import operations as op
from rmi_bank import rules
from rmi_bank.operations import (
    AMOUNT_MAX,
    BALANCE_END,
    CASH,
    BalanceQuery,
    Deposit,
    Done,
    OpenAccount,
    Operation,
    Principal,
    Refused,
    Transfer,
    Withdrawal,
)
from rmi_bank.rules import Books, Decision, Known, decide

TELLER = Principal(1, "teller")
CUSTOMER = Principal(7, "customer")
ADMIN = Principal(9, "admin")


def books(balances: dict[int, int | None], **others: Any) -> Books:
    values: dict[str, Any] = {"owners": {}, "outcomes": {}, "cash": 0, "commit": 40, **others}
    return Books(dict(balances), **values)


def do(
    state: Books, *operations: Operation, principal: Principal = TELLER
) -> tuple[list[Any], Decision]:
    decision = decide([(principal, operation) for operation in operations], state)
    decision.settle(41)
    shown = [
        outcome.code if isinstance(outcome, Refused) else (outcome.balance, outcome.commit)
        for outcome in decision.results
    ]
    return shown, decision


def test_a_deposit_comes_from_cash() -> None:
    shown, decision = do(books({1: 10}), Deposit(1, 5, "r"))
    assert shown == [(15, 41)]
    assert [posting[:3] for posting in decision.postings] == [(CASH, 1, 5)]


def test_a_withdrawal_goes_to_cash() -> None:
    shown, decision = do(books({1: 10}), Withdrawal(1, 10, "r"))
    assert shown == [(0, 41)]
    assert [posting[:3] for posting in decision.postings] == [(1, CASH, 10)]


def test_a_transfer_tells_the_sources_balance() -> None:
    shown, decision = do(books({1: 10, 2: 0}), Transfer(1, 2, 4, "r"))
    assert shown == [(6, 41)]
    assert [posting[:3] for posting in decision.postings] == [(1, 2, 4)]


def test_an_operation_sees_what_the_ones_before_it_left() -> None:
    shown, _ = do(
        books({1: 10, 2: 0}),
        Transfer(1, 2, 10, "a"),
        BalanceQuery(2),
        Withdrawal(2, 10, "b"),
        Withdrawal(2, 1, "c"),
    )
    assert shown == [(0, 41), (10, 41), (0, 41), "insufficient_funds"]


def test_a_read_before_any_change_is_as_of_the_commit_the_lock_showed() -> None:
    shown, _ = do(books({1: 10}), BalanceQuery(1), Deposit(1, 1, "r"))
    assert shown == [(10, 40), (11, 41)]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (Withdrawal(1, 11, "r"), "insufficient_funds"),
        (Transfer(1, 2, 11, "r"), "insufficient_funds"),
        (Deposit(3, 1, "r"), "unknown_account"),
        (Transfer(1, 3, 1, "r"), "unknown_account"),
        (Transfer(3, 1, 1, "r"), "unknown_account"),
    ],
)
def test_what_depends_on_the_state_is_refused_and_stored(operation: op.Change, code: str) -> None:
    shown, decision = do(books({1: 10, 2: 0, 3: None}), operation)
    assert shown == [code]
    assert decision.postings == []
    assert [outcome.request_id for outcome in decision.outcomes] == ["1:r"]
    assert decision.done == []


def test_an_account_that_exists_and_one_that_is_full_are_refused_and_stored_too() -> None:
    shown, decision = do(books({1: 0}), OpenAccount(1, "a"), principal=ADMIN)
    assert (shown, len(decision.outcomes)) == (["account_exists"], 1)
    shown, decision = do(books({1: BALANCE_END - 1}), Deposit(1, 1, "b"))
    assert (shown, len(decision.outcomes)) == (["balance_limit"], 1)


def test_each_posting_names_the_outcome_of_the_request_that_caused_it() -> None:
    _, decision = do(
        books({1: 10, 2: 0}), Deposit(1, 5, "a"), Withdrawal(2, 50, "b"), Transfer(1, 2, 3, "c")
    )
    causes = [decision.outcomes[posting.cause].request_id for posting in decision.postings]
    assert causes == ["1:a", "1:c"]


def test_a_stored_refusal_is_given_again_although_the_state_would_allow_it_now() -> None:
    _, first = do(books({1: 10}), Withdrawal(1, 11, "r"))
    known = Known(first.outcomes[0].fingerprint, first.outcomes[0].result, 12)
    shown, decision = do(books({1: 100}, outcomes={"1:r": known}), Withdrawal(1, 11, "r"))
    assert shown == ["insufficient_funds"]
    assert decision.results[0].to_error().fields == {"account": 1, "balance": 10, "amount": 11}  # type: ignore[union-attr]
    assert not decision.changes


def test_a_known_request_is_answered_with_its_own_balance_and_commit_number() -> None:
    _, first = do(books({1: 10}), Deposit(1, 5, "r"))
    known = Known(first.outcomes[0].fingerprint, first.outcomes[0].result, 12)
    shown, decision = do(books({1: 99}, outcomes={"1:r": known}), Deposit(1, 5, "r"))
    assert shown == [(15, 12)]
    assert not decision.changes
    assert decision.done == []


def test_the_same_id_twice_in_one_list_is_done_once() -> None:
    shown, decision = do(books({1: 10}), Deposit(1, 5, "r"), Deposit(1, 5, "r"))
    assert shown == [(15, 41), (15, 41)]
    assert len(decision.postings) == len(decision.outcomes) == len(decision.done) == 1


@pytest.mark.parametrize(
    "other",
    [Deposit(1, 6, "r"), Deposit(2, 5, "r"), Withdrawal(1, 5, "r"), OpenAccount(1, "r", 5)],
)
def test_an_id_used_for_another_operation_is_refused(other: op.Change) -> None:
    _, first = do(books({1: 10}), Deposit(1, 5, "r"))
    known = Known(first.outcomes[0].fingerprint, first.outcomes[0].result, 12)
    stored = books({1: 10, 2: 10}, outcomes={"1:r": known})
    shown, decision = do(stored, other)
    assert shown == ["request_id_reused"]
    assert not decision.changes
    shown, decision = do(books({1: 10, 2: 10}), Deposit(1, 5, "r"), other)
    assert shown == [(15, 41), "request_id_reused"]
    assert len(decision.outcomes) == 1


@pytest.mark.parametrize(
    "result", ["done", "", "[", "[]", "-5", str(BALANCE_END), "9" * 2000, '[2,"x","y",true,{}]']
)
def test_what_is_stored_and_is_no_outcome_is_refused_and_spoils_nothing_else(result: str) -> None:
    foreign = Known("deposit 1 5", result, 12)
    state = books({1: 10, 2: 20}, outcomes={"1:r": foreign})
    shown, decision = do(state, Deposit(1, 5, "r"), Deposit(2, 5, "s"))
    assert shown == ["conflict", (25, 41)]
    assert len(decision.postings) == len(decision.outcomes) == 1


def test_clients_cannot_collide_with_each_others_ids() -> None:
    decision = decide(
        [
            (Principal(1, "teller"), Deposit(1, 5, "r")),
            (Principal(2, "teller"), Deposit(1, 6, "r")),
        ],
        books({1: 0}),
    )
    assert [outcome.request_id for outcome in decision.outcomes] == ["1:r", "2:r"]
    assert len(decision.postings) == 2


def test_a_customer_debits_and_sees_only_its_own_accounts() -> None:
    state = {1: 10, 2: 10}
    own: dict[str, Any] = {"owners": {1: 7, 2: 8}}
    for operation in (
        Withdrawal(2, 1, "a"),
        Transfer(2, 1, 1, "b"),
        Deposit(2, 1, "c"),
        BalanceQuery(2),
    ):
        shown, decision = do(books(state, **own), operation, principal=CUSTOMER)
        assert shown == ["another_account"]
        assert not decision.changes, "a refusal for lack of rights is not stored"
    shown, _ = do(
        books(state, **own),
        Withdrawal(1, 1, "a"),
        Transfer(1, 2, 1, "b"),
        Deposit(1, 1, "c"),
        BalanceQuery(1),
        principal=CUSTOMER,
    )
    assert shown == [(9, 41), (8, 41), (9, 41), (9, 41)]


def test_an_account_of_nobody_is_not_a_customers() -> None:
    shown, _ = do(books({1: 10}), BalanceQuery(1), principal=CUSTOMER)
    assert shown == ["another_account"]


def test_an_admin_opens_and_reads_but_moves_no_money() -> None:
    shown, decision = do(
        books({1: None, 2: 5}),
        OpenAccount(1, "a", 50, 7),
        BalanceQuery(2),
        Deposit(1, 1, "b"),
        Withdrawal(2, 1, "c"),
        Transfer(2, 1, 1, "d"),
        principal=ADMIN,
    )
    assert shown == [(50, 41), (5, 41), "forbidden", "forbidden", "forbidden"]
    assert decision.opened == [(1, 7)]
    assert [posting[:3] for posting in decision.postings] == [(CASH, 1, 50)]
    assert len(decision.outcomes) == 1


@pytest.mark.parametrize(
    "principal", [TELLER, CUSTOMER, Principal(1, "nonsense"), Principal(1, "")]
)
def test_others_do_not_open_accounts(principal: Principal) -> None:
    shown, decision = do(books({1: None}), OpenAccount(1, "a"), principal=principal)
    assert shown == ["forbidden"]
    assert not decision.changes


def test_a_role_nobody_knows_may_do_nothing() -> None:
    shown, decision = do(
        books({1: 5}), BalanceQuery(1), Deposit(1, 1, "r"), principal=Principal(1, "nonsense")
    )
    assert shown == ["forbidden", "forbidden"]
    assert not decision.changes


def test_an_account_is_opened_once() -> None:
    shown, decision = do(
        books({1: None, 2: 0}),
        OpenAccount(1, "a"),
        OpenAccount(1, "b"),
        OpenAccount(2, "c"),
        OpenAccount(1, "a"),
        principal=ADMIN,
    )
    assert shown == [(0, 41), "account_exists", "account_exists", (0, 41)]
    assert decision.opened == [(1, None)]
    assert decision.postings == []


def test_an_account_opened_in_the_same_list_is_its_owners_at_once() -> None:
    decision = decide(
        [(ADMIN, OpenAccount(1, "a", 9, 7)), (CUSTOMER, Withdrawal(1, 9, "b"))], books({1: None})
    )
    assert all(isinstance(outcome, Done) for outcome in decision.results)


def test_no_balance_passes_what_it_can_hold() -> None:
    full = BALANCE_END - 1
    shown, _ = do(
        books({1: full, 2: 5, 3: full - 5}),
        Deposit(1, 1, "a"),
        Transfer(2, 1, 1, "b"),
        Transfer(2, 3, 5, "c"),
    )
    assert shown == ["balance_limit", "balance_limit", (0, 41)]


def test_the_bank_as_a_whole_has_a_limit() -> None:
    shown, decision = do(
        books({1: 0}, cash=-(BALANCE_END - 1)),
        Deposit(1, 1, "a"),
        OpenAccount(1, "b"),
    )
    assert shown[0] == "balance_limit"
    shown, decision = do(
        books({1: 5}, cash=-(BALANCE_END - 1)), Withdrawal(1, 2, "a"), Deposit(1, 2, "b")
    )
    assert shown == [(3, 41), (5, 41)]
    assert len(decision.postings) == 2


def test_what_must_be_locked_is_all_that_is_touched_once_each() -> None:
    requests: list[op.Request] = [
        (TELLER, Transfer(1, 2, 5, "a")),
        (TELLER, Deposit(2, 5, "a")),
        (CUSTOMER, BalanceQuery(3)),
        (ADMIN, OpenAccount(4, "a")),
    ]
    assert rules.keys(requests) == ([1, 2, 3, 4], ["1:a", "9:a"])


def test_an_id_is_shown_as_the_client_made_it() -> None:
    assert rules.unscoped(rules.scoped(7, "a:b")) == "a:b"
    assert rules.unscoped(None) is None


ACCOUNTS = st.integers(1, 4)
AMOUNTS = st.one_of(st.integers(1, 30), st.sampled_from([AMOUNT_MAX]))
IDS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Deposit, ACCOUNTS, AMOUNTS, IDS),
    st.builds(Withdrawal, ACCOUNTS, AMOUNTS, IDS),
    st.tuples(ACCOUNTS, ACCOUNTS, AMOUNTS, IDS)
    .filter(lambda t: t[0] != t[1])
    .map(lambda t: Transfer(*t)),
    st.builds(BalanceQuery, ACCOUNTS),
    st.builds(OpenAccount, ACCOUNTS, IDS, st.integers(0, 50), st.sampled_from([None, 1, 2])),
)
PRINCIPALS = st.builds(Principal, st.sampled_from([1, 2]), st.sampled_from(rules.ROLES))
BATCHES = st.lists(
    st.lists(st.tuples(PRINCIPALS, OPERATIONS), min_size=1, max_size=6), min_size=1, max_size=8
)


@given(BATCHES)
@settings(max_examples=400, deadline=None)
def test_no_order_of_batches_loses_or_invents_money(batches: list[list[op.Request]]) -> None:
    balances: dict[int, int] = {CASH: 0}
    owners: dict[int, int] = {}
    outcomes: dict[str, Known] = {}
    answers: dict[tuple[str, str], Any] = {}
    for commit, batch in enumerate(batches, 1):
        accounts, ids = rules.keys(batch)
        state = Books(
            {account: balances.get(account) for account in accounts},
            {account: owners[account] for account in accounts if account in owners},
            {key: outcomes[key] for key in ids if key in outcomes},
            balances[CASH],
            commit - 1,
        )
        decision = decide(batch, state)
        decision.settle(commit)
        for account, owner in decision.opened:
            assert account not in balances
            balances[account] = 0
            if owner is not None:
                owners[account] = owner
        for debit, credit, amount, _ in decision.postings:
            assert amount > 0
            balances[debit] -= amount
            balances[credit] += amount
            assert all(b >= 0 for a, b in balances.items() if a != CASH)
        for outcome in decision.outcomes:
            assert outcome.request_id not in outcomes, "an id has one outcome for ever"
            outcomes[outcome.request_id] = Known(outcome.fingerprint, outcome.result, commit)
        assert sum(balances.values()) == 0
        assert {a: b for a, b in state.balances.items() if b is not None} == {
            a: balances[a] for a in accounts if a in balances
        }, "the decider's own view ends where the postings lead"
        assert len(decision.results) == len(batch)
        for (principal, operation), result in zip(batch, decision.results, strict=True):
            if isinstance(operation, BalanceQuery):
                continue
            key = rules.scoped(principal.client, operation.request_id)
            if isinstance(result, Refused) and result.code in ("forbidden", "another_account"):
                continue  # said of the caller's rights, which are not the state's
            if key in outcomes and outcomes[key].fingerprint == rules.fingerprint(operation):
                shown = op.outcome_dict(operation, result)
                asked = (key, rules.fingerprint(operation))
                assert answers.setdefault(asked, shown) == shown, "the same answer, always"

"""The books in memory, and that a start from what is on disk finds them again, at any moment."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_bank.errors import AccountExists, BalanceLimit, InsufficientFunds, UnknownAccount
from rmi_bank.operations import AMOUNT_MAX, BALANCE_END, CASH
from rmi_bank.rules import NewOutcome, Posting
from rmi_bank.stores import Record, folding
from rmi_bank.stores.accounts import Accounts
from rmi_bank.stores.books import MARK_EVERY, Books, Plan, is_marked
from rmi_runtime.errors import Conflict, InvalidRequest


class Disk:
    """What a file would hold: rows as the plans tell, and a start from them."""

    def __init__(self) -> None:
        self.accounts: dict[int, list[Any]] = {CASH: [0, None, 0]}
        self.journal: list[Any] = []
        self.state = (0, 0)

    def write(self, plan: Plan) -> None:
        for account, owner in plan.opened:
            self.accounts[account] = [0, owner, 0]
        self.journal += plan.journal
        for account, balance, last_line in plan.folds:
            self.accounts[account][0] = balance
            self.accounts[account][2] = last_line
        self.state = plan.commit_no, plan.folded_line

    def load(self) -> Books:
        rows = sorted(self.accounts.items())
        books = Books(
            Accounts.of(
                [account for account, _ in rows],
                [row[0] for _, row in rows],
                [row[2] for _, row in rows],
                {account: row[1] for account, row in rows if row[1] is not None},
            ),
            commit_no=self.state[0],
            folded_line=self.state[1],
        )
        books.replay(
            (row[0], row[3], row[4], row[5]) for row in self.journal if row[0] > self.state[1]
        )
        return books


def new_books(balances: dict[int, int]) -> Books:
    count = len(balances)
    return Books(Accounts.of([*balances], [*balances.values()], [0] * count, {}))


def held(books: Books) -> dict[int, int | None]:
    return {account: books.accounts.balance(account) for account in books.accounts}


def planned(books: Books, records: list[Record], at_us: int) -> Plan:
    for record in records:
        keys: set[int | str] = {a for posting in record.postings for a in posting[:2]}
        keys.update(account for account, _ in record.opened)
        keys.update(outcome.request_id for outcome in record.outcomes)
        books.check(record, keys)
    return books.plan(records, at_us)


def opened(*accounts: int, balance: int = 100) -> Record:
    return Record(
        [Posting(CASH, account, balance) for account in accounts],
        opened=[(account, None) for account in accounts],
    )


def fresh(*accounts: int) -> Books:
    books = new_books({CASH: 0})
    books.apply(planned(books, [opened(*accounts)], 1))
    return books


TRANSFERS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 11), st.integers(0, 11), st.integers(1, 40)).filter(
            lambda t: t[0] != t[1]
        ),
        min_size=1,
        max_size=4,
    ),
    max_size=30,
)


@pytest.mark.parametrize("far_apart", [(), (1, 4, 7, 11), range(1, 12)])
@given(groups=TRANSFERS)
@settings(max_examples=100, deadline=None)
def test_a_start_at_any_moment_of_the_folding_finds_the_same_books(
    far_apart: Collection[int], groups: list[list[tuple[int, int, int]]]
) -> None:
    def number(account: int) -> int:
        return account * 1_000_003 if account in far_apart else account

    accounts = [number(account) for account in range(1, 12)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "FOLD_LINES", 12)
        patch.setattr(folding, "_FOLD_LEAST", 1)
        patch.setattr(folding, "_FOLD_PER_LINE", 1)
        disk, books = Disk(), new_books({CASH: 0})
        groups = [[], *groups]
        for at_us, group in enumerate(groups):
            record = opened(*accounts, balance=10**6) if at_us == 0 else Record()
            transfers = [Posting(number(a), number(b), amount) for a, b, amount in group]
            record.postings = [*record.postings, *transfers]
            plan = planned(books, [record], at_us)
            disk.write(plan)
            books.apply(plan)
            again = disk.load()
            assert held(again) == held(books)
            assert again.line == books.line == len(disk.journal)
            for account in accounts:
                line = books.accounts.last_line(account)
                assert again.accounts.last_line(account) == line
            assert sum(balance or 0 for balance in held(books).values()) == 0
            if at_us % 3 == 2:
                books = again  # what was not folded before a start is folded after it
        assert disk.state[1] <= books.line


@pytest.mark.parametrize("step", [1, 10**6], ids=["near", "far apart"])
def test_folding_goes_on_for_ever_so_that_a_start_never_reads_much(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(folding, "FOLD_LINES", 100)
    disk, books = Disk(), new_books({CASH: 0})
    accounts = range(step, 2001 * step, step)
    first = planned(books, [opened(*accounts)], 0)
    disk.write(first)
    books.apply(first)
    for number in range(3000):
        source = number * 7919 % 2000
        posting = Posting(accounts[source], accounts[(source + 1) % 2000], 1)
        plan = planned(books, [Record([posting])], number)
        disk.write(plan)
        books.apply(plan)
        if number > 2000:
            assert books.line - disk.state[1] < 600
        if number % 500 == 0:
            assert held(disk.load()) == held(books)
    assert held(disk.load()) == held(books)


def test_each_line_names_the_one_before_it_on_both_accounts() -> None:
    books = fresh(1, 2)  # lines 1 and 2
    plan = planned(
        books, [Record([Posting(1, 2, 5), Posting(1, 2, 5)]), Record([Posting(2, CASH, 1)])], 9
    )
    assert [(row[0], row[7], row[8]) for row in plan.journal] == [(3, 1, 2), (4, 3, 3), (5, 4, 2)]
    assert plan.commits == [2, 3]


def test_an_account_is_its_owners_as_soon_as_it_is_opened() -> None:
    books = new_books({CASH: 0})
    books.apply(planned(books, [Record([Posting(CASH, 1, 5)], opened=[(1, 7), (2, None)])], 1))
    assert books.accounts.owners([1, 2]) == [7, None]
    assert len(books.accounts) == 3


def test_a_plan_changes_nothing_until_it_is_applied() -> None:
    books = fresh(1, 2)
    before = (held(books), books.line, books.commit_no, books.accounts.last_line(1))
    planned(books, [Record([Posting(1, 2, 5)]), opened(3)], 9)
    assert (held(books), books.line, books.commit_no, books.accounts.last_line(1)) == before


def test_a_posting_names_the_request_that_caused_it() -> None:
    books = fresh(1, 2)
    outcomes = [NewOutcome("1:a", "x", "1"), NewOutcome("1:b", "y", "2")]
    record = Record([Posting(1, 2, 5, 1), Posting(1, 2, 5), Posting(1, 2, 5, 0)], outcomes)
    plan = planned(books, [record], 9)
    assert [row[6] for row in plan.journal] == [2, None, 1]
    assert plan.outcomes == [(1, "1:a", 2, "x", "1"), (2, "1:b", 2, "y", "2")]


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (Record([Posting(1, 2, 101)]), InsufficientFunds),
        (Record([Posting(1, 2, 60), Posting(1, 2, 60)]), InsufficientFunds),
        (Record([Posting(1, CASH, 101)]), InsufficientFunds),
        (Record([Posting(1, 9, 1)]), UnknownAccount),
        (Record([Posting(1, 3, 1)]), InvalidRequest),
        (Record([Posting(1, 1, 1)]), InvalidRequest),
        (Record([Posting(CASH, CASH, 1)]), InvalidRequest),
        (Record([Posting(1, 2, 1, 0)]), InvalidRequest),
        (Record([Posting(1, 2, 1, -2)]), InvalidRequest),
        (Record(opened=[(1, None)]), AccountExists),
        (Record(opened=[(9, None), (9, None)]), AccountExists),
        (Record(opened=[(8, None)]), InvalidRequest),
        (Record(outcomes=[NewOutcome("1:b", "x", "1")]), InvalidRequest),
        (Record(outcomes=[NewOutcome("1:a", "x", "1")] * 2), InvalidRequest),
        (Record([Posting(CASH, 1, AMOUNT_MAX)] * (BALANCE_END // AMOUNT_MAX + 1)), BalanceLimit),
    ],
)
def test_a_record_that_breaks_a_rule_is_refused(record: Record, error: type[Exception]) -> None:
    books = fresh(1, 2, 3)
    with pytest.raises(error):
        books.check(record, {1, 2, 9, "1:a"})


def test_money_may_pass_through_an_account_in_one_record() -> None:
    books = fresh(1, 2, 3)
    passing = Record([Posting(1, 2, 100), Posting(2, 3, 200)])
    opening = Record([Posting(CASH, 9, 5), Posting(9, 1, 5)], opened=[(9, None)])
    for record in (passing, opening):
        books.apply(planned(books, [record], 2))
    assert held(books) == {CASH: -305, 1: 5, 2: 0, 3: 300, 9: 0}


def test_an_account_that_would_hold_too_much_is_named() -> None:
    books = fresh(1, 2)
    books.accounts.take({2: BALANCE_END - 5}, {})
    with pytest.raises(BalanceLimit) as refused:
        books.check(Record([Posting(1, 2, 5)]), {1, 2})
    assert refused.value.fields == {"account": 2}


def test_one_transaction_takes_no_more_than_cash_can_hold() -> None:
    books = fresh(1, 2)
    books.accounts.take({CASH: -(BALANCE_END - 2 * AMOUNT_MAX - 1)}, {})
    big = Record([Posting(CASH, 1, AMOUNT_MAX)])
    books.accounts.take({1: AMOUNT_MAX}, {})
    back = Record([Posting(1, CASH, AMOUNT_MAX)])
    for record in (big, back):
        books.check(record, {1})
    assert books.fitting([big, big]) == 2
    assert books.fitting([big, big, big]) == 2
    assert books.fitting([big, back, big, big]) == 4
    books.accounts.take({CASH: -(BALANCE_END - AMOUNT_MAX)}, {})
    assert books.fitting([big]) == 0


def test_one_transaction_has_a_bounded_size_unless_one_commit_is_bigger() -> None:
    books = fresh(1, 2)
    record = Record([Posting(1, 2, 1), Posting(2, 1, 1)] * 4096)
    assert books.fitting([record] * 3) == 2
    assert books.fitting([Record([*record.postings] * 5), record]) == 1


def test_books_that_do_not_balance_are_not_opened() -> None:
    with pytest.raises(Conflict, match="do not balance"):
        new_books({CASH: -100, 1: 101}).replay([])


def test_a_journal_that_makes_more_than_64_bits_of_a_balance_is_refused() -> None:
    with pytest.raises(Conflict, match="do not balance"):
        new_books({CASH: -100, 1: 100}).replay([(1, CASH, 1, 2**63 - 1)])


@pytest.mark.parametrize("account", [-1, -400])
def test_a_journal_line_of_an_account_below_0_is_refused(account: int) -> None:
    with pytest.raises(Conflict, match=f"do not balance: line 1 is of account {account}"):
        new_books({CASH: -100, 1: 100}).replay([(1, account, 1, 5)])


def test_about_one_entry_in_64_is_marked_on_every_account() -> None:
    for account in (1, 2, 10**6, 2**53):
        marked = [line for line in range(1, 64_001) if is_marked(account, line)]
        assert 800 < len(marked) < 1200
        assert max(b - a for a, b in pairwise(marked)) < 20 * MARK_EVERY


@pytest.mark.parametrize("step", [1, 10**6], ids=["near", "far apart"])
def test_only_what_was_touched_since_is_written_again(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(folding, "FOLD_LINES", 100)
    accounts = range(step, 201 * step, step)
    books = fresh(*accounts)
    written: list[int] = []
    for number in range(1000):
        plan = planned(
            books, [Record([Posting(accounts[number % 3], accounts[(number + 1) % 3], 1)])], number
        )
        books.apply(plan)
        if number > 500:
            written += [fold[0] for fold in plan.folds]
    assert {*accounts[:3]} <= {*written} <= {CASH, *accounts[:3]}

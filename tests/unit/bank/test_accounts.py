"""What memory keeps of accounts, against a plain dictionary: numbers near, far and in between."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rmi_bank.operations import ACCOUNT_MAX, BALANCE_END
from rmi_bank.stores import accounts as accounts_module
from rmi_bank.stores.accounts import Accounts

NUMBERS = st.one_of(
    st.integers(0, 40), st.integers(0, 3000), st.integers(0, ACCOUNT_MAX), st.just(ACCOUNT_MAX)
)
BALANCES = st.one_of(st.integers(0, 1000), st.integers(-BALANCE_END + 1, BALANCE_END - 1))
OWNERS = st.none() | st.integers(0, ACCOUNT_MAX)


class AgainstADictionary(RuleBasedStateMachine):
    """Opens accounts and moves what is on them."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts = Accounts()
        self.model: dict[int, tuple[int, int, int | None]] = {}

    @rule(account=NUMBERS, owner=OWNERS)
    def open(self, account: int, owner: int | None) -> None:
        if account not in self.model:
            self.accounts.open(account, owner)
            self.model[account] = (0, 0, owner)

    @rule(first=st.integers(0, 2000), count=st.integers(1, 60))
    def open_many(self, first: int, count: int) -> None:
        for account in range(first, first + count):
            self.open(account, None)

    @rule(data=st.data(), balance=BALANCES, line=st.integers(1, 2**62))
    def take(self, data: st.DataObject, balance: int, line: int) -> None:
        if self.model:
            account = data.draw(st.sampled_from(sorted(self.model)))
            self.accounts.take({account: balance}, {account: line})
            self.model[account] = (balance, line, self.model[account][2])

    @invariant()
    def is_the_same(self) -> None:
        accounts, model = self.accounts, self.model
        assert len(accounts) == len(model)
        assert sorted(accounts) == sorted(model)
        asked = [*model, *range(0, 3100, 7), 41, ACCOUNT_MAX - 1]
        nothing = (None, 0, None)
        found = [model.get(account, nothing) for account in asked]
        assert accounts.balances(asked) == [one[0] for one in found]
        assert [accounts.last_line(account) for account in asked] == [one[1] for one in found]
        assert accounts.owners(asked) == [one[2] for one in found]
        assert [account in accounts for account in asked] == [a in model for a in asked]
        assert accounts.total() == sum(one[0] for one in model.values())

    @rule()
    def load(self) -> None:
        numbers = sorted(self.model)
        rows = [self.model[number] for number in numbers]
        owners = {number: row[2] for number, row in self.model.items() if row[2] is not None}
        self.accounts = Accounts.of(
            numbers, [row[0] for row in rows], [row[1] for row in rows], owners
        )


@pytest.mark.parametrize("spare", [4, 1024])
def test_it_keeps_what_a_dictionary_would(spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "_SPARE", spare)
    case = AgainstADictionary.TestCase()
    case.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    case.runTest()


@given(st.lists(NUMBERS, unique=True, max_size=50))
@settings(max_examples=50, deadline=None)
def test_numbers_far_apart_take_no_room_of_those_between(numbers: list[int]) -> None:
    accounts = Accounts()
    for number in numbers:
        accounts.open(number)
    assert len(accounts.dense) <= 2 * (1024 + 2 * len(numbers))


def test_numbers_one_after_the_other_lie_in_arrays_alone() -> None:
    count = 10_000
    loaded = Accounts.of(range(count), [5] * count, [7] * count, {})
    grown = Accounts()
    for number in range(count):
        grown.open(number)
    for accounts in (loaded, grown):
        assert len(accounts) == count
        assert not accounts.sparse
        assert count <= len(accounts.dense) <= count * 9 / 8 + 1


def test_accounts_opened_backwards_move_into_the_arrays_in_the_end() -> None:
    accounts = Accounts()
    for number in range(4000, 0, -1):
        accounts.open(number, number)
        accounts.take({number: number}, {number: 2 * number})
    assert not accounts.sparse
    assert accounts.balances([1, 2000, 4000]) == accounts.owners([1, 2000, 4000]) == [1, 2000, 4000]
    assert accounts.last_line(4000) == 8000

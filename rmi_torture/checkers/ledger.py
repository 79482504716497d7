"""The bank's journal, replayed: what each account held at each commit."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

CASH = 0


class Line(NamedTuple):
    """One posting, as the statement shows it.

    Attributes:
        line: its place in the journal.
        commit: the commit number it came with.
        debit: account the money was taken from.
        credit: account the money was given to.
        amount: minor units.
        request_id: which request caused it.
    """

    line: int
    commit: int
    debit: int
    credit: int
    amount: int
    request_id: str


@dataclass
class AccountHistory:
    """The balances of one account, line by line.

    Attributes:
        commits: the commit number of each line that changed it; never falling.
        balances: what it held after each of them.
    """

    commits: list[int] = field(default_factory=list)
    balances: list[int] = field(default_factory=list)

    def at(self, commit: int) -> int:
        """Return what it held when *commit* was done."""
        place = bisect_right(self.commits, commit)
        return self.balances[place - 1] if place else 0

    def change(self, commit: int, amount: int) -> int:
        """Add *amount* at *commit*; return the balance."""
        balance = (self.balances[-1] if self.balances else 0) + amount
        self.commits.append(commit)
        self.balances.append(balance)
        return balance

    def during(self, commit: int) -> Sequence[int]:
        """Return all it held from before *commit* until it was done, line by line."""
        first = bisect_left(self.commits, commit)
        before = self.balances[first - 1] if first else 0
        return [before, *self.balances[first : bisect_right(self.commits, commit)]]


class Ledger:
    """A journal replayed from nothing.

    Args:
        lines: all of it, in any order.

    Attributes:
        lines: in order.
        by_request: request id to its lines.
        after: line number to the balances of its debit and credit accounts after it.
        overdrawn: sentences on customer accounts that were below 0.
        disorder: sentences on lines whose commit numbers fall.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = sorted(set(lines))
        self.by_request: dict[str, list[Line]] = {}
        self.after: dict[int, tuple[int, int]] = {}
        self.overdrawn: list[str] = []
        self.disorder: list[str] = []
        self._accounts: dict[int, AccountHistory] = {}
        commit = 0
        for line in self.lines:
            if line.commit < commit:
                self.disorder.append(f"line {line.line} has commit {line.commit} after {commit}")
            commit = max(commit, line.commit)
            self._replay(line)

    def _replay(self, line: Line) -> None:
        self.by_request.setdefault(line.request_id, []).append(line)
        taken = self.account(line.debit).change(line.commit, -line.amount)
        given = self.account(line.credit).change(line.commit, line.amount)
        self.after[line.line] = (taken, given)
        if line.debit != CASH and taken < 0:
            self.overdrawn.append(f"account {line.debit} held {taken} after line {line.line}")

    def account(self, number: int) -> AccountHistory:
        """Return the history of an account; an empty one if nothing ever moved there."""
        return self._accounts.setdefault(number, AccountHistory())

    def accounts(self) -> list[int]:
        """Return the accounts that money has moved on, without cash."""
        return sorted(number for number in self._accounts if number != CASH)

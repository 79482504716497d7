"""Which accounts are written into their table next, behind the journal. Pure code.

Accounts that were *touched* since they were last written are marked. A *pass* goes through the
marks in the order of the accounts' numbers, a few with each transaction, so that neighbours are
written together; what is touched meanwhile is met further on in the same pass, or in the next.
When a pass is through, every journal line from before it began is in the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from rmi_bank.stores.accounts import Accounts

FOLD_LINES = 50_000
"""A pass begins when so many journal lines have been written since the last one began."""

_FOLD_LEAST = 64  # accounts written with a transaction, at least, while a pass is on

_FOLD_PER_LINE: Final = 4
"""Accounts written for each new line. A line touches two, and half of those lie ahead of the pass
on the average: it gains three on them, and is through before the next one is due."""


class Step(NamedTuple):
    """What a transaction writes of a pass.

    Attributes:
        accounts: to be written as they are after it.
        at: where to look on among the numbers near each other.
        far_at: and among those far apart.
        ends: the pass is through with it.
    """

    accounts: list[int]
    at: int
    far_at: int
    ends: bool


NO_STEP: Final = Step([], 0, 0, False)


class Folding:
    """The marks of touched accounts, and how far the present pass has come.

    Args:
        accounts: all of them.
        folded_line: every journal line up to this one is in the table.

    Attributes:
        folded_line: as above; moves up at the end of a pass.
    """

    def __init__(self, accounts: Accounts, folded_line: int) -> None:
        self.folded_line = folded_line
        self._accounts = accounts
        self._near = bytearray()  # 1 at the number of a touched account
        self._far: set[int] = set()  # touched ones whose numbers lie far apart
        self._on = False
        self._at = 0
        self._pass_far: list[int] = []
        self._far_at = 0
        self._pass_line = folded_line  # where the present pass began, or the last one

    def touch(self, accounts: Iterable[int]) -> None:
        """Mark accounts that differ from what is in the table."""
        near, size = self._near, len(self._near)
        for account in accounts:
            if account < size:
                near[account] = 1
            elif account < len(self._accounts.dense):
                near.extend(bytes(len(self._accounts.dense) - size))
                size = len(near)
                near[account] = 1
            else:
                self._far.add(account)

    def plan(self, lines: int) -> Step:
        """Return what to write with a transaction of so many journal lines. Changes nothing."""
        if not self._on:
            return NO_STEP
        most = max(_FOLD_LEAST, _FOLD_PER_LINE * lines)
        found: list[int] = []
        find, at, far_at = self._near.find, self._at, self._far_at
        while len(found) < most:
            account = find(1, at)
            if account < 0:
                at = len(self._near)
                far = self._pass_far[far_at : far_at + most - len(found)]
                far_at += len(far)
                found += far
                break
            found.append(account)
            at = account + 1
        ends = find(1, at) < 0 and far_at == len(self._pass_far)
        return Step(found, at, far_at, ends)

    def mark(self, step: Step) -> int:
        """Return ``folded_line`` as it will be when *step* is on disk."""
        return self._pass_line if step.ends else self.folded_line

    def apply(self, step: Step, touched: Iterable[int], line: int) -> None:
        """Take in a transaction that is on disk.

        Args:
            step: what it wrote of the pass.
            touched: accounts it touched.
            line: the last journal line now.
        """
        self.touch(touched)
        near = self._near
        for account in step.accounts:
            if account < len(near):
                near[account] = 0
            self._far.discard(account)
        if self._on:
            self.folded_line = self.mark(step)
            self._at, self._far_at, self._on = step.at, step.far_at, not step.ends
        if not self._on and line - self._pass_line >= FOLD_LINES:
            self._on, self._pass_line = True, line
            self._at = self._far_at = 0
            self._pass_far, self._far = sorted(self._far), set()

"""What memory keeps of every account: balance, last journal line, owner. Pure code.

Numbers given out one after the other, as most banks do, are places in three arrays of 64-bit
integers. A dictionary would take ten times the memory, and with a million accounts every look-up
in one costs several misses of the processor's caches: the table, the key, the value. Numbers that
lie too far apart for that are kept in dictionaries.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

NONE: Final = -(2**63)
"""The balance of an account that has not been opened."""

NOBODY: Final = -1
"""The owner of an account that nobody owns."""

_SPARE: Final = 1024
_GROWTH: Final = 8  # an array grows by an eighth at least, so that growing costs little


class Accounts:
    """Accounts by number.

    Attributes:
        dense: the balances of the accounts below ``len(dense)``, :data:`NONE` for those that are
            not open.
        dense_lines: their last lines, 0 for none.
        sparse: the balances of all others that are open.
        sparse_lines: their last lines, without those that have none.
    """

    __slots__ = (
        "_count",
        "_dense_owners",
        "_sparse_owners",
        "dense",
        "dense_lines",
        "sparse",
        "sparse_lines",
    )

    def __init__(self) -> None:
        self.dense = array("q")
        self.dense_lines = array("q")
        self.sparse: dict[int, int] = {}
        self.sparse_lines: dict[int, int] = {}
        self._dense_owners = array("q")
        self._sparse_owners: dict[int, int] = {}
        self._count = 0

    @classmethod
    def of(
        cls,
        numbers: Sequence[int],
        balances: Sequence[int],
        last_lines: Sequence[int],
        owners: Mapping[int, int],
    ) -> Accounts:
        """Make it of columns in the same order, the numbers rising, each once.

        Args:
            numbers: of the accounts.
            balances: minor units.
            last_lines: their last journal lines, 0 for none.
            owners: account -> client, of those that have one.
        """
        accounts = cls()
        if numbers and numbers[-1] == len(numbers) - 1:  # without a gap
            accounts._count = len(numbers)
            accounts.dense = array("q", balances)
            accounts.dense_lines = array("q", last_lines)
            accounts._dense_owners = array("q", [NOBODY]) * len(numbers)
            for number, owner in owners.items():
                accounts._dense_owners[number] = owner
            return accounts
        for number, balance, last_line in zip(numbers, balances, last_lines, strict=True):
            accounts.open(number, owners.get(number))
            if number < len(accounts.dense):
                accounts.dense[number] = balance
                accounts.dense_lines[number] = last_line
            else:
                accounts.sparse[number] = balance
                if last_line:
                    accounts.sparse_lines[number] = last_line
        return accounts

    def __len__(self) -> int:
        """How many are open."""
        return self._count

    def __contains__(self, account: int) -> bool:
        """Whether *account* is open."""
        return self.balance(account) is not None

    def __iter__(self) -> Iterator[int]:
        """The numbers of those that are open."""
        yield from (number for number, balance in enumerate(self.dense) if balance != NONE)
        yield from self.sparse

    def open(self, account: int, owner: int | None = None) -> None:
        """Open an account that is not open yet, with nothing on it.

        Args:
            account: its number, 0 or more.
            owner: a client, or None.
        """
        self._count += 1
        reach = _SPARE + 2 * self._count
        if len(self.dense) <= account < reach:
            self._extend(account + 1)
        if self.sparse and not self._count & (self._count - 1):
            # With twice as many accounts more of those far away have come within reach.
            self._extend(1 + max((other for other in self.sparse if other < reach), default=-1))
        if account < len(self.dense):
            self.dense[account] = 0
            self._dense_owners[account] = NOBODY if owner is None else owner
        else:
            self.sparse[account] = 0
            if owner is not None:
                self._sparse_owners[account] = owner

    def _extend(self, size: int) -> None:
        """Make the arrays at least so large, and move what lies in them then out of the others."""
        before = len(self.dense)
        if size <= before:
            return
        size = max(size, before + before // _GROWTH)
        for column, empty in (
            (self.dense, NONE),
            (self.dense_lines, 0),
            (self._dense_owners, NOBODY),
        ):
            column.extend(array("q", [empty]) * (size - before))
        for column, others in (
            (self.dense, self.sparse),
            (self.dense_lines, self.sparse_lines),
            (self._dense_owners, self._sparse_owners),
        ):
            for account in [account for account in others if account < size]:
                column[account] = others.pop(account)

    def take(self, balances: Mapping[int, int], last_lines: Mapping[int, int]) -> None:
        """Take in what accounts that are open hold now, and their last lines."""
        for values, column, others in (
            (balances, self.dense, self.sparse),
            (last_lines, self.dense_lines, self.sparse_lines),
        ):
            size = len(column)
            for account, value in values.items():
                if account < size:
                    column[account] = value
                else:
                    others[account] = value

    def balance(self, account: int) -> int | None:
        """Return what is on an account, in minor units; None if it is not open."""
        if account < len(self.dense):
            balance = self.dense[account]
            return None if balance == NONE else balance
        return self.sparse.get(account)

    def balances(self, accounts: Iterable[int]) -> list[int | None]:
        """Return :meth:`balance` of each."""
        return _found(accounts, self.dense, self.sparse, NONE)

    def owners(self, accounts: Iterable[int]) -> list[int | None]:
        """Return the client that owns each account; None for nobody."""
        return _found(accounts, self._dense_owners, self._sparse_owners, NOBODY)

    def last_line(self, account: int) -> int:
        """Return the last journal line of *account*, 0 if it has none."""
        if account < len(self.dense_lines):
            return self.dense_lines[account]
        return self.sparse_lines.get(account, 0)

    def total(self) -> int:
        """Return what all accounts together hold."""
        opened = sum(self.dense) - NONE * self.dense.count(NONE)
        return opened + sum(self.sparse.values())


def _found(
    accounts: Iterable[int], dense: array[int], sparse: dict[int, int], nothing: int
) -> list[int | None]:
    """Return the value of each account, None where *nothing* stands for it."""
    size = len(dense)
    found: list[int | None] = [
        dense[account] if account < size else sparse.get(account) for account in accounts
    ]
    if nothing in found:
        found = [None if value == nothing else value for value in found]
    return found

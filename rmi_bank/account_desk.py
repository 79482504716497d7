"""Reading accounts, as remote methods of the data object. No method here waits for a lock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from rmi_bank import operations as op
from rmi_bank import rules
from rmi_bank.lock_desk import LockDesk
from rmi_bank.oplines import DATA_SALDO
from rmi_bank.store_keeper import StoreKeeper
from rmi_bank.stores import Ledger
from rmi_bank.values import accounts_of, checked_int, checked_limit, shown_line
from rmi_runtime import allow, expose

BUSINESS_ID_MAX = 2**31 - 1


@expose
@allow("service")
class AccountDesk(ABC):
    """The part of the data object that reads accounts."""

    _ledger: Ledger
    _store: StoreKeeper
    _desk: LockDesk

    def balances(self, accounts: Sequence[int], business_id: int = 0) -> dict[str, Any]:
        """Read balances, all as of one commit number. Takes no lock; shows only what is on disk.

        Args:
            accounts: their numbers; 0 is cash.
            business_id: who asks, for the log.

        Returns:
            ``commit``; ``balances`` and ``owners`` in the order of *accounts*, None where there is
            none.
        """
        checked_int("business_id", business_id, 0, BUSINESS_ID_MAX)
        wanted = accounts_of(accounts, cash=True)
        self._store.check_open()
        balances = self._ledger.balances(wanted)
        told = zip(wanted, balances, strict=True)
        self._log(
            business_id, DATA_SALDO, [(a, balance) for a, balance in told if balance is not None]
        )
        return {
            "commit": self._ledger.commit_no,
            "balances": balances,
            "owners": self._ledger.owners(wanted),
        }

    async def statement(self, account: int, after: int = 0, limit: int = 100) -> dict[str, Any]:
        """Read journal lines of an account, oldest first.

        Args:
            account: its number.
            after: lines above this one.
            limit: most lines, 1 to 1,000.

        Returns:
            ``{"lines": [{"line", "commit", "at", "debit", "credit", "amount", "request_id"}],
            "next": line to go on after, or None, "owner": client or None}``. ``request_id`` is as
            the client made it, empty if no request caused the line.

        Raises:
            UnknownAccount: it has not been opened.
        """
        checked_int("account", account, 1, op.ACCOUNT_MAX)
        checked_int("after", after, 0, 2**63 - 1)
        self._store.check_open()
        if self._ledger.balances([account])[0] is None:
            raise rules.unknown_account(account)
        # One more than is wanted tells whether there are more.
        lines = await self._ledger.statement(account, after, checked_limit(limit) + 1)
        page = lines[:limit]
        return {
            "owner": self._ledger.owners([account])[0],
            "lines": [shown_line(line) for line in page],
            "next": page[-1].line if len(lines) > limit else None,
        }

    def account_list(self, after: int = 0, limit: int = 1000) -> dict[str, Any]:
        """List accounts.

        Args:
            after: accounts above this number; below 0 cash is listed too.
            limit: most accounts, 1 to 1,000.

        Returns:
            ``{"accounts": [{"account", "balance", "owner"}], "commit", "next"}``; all of a page as
            of one commit number.
        """
        checked_int("after", after, -1, op.ACCOUNT_MAX)
        self._store.check_open()
        found = self._ledger.accounts(after, checked_limit(limit))
        balances = self._ledger.balances(account for account, _ in found)
        return {
            "accounts": [
                {"account": account, "balance": balance, "owner": owner}
                for (account, owner), balance in zip(found, balances, strict=True)
                if balance is not None  # else it is being opened
            ],
            "commit": self._ledger.commit_no,
            "next": found[-1][0] if len(found) == limit else None,
        }

    def figures(self) -> dict[str, Any]:
        """Return counters of the store and the lock table, as plain values."""
        return {
            **self._ledger.figures(),
            "tickets": len(self._desk),
            "leases_expired": self._desk.expired,
        }

    @abstractmethod
    def _log(self, business_id: int, kind: str, values: Iterable[tuple[int, int]]) -> None:
        """Write a line of the operation log for each (account, value)."""

"""Stores of the bank's books, behind one small interface.

A :class:`Ledger` keeps what is true; it knows no locks, no connections and no rules. The data
object calls it, and makes sure that no two commits under way touch the same account or request id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from rmi_bank.rules import Known, NewOutcome, Posting


@dataclass(slots=True)
class Record:
    """What one commit writes, all or nothing.

    Attributes:
        postings: movements of money, in order.
        outcomes: what became of the requests that caused them.
        opened: accounts to open, as (account, owner or None).
        balances: what each account in it but cash holds after it; :meth:`Ledger.check` fills it in.
        cash: what it changes on the cash account; likewise.
    """

    postings: Sequence[Posting] = field(default_factory=list)
    outcomes: Sequence[NewOutcome] = field(default_factory=list)
    opened: Sequence[tuple[int, int | None]] = field(default_factory=list)
    balances: Mapping[int, int] | None = None
    cash: int = 0

    def __bool__(self) -> bool:
        return bool(self.postings or self.outcomes or self.opened)


class Line(NamedTuple):
    """One line of the journal.

    Attributes:
        line: its number, from 1, without gaps.
        commit: number of the commit it is part of.
        at_us: when, in microseconds since 1970 (UTC).
        debit: account the money was taken from.
        credit: account the money was given to.
        amount: minor units.
        request_id: scoped id of the request that caused it, if one did.
    """

    line: int
    commit: int
    at_us: int
    debit: int
    credit: int
    amount: int
    request_id: str | None


class Token(NamedTuple):
    """What is kept of a client's token: never the token itself.

    Attributes:
        id: its number, for people to name it by.
        client: whose it is.
        role: what it allows.
        created_at_us: when it was made, in microseconds since 1970 (UTC).
        expires_at_us: when it ends, or None.
        revoked_at_us: when it was revoked, or None.
    """

    id: int
    client: int
    role: str
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None


class NewToken(NamedTuple):
    """A token to be kept. *token_hash* is its SHA-256 in hex."""

    token_hash: str
    client: int
    role: str
    expires_at_us: int | None = None


class Ledger(Protocol):
    """Balances, journal, outcomes and tokens, durably.

    Attributes:
        epoch: number of this opening of the store; higher than all before.
        broken: True when a write failed in a way that leaves unknown what is on disk. Nothing but
            :meth:`reopen` helps then.
    """

    epoch: int
    broken: bool

    @property
    def commit_no(self) -> int:
        """Number of the last commit on disk."""

    @property
    def last_outcome(self) -> int:
        """Number of the last outcome on disk; the later an outcome, the higher its number."""

    def missing(self) -> str | None:
        """Say in a sentence what is wrong if what was opened is not there any more."""

    async def start(self) -> None:
        """Open the store, making it if it is not there, and begin a new epoch."""

    async def close(self) -> None:
        """Finish what is under way and close the store."""

    async def reopen(self) -> None:
        """Close and open again, taking what is on disk for the truth."""

    def balances(self, accounts: Iterable[int]) -> list[int | None]:
        """Return the balances on disk, None for accounts never opened, all at :attr:`commit_no`."""

    def owners(self, accounts: Iterable[int]) -> list[int | None]:
        """Return the client that owns each account, None for nobody."""

    def known(self, request_ids: Sequence[str], none_up_to: int = 0) -> dict[str, Known]:
        """Return what is stored for those of *request_ids* that are known.

        Whoever has asked for them before, and was told of none, says by *none_up_to* what was the
        :attr:`last_outcome` then: it need not be gone through again.
        """

    def check(
        self, record: Record, locked: Collection[int | str], settled: Collection[str] = ()
    ) -> None:
        """Refuse a record that breaks a rule of the books, or touches what is not *locked*.

        It may hold no outcome for a request id that is *settled*: that has one already.
        """

    def commit(self, record: Record) -> asyncio.Future[int]:
        """Write a record that was checked; the future gives its commit number once on disk."""

    async def statement(self, account: int, after: int, limit: int) -> list[Line]:
        """Return at most *limit* journal lines of *account* above line *after*, in order."""

    def accounts(self, after: int, limit: int) -> list[tuple[int, int | None]]:
        """Return at most *limit* (account, owner) above *after*, in order.

        Those that are being opened, and have no balance yet, may be among them.
        """

    async def seed(self, record: Record, tokens: Sequence[NewToken]) -> bool:
        """Write *record* and *tokens* in one transaction, if the store is empty; else False."""

    async def add_token(self, token: NewToken) -> Token:
        """Keep a token."""

    async def tokens(self, after: int, limit: int) -> list[Token]:
        """Return at most *limit* tokens with an id above *after*."""

    async def revoke_token(self, token_id: int) -> bool:
        """Revoke a token; False if there is none of that id that is still good."""

    def identify(self, token_hash: str) -> tuple[int, str] | None:
        """Return client and role of a token that is good now, else None."""

    def figures(self) -> dict[str, Any]:
        """Return counters: commits, transactions and the like."""

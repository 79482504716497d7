"""The bank's rules: what a list of operations leads to, given what the books say. Pure code.

A *posting* takes ``amount`` from the account in ``debit`` and gives it to the one in ``credit``; a
balance is the sum of an account's credits less the sum of its debits. So a deposit debits cash and
credits the customer, a withdrawal the other way round, and since every posting takes what it gives,
the sum of all balances, cash included, is always 0. Customers never go below 0. Cash does: what the
bank owes its customers is what cash is below 0.

Operations are decided in their order, each on what the ones before it left. A request id that is
known, from the books or from earlier in the same list, is answered with its outcome and changes
nothing, provided that it names the same operation.

What depends on the state of the accounts (insufficient funds, unknown account, account exists,
balance limit) is an outcome, stored under its request id. What depends on the caller's rights is
refused and not stored: the same request may be allowed later. Roles: a ``teller`` acts on any
account; a ``customer`` debits and reads the accounts it owns (and may transfer to any); an
``admin`` opens accounts, with cash on them if it says so, and reads any; it moves no money that is
there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import msgspec

from rmi_bank import operations as op
from rmi_bank.errors import (
    AccountExists,
    AnotherAccount,
    BalanceLimit,
    InsufficientFunds,
    RequestIdReused,
    UnknownAccount,
)
from rmi_bank.operations import BALANCE_END, CASH, Done, Outcome, Principal, Refused, Request
from rmi_runtime.errors import Conflict, Forbidden, RmiError, shown

TELLER, CUSTOMER, ADMIN = "teller", "customer", "admin"

ROLES = (TELLER, CUSTOMER, ADMIN)
"""The roles a token can have."""


ScopedId = Annotated[str, msgspec.Meta(min_length=1, max_length=op.REQUEST_ID_SIZE_MAX + 20)]
"""A request id as :func:`scoped` makes it."""


class Known(NamedTuple):
    """What the books keep about a request id.

    Attributes:
        fingerprint: the operation, as :func:`fingerprint` writes it.
        result: what came of it, as :func:`encode_result` writes it.
        commit: the commit number it became known at.
    """

    fingerprint: str
    result: str
    commit: int


class Posting(NamedTuple):
    """One movement of money: a line of the journal to be.

    Attributes:
        debit: account the money is taken from.
        credit: account the money is given to.
        amount: minor units, at least 1.
        cause: place, in the outcomes committed with it, of the request that caused it; -1 if none.
    """

    debit: op.AnyAccount
    credit: op.AnyAccount
    amount: op.Amount
    cause: int = -1


class NewOutcome(NamedTuple):
    """What a commit shall store under a request id (scoped: see :func:`scoped`)."""

    request_id: ScopedId
    fingerprint: Annotated[str, msgspec.Meta(max_length=200)]
    result: Annotated[str, msgspec.Meta(max_length=2000)]


@dataclass(slots=True)
class Books:
    """What is known, under a lock, of everything a list of operations touches.

    Attributes:
        balances: account -> minor units; None if it has not been opened.
        owners: account -> client; without the accounts nobody owns.
        outcomes: scoped request id -> what is known of it.
        cash: minor units on the cash account, about: other commits may be moving it.
        commit: the commit number this is the state of.
    """

    balances: dict[int, int | None]
    owners: Mapping[int, int]
    outcomes: Mapping[str, Known]
    cash: int
    commit: int


@dataclass(slots=True)
class Decision:
    """What to commit, and what to answer when it is committed.

    Attributes:
        results: one per operation, in order. Those in *fresh* get their commit number by
            :meth:`settle`.
        fresh: what this decision itself brings about.
        done: places of the operations that were done now: not refused, not repeated.
    """

    results: list[Outcome] = field(default_factory=list)
    postings: list[Posting] = field(default_factory=list)
    outcomes: list[NewOutcome] = field(default_factory=list)
    opened: list[tuple[int, int | None]] = field(default_factory=list)
    fresh: list[Done] = field(default_factory=list)
    done: list[int] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        """True if there is something to commit."""
        return bool(self.outcomes)

    def settle(self, commit: int) -> None:
        """Write the number of the commit into the results it brought about."""
        for done in self.fresh:
            done.commit = commit


def scoped(client: int, request_id: str) -> str:
    """Return the id a request is kept under: clients cannot collide with each other's ids."""
    return f"{client}:{request_id}"


def unscoped(request_id: str | None) -> str | None:
    """Return the id as the client made it."""
    return None if request_id is None else request_id.partition(":")[2]


def keys(requests: Iterable[Request]) -> tuple[list[int], list[str]]:
    """Return what must be locked for *requests*: accounts, and scoped request ids, each once."""
    accounts: dict[int, None] = {}
    request_ids: dict[str, None] = {}
    for (client, _), operation in requests:
        if type(operation) is op.Transfer:
            accounts[operation.source] = accounts[operation.target] = None
        else:
            accounts[operation.account] = None  # type: ignore[union-attr]
        if type(operation) is not op.BalanceQuery:
            request_ids[f"{client}:{operation.request_id}"] = None
    return list(accounts), list(request_ids)


def fingerprint(operation: op.Change) -> str:
    """Return the operation in one line, the same for the same payload: ``transfer 1 2 50``."""
    kind = type(operation)
    if kind is op.Transfer:
        return f"transfer {operation.source} {operation.target} {operation.amount}"  # type: ignore[union-attr]
    if kind is op.Deposit:
        return f"deposit {operation.account} {operation.amount}"  # type: ignore[union-attr]
    if kind is op.Withdrawal:
        return f"withdrawal {operation.account} {operation.amount}"  # type: ignore[union-attr]
    return f"open {operation.account} {operation.balance} {operation.owner}"  # type: ignore[union-attr]


def encode_result(outcome: Outcome) -> str:
    """Write an outcome for the store: the balance alone, or the refusal as JSON."""
    if isinstance(outcome, Done):
        return str(outcome.balance)
    return _encode(outcome).decode()


def decode_result(known: Known) -> Outcome:
    """Read an outcome back; raise Conflict if a service has stored what is none."""
    try:
        if known.result.startswith("["):
            return _decode(known.result)
        if 0 <= (balance := int(known.result)) < BALANCE_END:
            return Done(balance, known.commit)
    except (ValueError, msgspec.DecodeError):
        pass  # said below
    raise Conflict(
        f"what is stored under this request id is no outcome: {known.result!r:.50}; see the "
        "statement for what was done, and use another id"
    )


def unknown_account(account: int) -> UnknownAccount:
    """Return the error for an account that has not been opened."""
    return UnknownAccount(
        f"account {account} has not been opened; an admin can open it", account=account
    )


def check_reader(principal: Principal, account: int, owner: int | None) -> None:
    """Refuse a customer who asks for an account of somebody else's.

    Raises:
        AnotherAccount: *account* is not the customer's.
        Forbidden: the role may not read.
    """
    client, role = principal
    if role == CUSTOMER:
        if owner != client:
            raise AnotherAccount(
                f"account {account} is not client {client}'s; a customer sees and debits only its "
                "own accounts",
                account=account,
            )
    elif role not in ROLES:
        raise Forbidden(f"the role {shown(role)} may do nothing here; roles are {', '.join(ROLES)}")


def decide(requests: Sequence[Request], books: Books) -> Decision:
    """Decide *requests* in order.

    Args:
        requests: for whom, and what.
        books: the locked state; its balances are moved on as the decisions go.

    Returns:
        The decision. It takes effect only if all of it is committed under the lock of *books*.
    """
    return _Decider(books).run(requests)


class _Decider:
    """The state of one :func:`decide`."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._balances = books.balances
        self._owners = dict(books.owners)
        self._cash = books.cash
        self._new: dict[str, tuple[str, Outcome]] = {}
        self._decision = Decision()

    def run(self, requests: Sequence[Request]) -> Decision:
        decision = self._decision
        results = decision.results
        for principal, operation in requests:
            try:
                if type(operation) is op.BalanceQuery:
                    results.append(self._read(principal, operation.account))
                    decision.done.append(len(results) - 1)
                else:
                    results.append(self._change(principal, operation))  # type: ignore[arg-type]
            except RmiError as error:
                results.append(Refused.from_error(error))
        return decision

    def _read(self, principal: Principal, account: int) -> Done:
        balance = self._known_balance(account)
        check_reader(principal, account, self._owners.get(account))
        done = Done(balance, self._books.commit)
        if self._decision.outcomes:  # it may show what is only about to be committed
            self._decision.fresh.append(done)
        return done

    def _change(self, principal: Principal, operation: op.Change) -> Outcome:
        request_id = f"{principal[0]}:{operation.request_id}"
        print_ = fingerprint(operation)
        known = self._books.outcomes.get(request_id)
        if known is not None:
            self._check_same(operation, print_, known.fingerprint)
            return decode_result(known)
        new = self._new.get(request_id)
        if new is not None:
            self._check_same(operation, print_, new[0])
            return new[1]
        decision = self._decision
        outcome: Outcome
        try:
            outcome = Done(self._apply(principal, operation), 0)
        except _STORED as error:
            outcome = Refused.from_error(error)
        else:
            decision.fresh.append(outcome)
            decision.done.append(len(decision.results))
        decision.outcomes.append(NewOutcome(request_id, print_, encode_result(outcome)))
        self._new[request_id] = (print_, outcome)
        return outcome

    def _apply(self, principal: Principal, operation: op.Change) -> int:
        """Check one operation and move its money; return the balance it leads to."""
        kind = type(operation)
        if kind is op.Transfer:
            return self._transfer(principal, operation)  # type: ignore[arg-type]
        if kind is op.Deposit:
            return self._deposit(principal, operation)  # type: ignore[arg-type]
        if kind is op.Withdrawal:
            return self._withdraw(principal, operation)  # type: ignore[arg-type]
        return self._open(principal, operation)  # type: ignore[arg-type]

    def _transfer(self, principal: Principal, operation: op.Transfer) -> int:
        source, target, amount = operation.source, operation.target, operation.amount
        balance = self._debitable(principal, source)
        other = self._known_balance(target)
        left = self._less(source, balance, amount)
        self._balances[target] = self._more(target, other, amount)
        self._balances[source] = left
        self._post(source, target, amount)
        return left

    def _deposit(self, principal: Principal, operation: op.Deposit) -> int:
        account, amount = operation.account, operation.amount
        balance = self._debitable(principal, account)
        balance = self._balances[account] = self._more(account, balance, amount, cash=True)
        self._cash -= amount
        self._post(CASH, account, amount)
        return balance

    def _withdraw(self, principal: Principal, operation: op.Withdrawal) -> int:
        account, amount = operation.account, operation.amount
        balance = self._debitable(principal, account)
        balance = self._balances[account] = self._less(account, balance, amount)
        self._cash += amount
        self._post(account, CASH, amount)
        return balance

    def _open(self, principal: Principal, operation: op.OpenAccount) -> int:
        account, balance = operation.account, operation.balance
        if principal[1] != ADMIN:
            raise Forbidden(
                f"a {principal[1]} may not open accounts; an admin may", account=account
            )
        if self._balances[account] is not None:
            raise AccountExists(f"account {account} has been opened already", account=account)
        self._balances[account] = self._more(account, 0, balance, cash=True)
        self._decision.opened.append((account, operation.owner))
        if operation.owner is not None:
            self._owners[account] = operation.owner
        if balance:
            self._cash -= balance
            self._post(CASH, account, balance)
        return balance

    def _post(self, debit: int, credit: int, amount: int) -> None:
        """Note a posting; its cause is the outcome that is noted right after it."""
        decision = self._decision
        decision.postings.append(Posting(debit, credit, amount, len(decision.outcomes)))

    def _known_balance(self, account: int) -> int:
        balance = self._balances[account]
        if balance is None:
            raise unknown_account(account)
        return balance

    def _debitable(self, principal: Principal, account: int) -> int:
        """Return the balance of an account whose money *principal* may move."""
        if principal[1] == TELLER:
            return self._known_balance(account)
        if principal[1] == ADMIN:
            raise Forbidden("an admin moves no money; ask a teller or the customer", role=ADMIN)
        balance = self._known_balance(account)
        check_reader(principal, account, self._owners.get(account))
        return balance

    def _less(self, account: int, balance: int, amount: int) -> int:
        if balance < amount:
            raise InsufficientFunds(
                f"account {account} holds {balance}, which is less than {amount}",
                account=account,
                balance=balance,
                amount=amount,
            )
        return balance - amount

    def _more(self, account: int, balance: int, amount: int, *, cash: bool = False) -> int:
        if balance + amount >= BALANCE_END or (cash and amount - self._cash >= BALANCE_END):
            raise BalanceLimit(
                f"{amount} more on account {account} would pass what "
                f"{'the bank' if balance + amount < BALANCE_END else 'an account'} can hold",
                account=account,
                amount=amount,
            )
        return balance + amount

    @staticmethod
    def _check_same(operation: op.Change, now: str, before: str) -> None:
        if now != before:
            raise RequestIdReused(
                f"request id {operation.request_id!r} was used for another operation ({before}); "
                "every operation needs an id of its own",
                request_id=operation.request_id,
            )


_STORED = (UnknownAccount, AccountExists, InsufficientFunds, BalanceLimit)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Refused).decode

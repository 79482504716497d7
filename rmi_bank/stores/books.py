"""The books in memory, and the plan of what a transaction writes. Pure code.

The journal is the truth: a commit appends its lines and outcomes, and nothing else needs to reach
the disk for it. Balances live in memory and are *folded* into the accounts table little by little,
a few accounts along with each transaction, neighbours together. So a transfer between two accounts
out of a million costs no more pages than one between two out of ten, and a start reads the accounts
table and only the end of the journal.

Each account's row holds its balance as of its ``last_line``. A *pass* (:mod:`.folding`) writes all
accounts touched before it began; when it is through, every journal line up to its beginning is in
the table, and the mark ``folded_line`` moves up to there. A start replays the lines above that
mark, skipping on each account those up to its ``last_line``: folding may stop anywhere, at any
moment.

Each line names the line before it on each of its accounts, which makes a chain per account; about
every :data:`MARK_EVERY`-th entry of a chain is noted in the marks table. Together they page through
an account's statement in order, without an index that would cost two more pages per transfer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from rmi_bank.errors import AccountExists, BalanceLimit, InsufficientFunds, UnknownAccount
from rmi_bank.operations import BALANCE_END, CASH
from rmi_bank.rules import Posting
from rmi_bank.stores import Record
from rmi_bank.stores.accounts import Accounts
from rmi_bank.stores.folding import NO_STEP, Folding, Step
from rmi_bank.stores.request_index import IndexRow, RequestIndex
from rmi_runtime.errors import Conflict, InvalidRequest

MARK_EVERY = 64
"""One journal entry in this many, on the average, has a mark."""

GROUP_LINES_MAX = 16_384
"""Most journal lines in one transaction, unless a single commit has more."""

_MARKED_BELOW = 2**32 // MARK_EVERY
_LINE_STEP, _ACCOUNT_STEP, _HASHED = 0x9E3779B1, 0x85EBCA6B, 0xFFFF_FFFF

JournalRow = tuple[int, int, int, int, int, int, int | None, int, int]


def is_marked(account: int, line: int) -> bool:
    """Return whether *line* has a mark on *account*: one in 64 has, scattered by hashing."""
    return (line * _LINE_STEP + account * _ACCOUNT_STEP) & _HASHED < _MARKED_BELOW


@dataclass(slots=True)
class Plan:
    """The rows of one transaction, and what memory becomes when it is on disk.

    Attributes:
        commits: the commit number of each record, in order.
        journal: (line, commit, at_us, debit, credit, amount, outcome, line before on debit,
            line before on credit).
        outcomes: (outcome, request id, commit, fingerprint, result).
        index: (request id, outcome), of outcomes from before.
        opened: (account, owner).
        marks: (account, line).
        folds: (account, balance, last line).
        fold_step: how far the folding has come with them.
        balances: account -> balance after.
        last_lines: account -> last line after.
        line: last line after.
        commit_no: last commit after.
        folded_line: the mark of the folding after.
        indexed_outcome: the mark of the indexing after.
    """

    commits: list[int] = field(default_factory=list)
    journal: list[JournalRow] = field(default_factory=list)
    outcomes: list[tuple[int, str, int, str, str]] = field(default_factory=list)
    index: Sequence[IndexRow] = ()
    opened: list[tuple[int, int | None]] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)
    folds: list[tuple[int, int, int]] = field(default_factory=list)
    fold_step: Step = NO_STEP
    balances: dict[int, int] = field(default_factory=dict)
    last_lines: dict[int, int] = field(default_factory=dict)
    line: int = 0
    commit_no: int = 0
    folded_line: int = 0
    indexed_outcome: int = 0


class Books:
    """Balances, owners and chains of all accounts, in memory.

    Args:
        accounts: all of them, cash included, each as of its last line.
        commit_no: number of the last commit.
        folded_line: every line up to this one is in *balances*.
        index: the latest request ids.
    """

    def __init__(
        self,
        accounts: Accounts,
        *,
        commit_no: int = 0,
        folded_line: int = 0,
        index: RequestIndex | None = None,
    ) -> None:
        self.accounts = accounts
        self.commit_no = commit_no
        self.line = folded_line
        self.index = index or RequestIndex()
        self._folding = Folding(accounts, folded_line)

    def replay(self, lines: Iterable[tuple[int, int, int, int]]) -> None:
        """Take in what the journal has above the mark of the folding.

        Args:
            lines: (line, debit, credit, amount) in order.

        Raises:
            Conflict: the books do not balance: the store was damaged or edited.
        """
        accounts = self.accounts
        balances: dict[int, int] = {}
        last_lines: dict[int, int] = {}
        for line, debit, credit, amount in lines:
            for account, change in ((debit, -amount), (credit, amount)):
                if account in balances:
                    balances[account] += change
                    last_lines[account] = line
                elif account < 0 or line > accounts.last_line(account):
                    before = None if account < 0 else accounts.balance(account)
                    if before is None:
                        raise damaged(f"line {line} is of account {account}, which is unknown")
                    balances[account], last_lines[account] = before + change, line
            self.line = line
        try:
            accounts.take(balances, last_lines)
        except OverflowError:
            raise damaged("an account holds more than 64 bits can tell") from None
        self._folding.touch(last_lines)
        if (total := accounts.total()) != 0:
            raise damaged(f"all accounts together hold {total}, not 0")

    def check(
        self, record: Record, locked: Collection[int | str], settled: Collection[str] = ()
    ) -> None:
        """Refuse a record that breaks a rule of the books. Nothing is changed.

        Args:
            record: of valid types and ranges.
            locked: accounts and request ids that the record may touch.
            settled: request ids that have an outcome already.

        Raises:
            Conflict: it holds an outcome for one of those.
            InvalidRequest: it touches what is not locked, or contradicts itself.
            UnknownAccount, AccountExists, InsufficientFunds, BalanceLimit: as they say.
        """
        moved: dict[int, int] = {}
        for account, _ in record.opened:
            if account not in locked:
                raise _not_locked(account)
            if account in self.accounts or account in moved:
                raise AccountExists(f"account {account} has been opened already", account=account)
            moved[account] = 0
        outcomes = len(record.outcomes)
        cash = 0
        for debit, credit, amount, cause in record.postings:
            if debit == credit or not -1 <= cause < outcomes:
                raise InvalidRequest(
                    f"posting {[debit, credit, amount, cause]}: debit and credit must differ, and "
                    "the cause must be the place of an outcome, or -1",
                    field="postings",
                )
            if debit == CASH:
                cash -= amount
            else:
                balance = moved[debit] if debit in moved else self._locked_balance(locked, debit)
                if balance < amount:
                    raise InsufficientFunds(
                        f"account {debit} holds {balance}, which is less than {amount}",
                        account=debit,
                        balance=balance,
                        amount=amount,
                    )
                moved[debit] = balance - amount
            if credit == CASH:
                cash += amount
            else:
                balance = moved[credit] if credit in moved else self._locked_balance(locked, credit)
                if balance + amount >= BALANCE_END:
                    raise BalanceLimit(
                        f"account {credit} cannot hold {balance + amount}", account=credit
                    )
                moved[credit] = balance + amount
        self._check_outcomes(record, locked, settled)
        record.balances, record.cash = moved, cash

    def take_unchecked(self, record: Record) -> None:
        """Work out the effect of a record that nobody checked, so that memory tells the truth."""
        balances = {account: 0 for account, _ in record.opened}
        for debit, credit, amount, _ in record.postings:
            for account, change in ((debit, -amount), (credit, amount)):
                if account == CASH:
                    record.cash += change
                else:
                    before = balances.get(account)
                    if before is None:
                        before = self._balance(account)
                    balances[account] = before + change
        record.balances = balances

    def _locked_balance(self, locked: Collection[int | str], account: int) -> int:
        if account not in locked:
            raise _not_locked(account)
        return self._balance(account)

    def _balance(self, account: int) -> int:
        balance = self.accounts.balance(account)
        if balance is None:
            raise UnknownAccount(f"account {account} has not been opened", account=account)
        return balance

    @staticmethod
    def _check_outcomes(
        record: Record, locked: Collection[int | str], settled: Collection[str]
    ) -> None:
        request_ids = {outcome[0] for outcome in record.outcomes}
        if len(request_ids) < len(record.outcomes):
            raise InvalidRequest("two outcomes have the same request id", field="outcomes")
        if not request_ids.issubset(locked):
            raise _not_locked(request_ids.difference(locked).pop())
        if settled and not request_ids.isdisjoint(settled):
            request_id = request_ids.intersection(settled).pop()
            raise Conflict(
                f"request id {request_id!r} has an outcome already, which stands; see what the "
                "lock has told",
                request_id=request_id,
            )

    def _cash(self) -> int:
        return self.accounts.balance(CASH) or 0

    def fitting(self, records: Sequence[Record]) -> int:
        """Return how many of *records*, from the first on, one transaction can take.

        It is limited by its size, and by what cash can hold; 0 if cash cannot take the first one.
        """
        cash = self._cash()
        lines = 0
        for place, record in enumerate(records):
            lines += len(record.postings)
            cash += record.cash
            if cash <= -BALANCE_END or (place and lines > GROUP_LINES_MAX):
                return place
        return len(records)

    def plan(self, records: Iterable[Record], at_us: int) -> Plan:
        """Return the transaction that commits *records*, in order. Nothing is changed yet.

        Args:
            records: which :meth:`check` let pass, and no two touching the same account but cash.
            at_us: the time to write into the journal.
        """
        plan = Plan(line=self.line, commit_no=self.commit_no)
        number = self.index.last
        cash = cash_before = self._cash()
        for record in records:
            commit = plan.commit_no = plan.commit_no + 1
            plan.commits.append(commit)
            plan.opened.extend(record.opened)
            plan.balances.update(record.balances or {})
            cash += record.cash
            for request_id, operation, result in record.outcomes:
                number += 1
                plan.outcomes.append((number, request_id, commit, operation, result))
            outcomes = range(number + 1 - len(record.outcomes), number + 1)
            self._plan_lines(plan, record.postings, commit, at_us, outcomes)
        if cash != cash_before:
            plan.balances[CASH] = cash
        plan.index = self.index.plan(len(plan.outcomes))
        plan.indexed_outcome = self.index.mark()
        self._plan_folds(plan)
        return plan

    def _plan_lines(
        self,
        plan: Plan,
        postings: Sequence[Posting],
        commit: int,
        at_us: int,
        outcomes: Sequence[int],
    ) -> None:
        """Plan the journal lines of one commit, and where the chains of its accounts end then."""
        ends, journal, line = plan.last_lines, plan.journal, plan.line
        before, before_sparse = self.accounts.dense_lines, self.accounts.sparse_lines
        size = len(before)
        for debit, credit, amount, cause in postings:
            line += 1
            if debit in ends:
                before_debit = ends[debit]
            else:
                before_debit = before[debit] if debit < size else before_sparse.get(debit, 0)
            if credit in ends:
                before_credit = ends[credit]
            else:
                before_credit = before[credit] if credit < size else before_sparse.get(credit, 0)
            ends[debit] = ends[credit] = line
            outcome = outcomes[cause] if cause >= 0 else None
            journal.append(
                (line, commit, at_us, debit, credit, amount, outcome, before_debit, before_credit)
            )
            hashed = line * _LINE_STEP  # is_marked, without two calls per line
            if (hashed + debit * _ACCOUNT_STEP) & _HASHED < _MARKED_BELOW and debit != CASH:
                plan.marks.append((debit, line))
            if (hashed + credit * _ACCOUNT_STEP) & _HASHED < _MARKED_BELOW and credit != CASH:
                plan.marks.append((credit, line))
        plan.line = line

    def _plan_folds(self, plan: Plan) -> None:
        step = plan.fold_step = self._folding.plan(len(plan.journal))
        plan.folded_line = self._folding.mark(step)
        new, lines, last_line = plan.balances, plan.last_lines, self.accounts.last_line
        balances = self.accounts.balances(step.accounts)
        for account, balance in zip(step.accounts, balances, strict=True):
            # An account that was touched is open, so it has a balance.
            now: int = new.get(account, balance)  # type: ignore[assignment]
            line = lines[account] if account in lines else last_line(account)
            plan.folds.append((account, now, line))

    def apply(self, plan: Plan) -> None:
        """Take in a plan that is on disk."""
        for account, owner in plan.opened:
            self.accounts.open(account, owner)
        self.accounts.take(plan.balances, plan.last_lines)
        self.line = plan.line
        self.commit_no = plan.commit_no
        self.index.apply([(request_id, number) for number, request_id, *_ in plan.outcomes])
        self._folding.apply(plan.fold_step, plan.last_lines, self.line)


def damaged(what: str) -> Conflict:
    """Return the error that says what to do about books that are not as they were written."""
    return Conflict(
        f"the books do not balance: {what}; the store was damaged or edited, so restore a copy"
    )


def _not_locked(key: int | str) -> InvalidRequest:
    what = f"account {key}" if isinstance(key, int) else f"request id {key!r}"
    return InvalidRequest(f"{what} is not locked by this lease; lock it first", field="lease")

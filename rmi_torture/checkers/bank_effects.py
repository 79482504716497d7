"""Exactly one effect per request id, and books that balance."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rmi_torture.checkers.bank_order import MUTATIONS
from rmi_torture.checkers.ledger import CASH, Ledger, Line
from rmi_torture.checkers.verdict import Verdict
from rmi_torture.history import FAIL, INFO, OK, Operation

UNKNOWN = "unknown_account"

STORED_REFUSALS = frozenset(("insufficient_funds", UNKNOWN, "account_exists", "balance_limit"))
"""Codes of refusals that are kept under the request id: it is never carried out after them."""


def check_effects(
    operations: Sequence[Operation],
    ledger: Ledger,
    own: Iterable[str] = (),
    accounts: Collection[int] = (),
) -> Verdict:
    """Check that each request id had one effect if it was acknowledged, else at most one.

    Args:
        operations: the history's.
        ledger: the journal as it was after the run.
        own: request ids that the harness used itself, before the run.
        accounts: that were open before the run.

    Returns:
        A verdict; its errors are ``lost`` (acknowledged, not in the journal), ``doubled``,
        ``refused but done``, ``altered`` (other accounts or another amount than were asked for
        first, in the journal or acknowledged later), ``invented`` (nobody asked for it),
        ``changed answer`` (the same id was answered differently), ``denied`` (an account that is
        open was not known).
    """
    verdict = Verdict("effects").expect(
        "lost", "doubled", "refused but done", "altered", "invented", "changed answer", "denied"
    )
    tries: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.f in MUTATIONS:
            tries.setdefault(str(operation.asked["request_id"]), []).append(operation)
        if operation.code == UNKNOWN and (named := _named(operation)).issubset(accounts):
            sentence = f"{operation.f} {operation.index}: one of {sorted(named)} is not known, but "
            verdict.blame("denied", sentence + "all of them are open", operation.index)
    for request_id, tried in tries.items():
        verdict.checked += 1
        _check_one(request_id, tried, ledger.by_request.get(request_id, []), verdict)
    known = set(own) | tries.keys()
    for request_id in ledger.by_request.keys() - known:
        verdict.blame("invented", f"the journal has {request_id!r}, which nobody asked for")
    return verdict


def _check_one(
    request_id: str, tried: Sequence[Operation], lines: Sequence[Line], verdict: Verdict
) -> None:
    acknowledged = [operation for operation in tried if operation.outcome == OK]
    at = tried[-1].index
    if len(lines) > 1:
        verdict.blame("doubled", f"{request_id} is in the journal {len(lines)} times", at)
    if acknowledged and not lines:
        verdict.blame("lost", f"{request_id} was acknowledged, and is not in the journal", at)
    # A refusal that is not stored may come before or after a try that succeeds.
    if (lines or acknowledged) and any(operation.code in STORED_REFUSALS for operation in tried):
        verdict.blame("refused but done", f"{request_id} was refused for good, and was done", at)
    elif lines and all(operation.outcome == FAIL for operation in tried):
        verdict.blame("refused but done", f"{request_id} was refused, and is in the journal", at)
    answers = {(op.got.get("balance"), op.got.get("commit")) for op in acknowledged}
    if len(answers) > 1:
        verdict.blame("changed answer", f"{request_id} was answered with {sorted(answers)}", at)
    for operation in acknowledged:
        if (operation.f, _due(operation)) != (tried[0].f, _due(tried[0])):
            sentence = f"{request_id}: {operation.asked} was acknowledged after {tried[0].asked}"
            verdict.blame("altered", sentence, operation.index)
    for line in lines:
        if (line.debit, line.credit, line.amount) != _due(tried[0]):
            verdict.blame("altered", f"{request_id}: {tried[0].asked} became {line}", at)


def _named(operation: Operation) -> set[int]:
    """Return the accounts that an operation is about."""
    asked = operation.asked
    one = {int(asked[name]) for name in ("account", "source", "target") if name in asked}
    return one | {int(account) for account in asked.get("accounts", ())}


def _due(operation: Operation) -> tuple[int, int, int]:
    """Return the debit and credit accounts and the amount that an operation must lead to."""
    asked = operation.asked
    amount = int(asked["amount"])
    if operation.f == "deposit":
        return CASH, int(asked["account"]), amount
    if operation.f == "withdrawal":
        return int(asked["account"]), CASH, amount
    return int(asked["source"]), int(asked["target"]), amount


def check_books(operations: Sequence[Operation], ledger: Ledger, initial_sum: int) -> Verdict:
    """Check sums, knowing nothing of the order.

    Args:
        operations: the history's.
        ledger: the journal as it was after the run.
        initial_sum: minor units on all customer accounts before the run.

    Returns:
        A verdict; its errors are ``sum`` (customers and cash together are not 0, or the customers
        hold another sum than what was put in and taken out, give or take what nobody knows) and
        ``below zero``.
    """
    verdict = Verdict("books").expect("sum", "below zero")
    low, high = _expected_sums(operations, initial_sum)
    final = sum(ledger.account(n).balances[-1] for n in ledger.accounts())
    cash = ledger.account(CASH).balances[-1] if ledger.account(CASH).balances else 0
    verdict.checked += 1
    if final + cash != 0:
        verdict.blame("sum", f"customers hold {final} and cash {cash}: together not 0")
    for operation in operations:
        if operation.f == "balances" and operation.outcome == OK:
            verdict.checked += 1
            _check_full_read(operation, ledger, verdict)
    if not low <= final <= high:
        verdict.blame("sum", f"customers hold {final} in the end; {low} to {high} was expected")
    return verdict


def _expected_sums(operations: Sequence[Operation], initial_sum: int) -> tuple[int, int]:
    """Return the least and the most that customers can hold in the end."""
    best: dict[str, Operation] = {}  # by request id: a try that is ok, or else unknown, or failed
    for operation in operations:
        if operation.f in ("deposit", "withdrawal"):
            other = best.setdefault(str(operation.asked["request_id"]), operation)
            if _RANK[operation.outcome] > _RANK[other.outcome]:
                best[str(operation.asked["request_id"])] = operation
    low = high = initial_sum
    for operation in best.values():
        amount = int(operation.asked["amount"])
        change = amount if operation.f == "deposit" else -amount
        if operation.outcome == OK:
            low, high = low + change, high + change
        elif operation.outcome == INFO:
            low, high = min(low, low + change), max(high, high + change)
    return low, high


_RANK = {FAIL: 0, INFO: 1, OK: 2}


def _check_full_read(operation: Operation, ledger: Ledger, verdict: Verdict) -> None:
    balances = {int(account): int(held) for account, held in operation.got["balances"].items()}
    for account, held in balances.items():
        if account != CASH and held < 0:
            verdict.blame("below zero", f"read {operation.index} saw {held} on account {account}")
    commit = operation.got.get("commit")
    if commit is None or set(ledger.accounts()) - balances.keys():
        return  # not a full read at one moment
    customers = sum(held for account, held in balances.items() if account != CASH)
    cash = balances.get(CASH, ledger.account(CASH).at(int(commit)))
    if customers + cash != 0:
        verdict.blame(
            "sum", f"read {operation.index} saw {customers} with customers, {cash} in cash"
        )

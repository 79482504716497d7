"""Is the bank linearizable? By its own commit numbers, in one pass over the history.

The bank claims an order: the commit numbers. That makes the question easy, where in general it is
not. The claim is true if

- replaying the journal in that order explains every balance that anybody was told: after an
  operation, by a read, or in a refusal for want of money;
- the order agrees with real time: what ended before something else began comes before it.

An operation that was repeated under its request id began when it was first tried. A read that tells
no commit number may show any state between the last commit known when it began and the last one
whose operations had all begun when it ended.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from rmi_torture.checkers.ledger import Ledger, Line
from rmi_torture.checkers.verdict import Verdict
from rmi_torture.history import FAIL, OK, Operation

MUTATIONS = ("deposit", "withdrawal", "transfer")
READS = ("balance", "balances")
INSUFFICIENT = "insufficient_funds"


def check_bank_order(operations: Sequence[Operation], ledger: Ledger) -> Verdict:
    """Check a history against the order that the bank claims.

    Args:
        operations: the history's.
        ledger: the journal as it was after the run.

    Returns:
        A verdict; its errors are ``wrong balance``, ``stale`` (an order against real time),
        ``overdrawn`` and ``disorder``.
    """
    verdict = Verdict("bank order").expect("wrong balance", "stale", "overdrawn", "disorder")
    for kind, sentences in (("overdrawn", ledger.overdrawn), ("disorder", ledger.disorder)):
        for sentence in sentences:
            verdict.blame(kind, sentence)
    floors = _floors(operations)
    begun = _begun(operations, ledger)
    for operation in operations:
        floor = floors[operation.index]
        if operation.f in MUTATIONS and operation.outcome == OK:
            _check_mutation(operation, floor, ledger, verdict)
        elif operation.f in READS and operation.outcome == OK:
            _check_read(operation, floor, ledger, begun, verdict)
        elif operation.outcome == FAIL and operation.code == INSUFFICIENT:
            _check_refusal(operation, floor, ledger, begun, verdict)
        else:
            continue
        verdict.checked += 1
    return verdict


def _floors(operations: Sequence[Operation]) -> dict[int, int]:
    """Return, by operation, the highest commit number known to anybody when it began."""
    moments: list[tuple[int, int, Operation]] = []
    for operation in operations:
        moments.append((operation.began_ns, 1, operation))
        if operation.outcome == OK and "commit" in operation.got:
            moments.append((operation.ended_ns, 0, operation))
    moments.sort(key=lambda moment: moment[:2])
    floors: dict[int, int] = {}
    first_floor: dict[str, int] = {}
    known = 0
    for _, begins, operation in moments:
        if not begins:
            known = max(known, int(operation.got["commit"]))
            continue
        request_id = operation.asked.get("request_id")
        if request_id is None:
            floors[operation.index] = known
        else:
            floors[operation.index] = first_floor.setdefault(str(request_id), known)
    return floors


def _begun(operations: Sequence[Operation], ledger: Ledger) -> dict[int, int]:
    """Return, by commit number, when the last of its operations was first tried."""
    first_ns: dict[str, int] = {}
    for operation in operations:
        if operation.f in MUTATIONS:
            request_id = str(operation.asked["request_id"])
            first_ns[request_id] = min(
                first_ns.get(request_id, operation.began_ns), operation.began_ns
            )
    begun: dict[int, int] = {}
    for line in ledger.lines:
        at = first_ns.get(line.request_id, 0)
        begun[line.commit] = max(begun.get(line.commit, 0), at)
    return begun


def _check_mutation(operation: Operation, floor: int, ledger: Ledger, verdict: Verdict) -> None:
    request_id = str(operation.asked["request_id"])
    lines = ledger.by_request.get(request_id, [])
    if len(lines) != 1:
        return  # lost or doubled: check_effects says so
    line, commit = lines[0], int(operation.got["commit"])
    if line.commit != commit:
        verdict.blame(
            "wrong balance",
            f"{request_id} was told commit {commit}, the journal says {line.commit}",
            operation.index,
        )
    elif commit <= floor:
        verdict.blame(
            "stale",
            f"{request_id} has commit {commit}, but {floor} was known when it began",
            operation.index,
        )
    due = _own_balance(operation, line, ledger)
    if int(operation.got["balance"]) != due:
        verdict.blame(
            "wrong balance",
            f"{request_id} was told balance {operation.got['balance']}, the journal says {due}",
            operation.index,
        )


def _own_balance(operation: Operation, line: Line, ledger: Ledger) -> int:
    """Return the balance, after its line, of the account an operation answers about."""
    taken, given = ledger.after[line.line]
    return given if operation.f == "deposit" else taken


def _check_read(
    operation: Operation,
    floor: int,
    ledger: Ledger,
    begun: dict[int, int],
    verdict: Verdict,
) -> None:
    if operation.f == "balance":
        told = {int(operation.asked["account"]): int(operation.got["balance"])}
    else:
        told = {int(account): int(b) for account, b in operation.got["balances"].items()}
    commit = operation.got.get("commit")
    if commit is None:
        for account, balance in told.items():
            if not _was_seen(account, balance, floor, operation.ended_ns, ledger, begun):
                verdict.blame(
                    "stale",
                    f"read {operation.index} saw {balance} on account {account}: it held that at "
                    "no time during the read",
                    operation.index,
                )
        return
    if int(commit) < floor:
        verdict.blame(
            "stale",
            f"read {operation.index} shows commit {commit}, but {floor} was known when it began",
            operation.index,
        )
    for account, balance in told.items():
        due = ledger.account(account).at(int(commit))
        # A read that was committed with changes stands somewhere among them; a full read does not.
        among = operation.f == "balance" and balance in ledger.account(account).during(int(commit))
        if balance != due and not among:
            verdict.blame(
                "wrong balance",
                f"read {operation.index} saw {balance} on account {account} at commit {commit}, "
                f"the journal says {due}",
                operation.index,
            )


def _check_refusal(
    operation: Operation,
    floor: int,
    ledger: Ledger,
    begun: dict[int, int],
    verdict: Verdict,
) -> None:
    """A refusal for want of money tells the balance that was too low: was it ever that?"""
    fields = operation.error.get("fields", {})
    if "balance" not in fields or "account" not in fields:
        return
    account, balance = int(fields["account"]), int(fields["balance"])
    if balance >= int(operation.asked["amount"]):
        verdict.blame(
            "wrong balance",
            f"{operation.asked} was refused although {balance} is enough",
            operation.index,
        )
    if not _was_seen(account, balance, floor, operation.ended_ns, ledger, begun):
        verdict.blame(
            "stale",
            f"{operation.asked} was refused because account {account} held {balance}: it held "
            "that at no time during the operation",
            operation.index,
        )


def _was_seen(
    account: int,
    balance: int,
    floor: int,
    ended_ns: int,
    ledger: Ledger,
    begun: dict[int, int],
) -> bool:
    """Tell whether *account* held *balance* at some commit that an operation could have seen."""
    history = ledger.account(account)
    place = bisect_right(history.commits, floor)
    held = history.balances[place - 1] if place else 0
    if held == balance:
        return True
    for later in range(place, len(history.commits)):
        if begun.get(history.commits[later], 0) > ended_ns:
            return False
        if history.balances[later] == balance:
            return True
    return False

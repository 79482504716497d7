"""The raw lock: mutual exclusion, rising numbers, and no commit under a lease that is over."""

from __future__ import annotations

from collections.abc import Sequence

from rmi_torture.checkers.ledger import Ledger
from rmi_torture.checkers.verdict import Verdict
from rmi_torture.history import FAIL, OK, Operation


def check_locks(operations: Sequence[Operation]) -> Verdict:
    """Check raw use of ``lock``, ``commit`` and ``unlock``.

    Args:
        operations: ``lock`` (asked ``accounts``, got ``lease``), ``commit`` and ``unlock`` (asked
            ``lease``).

    Returns:
        A verdict; its errors are ``numbers`` (a lease granted after another was known is not
        higher, or one is granted twice), ``stale commit`` (a commit was begun and accepted after a
        later lease on one of its accounts was known: two held the account), ``two commits``
        (one lease was committed twice), ``foreign commit`` (a commit was accepted from another
        connection after the one that locked had hung up: ``hang_up``, asked ``lease``).
    """
    verdict = Verdict("locks").expect("numbers", "stale commit", "two commits", "foreign commit")
    grants = [op for op in operations if op.f == "lock" and op.outcome == OK]
    commits = [op for op in operations if op.f == "commit" and op.outcome == OK]
    _check_numbers(grants, verdict)
    accounts_of = {int(op.got["lease"]): frozenset(op.asked["accounts"]) for op in grants}
    committed: set[int] = set()
    left = {int(op.asked["lease"]) for op in operations if op.f == "hang_up"}
    for commit in commits:
        verdict.checked += 1
        lease = int(commit.asked["lease"])
        if lease in left:
            verdict.blame("foreign commit", f"lease {lease} outlived its owner", commit.index)
        if lease in committed:
            verdict.blame("two commits", f"lease {lease} was committed twice", commit.index)
        committed.add(lease)
    _check_exclusion(grants, commits, accounts_of, verdict)
    return verdict


def _check_numbers(grants: Sequence[Operation], verdict: Verdict) -> None:
    """Compare each grant with the highest number known when it was asked for."""
    moments: list[tuple[int, int, Operation]] = []
    for grant in grants:
        moments.append((grant.began_ns, 1, grant))
        moments.append((grant.ended_ns, 0, grant))
    moments.sort(key=lambda moment: moment[:2])
    known = 0
    seen: set[int] = set()
    for _, begins, grant in moments:
        lease = int(grant.got["lease"])
        if begins:
            verdict.checked += 1
            if lease <= known:
                verdict.blame(
                    "numbers", f"lease {lease} was granted after {known} was known", grant.index
                )
        else:
            if lease in seen:
                verdict.blame("numbers", f"lease {lease} was granted twice", grant.index)
            seen.add(lease)
            known = max(known, lease)


def _check_exclusion(
    grants: Sequence[Operation],
    commits: Sequence[Operation],
    accounts_of: dict[int, frozenset[int]],
    verdict: Verdict,
) -> None:
    """Walk through time: what is the highest lease known on each account when a commit begins?"""
    moments: list[tuple[int, int, Operation]] = []
    moments += [(grant.ended_ns, 0, grant) for grant in grants]
    moments += [(commit.began_ns, 1, commit) for commit in commits]
    moments.sort(key=lambda moment: moment[:2])
    highest: dict[int, int] = {}
    for _, is_commit, operation in moments:
        if not is_commit:
            lease = int(operation.got["lease"])
            for account in operation.asked["accounts"]:
                highest[account] = max(highest.get(account, 0), lease)
            continue
        lease = int(operation.asked["lease"])
        for account in accounts_of.get(lease, frozenset()):
            if highest.get(account, 0) > lease:
                verdict.blame(
                    "stale commit",
                    f"lease {lease} was committed although {highest[account]} was already granted "
                    f"on account {account}",
                    operation.index,
                )
                break


def check_raw_commits(operations: Sequence[Operation], ledger: Ledger) -> Verdict:
    """Check that each acknowledged commit is in the journal once, and each refused one is not.

    Args:
        operations: ``commit`` (asked ``request_id``, scoped by client, ``source`` and ``target`` of
            one minor unit, got ``commit``).
        ledger: the journal as it was after the run.

    Returns:
        A verdict; its errors are ``lost``, ``doubled``, ``refused but done``, ``altered`` (other
        accounts or another amount than were asked for) and ``invented`` (nobody asked for it).
    """
    kinds = ("lost", "doubled", "refused but done", "altered", "invented")
    verdict = Verdict("commits").expect(*kinds)
    tries: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.f == "commit":
            request_id = str(operation.asked["request_id"]).partition(":")[2]
            tries.setdefault(request_id, []).append(operation)
    for request_id, tried in tries.items():
        verdict.checked += 1
        lines, at = ledger.by_request.get(request_id, []), tried[-1].index
        acknowledged = [int(op.got["commit"]) for op in tried if op.outcome == OK]
        if len(lines) > 1 or len(acknowledged) > 1:
            verdict.blame("doubled", f"{request_id} was committed as {acknowledged}, {lines}", at)
        elif acknowledged and [line.commit for line in lines] != acknowledged:
            verdict.blame("lost", f"{request_id} was committed as {acknowledged}: {lines}", at)
        if lines and all(operation.outcome == FAIL for operation in tried):
            verdict.blame(
                "refused but done", f"{request_id} was refused, and is there: {lines}", at
            )
        due = (int(tried[0].asked["source"]), int(tried[0].asked["target"]), 1)
        for line in lines:
            if (line.debit, line.credit, line.amount) != due:
                verdict.blame("altered", f"{request_id}: {tried[0].asked} became {line}", at)
    # The demonstration's opening lines have no request id.
    for request_id in ledger.by_request.keys() - tries.keys() - {""}:
        verdict.blame("invented", f"the journal has {request_id!r}, which nobody asked for")
    return verdict

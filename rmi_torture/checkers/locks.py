"""The raw lock: mutual exclusion, rising numbers, and no commit under a lease that is over."""

from __future__ import annotations

from collections.abc import Sequence

from rmi_torture.checkers.verdict import Verdict
from rmi_torture.history import OK, Operation


def check_locks(operations: Sequence[Operation]) -> Verdict:
    """Check raw use of ``lock``, ``commit`` and ``unlock``.

    Args:
        operations: ``lock`` (asked ``accounts``, got ``lease``), ``commit`` and ``unlock`` (asked
            ``lease``).

    Returns:
        A verdict; its errors are ``numbers`` (a lease granted after another was known is not
        higher, or one is granted twice), ``stale commit`` (a commit was begun and accepted after a
        later lease on one of its accounts was known: two held the account), ``two commits``
        (one lease was committed twice).
    """
    verdict = Verdict("locks").expect("numbers", "stale commit", "two commits")
    grants = [op for op in operations if op.f == "lock" and op.outcome == OK]
    commits = [op for op in operations if op.f == "commit" and op.outcome == OK]
    _check_numbers(grants, verdict)
    accounts_of = {int(op.got["lease"]): frozenset(op.asked["accounts"]) for op in grants}
    committed: set[int] = set()
    for commit in commits:
        verdict.checked += 1
        lease = int(commit.asked["lease"])
        if lease in committed:
            verdict.blame("two commits", f"lease {lease} was committed twice")
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
                verdict.blame("numbers", f"lease {lease} was granted after {known} was known")
        else:
            if lease in seen:
                verdict.blame("numbers", f"lease {lease} was granted twice")
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
                )
                break

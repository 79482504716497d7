"""A second opinion that trusts no commit number: is there any order that explains what was seen?

The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with Lowe's
memory of states already tried (Testing for Linearizability, 2017). At worst it is exponential, so
it looks at one account at a time and at short histories, and gives up after so many steps.

An account is a number that steps change or show. A transfer is seen from each of its accounts as
what it does there: necessary for the whole to be linearizable, so an error found here is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rmi_torture.checkers.bank_order import INSUFFICIENT, MUTATIONS
from rmi_torture.checkers.verdict import Verdict
from rmi_torture.history import FAIL, OK, Operation

STEPS_MAX = 200_000
HISTORY_MAX = 120
_NEVER_NS = 2**63 - 1

Answer = Literal["linearizable", "not linearizable", "unknown"]


@dataclass(frozen=True, slots=True)
class Step:
    """What one operation does to one account.

    Attributes:
        began_ns: when it was invoked.
        ended_ns: when it ended; later than everything if nobody knows its end.
        change: minor units it adds.
        after: the balance it was told, after the change; None if it was told none.
        below: it was refused because the balance was below this; None if it was not refused.
        certain: it happened; otherwise it may have.
    """

    began_ns: int
    ended_ns: int
    change: int = 0
    after: int | None = None
    below: int | None = None
    certain: bool = True

    def apply(self, balance: int) -> int | None:
        """Return the balance after this step, or None if it cannot happen on *balance*."""
        if self.below is not None:
            return balance if balance < self.below else None
        balance += self.change
        if balance < 0 or (self.after is not None and balance != self.after):
            return None
        return balance


def search(steps: Sequence[Step], initial: int, steps_max: int = STEPS_MAX) -> Answer:
    """Look for an order of *steps*, in agreement with real time, that explains them all.

    Args:
        steps: of one account.
        initial: what it held before them.
        steps_max: give up after trying so many.

    Returns:
        The answer; ``unknown`` if it gave up.
    """
    ordered = sorted(steps, key=lambda step: step.began_ns)
    everything = (1 << len(ordered)) - 1
    must = sum(1 << n for n, step in enumerate(ordered) if step.certain)
    tried: set[tuple[int, int]] = {(0, initial)}
    waiting = [(0, initial)]
    count = 0
    while waiting:
        done, balance = waiting.pop()
        if done & must == must or done == everything:
            return "linearizable"
        for number in _minimal(ordered, done):
            count += 1
            if count > steps_max:
                return "unknown"
            after = ordered[number].apply(balance)
            state = (done | 1 << number, after)
            if after is not None and state not in tried:
                tried.add((state[0], after))
                waiting.append((state[0], after))
    return "not linearizable"


def _minimal(ordered: Sequence[Step], done: int) -> Iterable[int]:
    """Yield the steps that may come next: begun before every other pending one has ended."""
    earliest_end = min(
        (step.ended_ns for n, step in enumerate(ordered) if not done >> n & 1 and step.certain),
        default=_NEVER_NS,
    )
    for number, step in enumerate(ordered):
        if step.began_ns > earliest_end:
            return
        if not done >> number & 1:
            yield number


def steps_of(operations: Iterable[Operation], account: int) -> list[Step]:
    """Return what a history's operations do to one account, in order of their invocations.

    Repeated request ids make one step, from the first try to the first acknowledgement.
    """
    steps: list[Step] = []
    tries: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.f == "balance" and operation.outcome == OK:
            if int(operation.asked["account"]) == account:
                told = int(operation.got["balance"])
                steps.append(Step(operation.began_ns, operation.ended_ns, after=told))
        elif operation.f in MUTATIONS:
            tries.setdefault(str(operation.asked["request_id"]), []).append(operation)
    steps += [step for tried in tries.values() if (step := _step(tried, account)) is not None]
    return sorted(steps, key=lambda step: step.began_ns)


def _step(tried: Sequence[Operation], account: int) -> Step | None:
    asked = tried[0].asked
    amount = int(asked["amount"])
    if tried[0].f == "deposit":
        change, acts = (amount if asked["account"] == account else 0), True
    elif tried[0].f == "withdrawal":
        change, acts = (-amount if asked["account"] == account else 0), True
    else:
        acts = asked["source"] == account
        change = -amount if acts else amount if asked["target"] == account else 0
    if not change:
        return None
    began_ns = min(operation.began_ns for operation in tried)
    for operation in tried:
        if operation.outcome == OK:
            told = int(operation.got["balance"]) if acts else None
            return Step(began_ns, operation.ended_ns, change, after=told)
    for operation in tried:
        if operation.outcome == FAIL and operation.code == INSUFFICIENT:
            return Step(began_ns, operation.ended_ns, below=amount) if acts else None
    if all(operation.outcome == FAIL for operation in tried):
        return None
    return Step(began_ns, _NEVER_NS, change, certain=False)


def check_by_search(
    operations: Sequence[Operation], initial: dict[int, int], history_max: int = HISTORY_MAX
) -> Verdict:
    """Search for an order, account by account, over the first steps of each.

    Args:
        operations: the history's.
        initial: account to its balance before the run.
        history_max: how many steps of each account to look at.

    Returns:
        A verdict; its errors are ``not linearizable``. ``checked`` counts the accounts that were
        decided.
    """
    verdict = Verdict("search").expect("not linearizable")
    most = 4 * history_max
    first = _first_operations(operations, initial.keys(), most)
    for account, held in initial.items():
        steps = steps_of(first[account], account)
        cut_ns = steps[history_max].began_ns if len(steps) > history_max else _NEVER_NS
        if len(first[account]) == most:
            cut_ns = min(cut_ns, first[account][-1].began_ns)
        # What may still have been under way at the cut may or may not have happened before it.
        part = [
            step if step.ended_ns < cut_ns else _uncertain(step)
            for step in steps
            if step.began_ns < cut_ns
        ]
        answer = search([step for step in part if step is not None], held)
        verdict.checked += answer != "unknown"
        if answer == "not linearizable":
            verdict.blame(
                "not linearizable", f"no order of the first {len(part)} steps explains {account}"
            )
    return verdict


def _first_operations(
    operations: Iterable[Operation], accounts: Iterable[int], most: int
) -> dict[int, list[Operation]]:
    """Return, by account, the first operations that touch it: so long histories cost no more."""
    found: dict[int, list[Operation]] = {account: [] for account in accounts}
    open_ = set(found)
    for operation in operations:
        if not open_:
            break
        for name in ("account", "source", "target"):
            account = operation.asked.get(name)
            if account in open_:
                found[account].append(operation)
                if len(found[account]) == most:
                    open_.discard(account)
    return found


def _uncertain(step: Step) -> Step | None:
    if not step.change:
        return None
    return Step(step.began_ns, _NEVER_NS, step.change, step.after, certain=False)

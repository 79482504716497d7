"""Plants one bug after the other, and sees whether the checkers find each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmi_torture.planted import BUGS, Bug
from rmi_torture.run import Plan, Result, run


@dataclass(frozen=True)
class Catch:
    """What came of one planted bug.

    Attributes:
        bug: which.
        by: checkers that found something, and what: ``effects: lost 3``.
        caught: whether one of those that must find it did.
        operations: how many operations had been asked until the first one that is seen to be wrong;
            None: the checkers cannot tell.
        result: of the run.
    """

    bug: Bug
    by: Sequence[str]
    caught: bool
    operations: int | None
    result: Result

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "bug": self.bug.name,
            "what": self.bug.what,
            "workload": self.bug.workload,
            "faults": list(self.bug.faults),
            "caught": self.caught,
            "by": list(self.by),
            "after_operations": self.operations,
            "of_operations": len(self.result.operations),
        }


def plan_for(bug: Bug, seed: int) -> Plan:
    """Return the run in which a bug shows."""
    return Plan(
        workload=bug.workload,
        faults=bug.faults,
        seconds=bug.seconds,
        seed=seed,
        every_s=bug.every_s,
        lasting_s=1.5,
        timeout_s=bug.timeout_s,
        bug=bug.name,
        environment=bug.environment,
    )


async def hunt(
    names: Sequence[str], seed: int, out_dir: Path, told: Callable[[Catch], None]
) -> list[Catch]:
    """Run each of the planted bugs.

    Args:
        names: of bugs; none means all.
        seed: of all runs.
        out_dir: gets a directory for each.
        told: hears of each catch at once.

    Raises:
        KeyError: there is no bug of that name.
    """
    catches = []
    for bug in [BUGS[name] for name in names] or BUGS.values():
        result = await run(plan_for(bug, seed), out_dir / bug.name)
        catch = judge(bug, result)
        told(catch)
        catches.append(catch)
    return catches


def judge(bug: Bug, result: Result) -> Catch:
    """Say whether a run found the bug that was planted in it."""
    found = [verdict for verdict in result.verdicts if not verdict.valid]
    by = [
        f"{verdict.checker}: " + ", ".join(f"{k} {n}" for k, n in verdict.counts.items() if n)
        for verdict in found
    ]
    caught = any(verdict.checker in bug.caught_by for verdict in found)
    firsts = [verdict.first for verdict in found if verdict.first is not None]
    indices = [operation.index for operation in result.operations]
    after = bisect_right(indices, min(firsts)) if firsts else None
    return Catch(bug, by, caught, after, result)

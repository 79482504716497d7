"""What came of a run, in a word and in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmi_torture.checkers import Verdict, all_valid
from rmi_torture.history import OK, Operation
from rmi_torture.plan import Plan

DUE_MIN = 3
"""A kind of fault that was due so often ought to have been made once."""


@dataclass
class Result:
    """What came of it.

    Attributes:
        plan: what was run.
        history: the file.
        operations: the history, paired.
        verdicts: one of each checker.
        needs: kinds of operations that must have succeeded.
        faults: how many of each kind were made.
        seconds: how long the clients worked.
        unready: services that were not ready again after the faults, or what could not be read.
        cut_short: somebody ended it before its time; the verdict is on the part that ran.
    """

    plan: Plan
    history: Path
    operations: Sequence[Operation]
    verdicts: Sequence[Verdict]
    needs: frozenset[str]
    faults: Mapping[str, int]
    seconds: float
    unready: Sequence[str] = ()
    cut_short: bool = False

    @property
    def missing(self) -> list[str]:
        """Kinds of operations, and ways of asking, that never succeeded: the run says nothing."""
        done = {operation.f for operation in self.operations if operation.outcome == OK}
        tried = {operation.way for operation in self.operations}
        open_ = {operation.way for operation in self.operations if operation.outcome == OK}
        return sorted(self.needs - done) + [f"anything over {way}" for way in sorted(tried - open_)]

    @property
    def unmade(self) -> dict[str, int]:
        """Kinds of faults that never came to be, and how often they were due.

        Once or twice may be chance, as when the target of a fault is just down from another.
        """
        due = Counter(step.kind for step in self.plan.steps() if step.at_s <= self.seconds)
        return {
            kind: count
            for kind, count in sorted(due.items())
            if count >= DUE_MIN and not self.faults.get(kind)
        }

    @property
    def faultless(self) -> bool:
        """Whether faults were asked for, and not one was made in all the time there was."""
        return bool(not self.cut_short and self.plan.steps() and not sum(self.faults.values()))

    @property
    def acknowledged(self) -> int:
        """How many operations ended well."""
        return sum(operation.outcome == OK for operation in self.operations)

    @property
    def verdict(self) -> str:
        """Say in a word how it went.

        ``stuck``: the system did not come back, so nothing can be judged. ``failed``: a checker
        found an error. ``invalid``: some kind of operation never succeeded, or a checker had
        nothing to look at, or no fault was made, or none of a kind that was due three times, so
        that it says nothing. Else ``passed``.
        """
        if self.unready:
            return "stuck"
        if not all(verdict.valid for verdict in self.verdicts):
            return "failed"
        vain = self.missing or self.faultless or self.unmade or not all_valid(self.verdicts)
        return "invalid" if vain else "passed"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, without the history."""
        plan = self.plan
        return {
            "verdict": self.verdict,
            "workload": plan.workload,
            "seed": plan.seed,
            "bug": plan.bug,
            "hosts": plan.hosts,
            "cut_short": self.cut_short,
            "seconds": round(self.seconds, 1),
            "operations": len(self.operations),
            "acknowledged": self.acknowledged,
            "faults": dict(self.faults),
            "missing": self.missing,
            "unmade": self.unmade,
            "unready": list(self.unready),
            "checkers": [verdict.as_dict() for verdict in self.verdicts],
        }

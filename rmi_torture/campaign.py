"""Plants one bug after the other, and sees whether the checkers find each."""

from __future__ import annotations

import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmi_runtime.errors import Unavailable
from rmi_torture.faults.setup import missing_java
from rmi_torture.plan import Plan
from rmi_torture.planted import BUGS, Bug
from rmi_torture.result import Result
from rmi_torture.workloads.messages import NO_MORE_S

TRIES = 3
"""How often a bug is looked for: on a slow machine, the moment in which it shows may not come."""

STRETCH = 1.5
"""How much longer each further try is."""

ANOTHER_SEED = 1000
OVERHEAD_S = 5.0
OVERHEAD_HAZELCAST_S = 60.0

Perform = Callable[[Plan, Path], Result]
"""Carries a plan out in a directory, and judges what it left."""


@dataclass(frozen=True)
class Catch:
    """What came of one planted bug.

    Attributes:
        bug: which.
        by: checkers that found something, and what: ``effects: lost 3``.
        caught: whether one of those that must find it did.
        after: how many operations had been asked until the first one that is seen to be wrong;
            None: the checkers cannot tell.
        of: how many there were.
        seed: of the run.
        tries: how many runs it took.
        seconds: how long they took.
        verdict: of the run.
        skipped: why it was not looked for, or nothing.
    """

    bug: Bug
    by: Sequence[str] = ()
    caught: bool = False
    after: int | None = None
    of: int = 0
    seed: int = 0
    tries: int = 0
    seconds: float = 0.0
    verdict: str = ""
    skipped: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "bug": self.bug.name,
            "what": self.bug.what,
            "workload": self.bug.workload,
            "faults": list(self.bug.faults),
            "caught": self.caught,
            "by": list(self.by),
            "after_operations": self.after,
            "of_operations": self.of,
            "seed": self.seed,
            "tries": self.tries,
            "seconds": round(self.seconds, 1),
            "verdict": self.verdict,
            "skipped": self.skipped,
        }


def plan_for(bug: Bug, seed: int, attempt: int = 0) -> Plan:
    """Return the run in which a bug shows.

    Args:
        bug: which.
        seed: of the first try.
        attempt: how often it was looked for before, in vain: other seeds, and more time.
    """
    return Plan(
        workload=bug.workload,
        faults=bug.faults,
        seconds=bug.seconds * STRETCH**attempt,
        seed=seed + ANOTHER_SEED * attempt,
        faults_min=min(1, len(bug.faults)),
        every_s=bug.every_s,
        lasting_s=1.5,
        timeout_s=bug.timeout_s,
        bug=bug.name,
        store=bug.store,
        backups=bug.backups,
        environment=bug.environment,
    )


def estimate_s(bug: Bug) -> float:
    """Return about how long one try takes on a quiet machine, in seconds."""
    overhead_s = OVERHEAD_S if bug.store == "sqlite" else OVERHEAD_HAZELCAST_S
    lost_s = NO_MORE_S if bug.workload == "queue" and bug.faults else 0.0
    return bug.seconds + overhead_s + lost_s


def reason_to_skip(bug: Bug) -> str:
    """Say why a bug cannot be looked for on this machine; nothing if it can."""
    return missing_java() if bug.store == "hazelcast" else ""


def bugs_named(names: Sequence[str]) -> list[Bug]:
    """Return the bugs of those names; none means all.

    Raises:
        KeyError: there is no bug of that name.
    """
    return [BUGS[name] for name in names] or list(BUGS.values())


def hunt(bug: Bug, seed: int, out_dir: Path, perform: Perform) -> Catch:
    """Plant a bug, and look for it, a few times if need be.

    Args:
        bug: which.
        seed: of the first try.
        out_dir: gets a directory for each try; the system's own is taken away from the one in
            which the bug was caught.
        perform: carries a plan out.

    Returns:
        What came of it: the try in which it was caught, or else the last one.
    """
    if why := reason_to_skip(bug):
        return Catch(bug, skipped=why)
    began_s = time.monotonic()
    catch = Catch(bug)
    for attempt in range(TRIES):
        plan = plan_for(bug, seed, attempt)
        directory = out_dir / f"{bug.name}-{plan.seed}"
        try:
            result = perform(plan, directory)
        except Unavailable as error:  # it did not start in time
            catch = Catch(bug, verdict=f"did not start: {error.message[-200:]}")
            result = None
        if result is not None:
            catch = judge_catch(bug, result)
        seconds = time.monotonic() - began_s
        catch = replace(catch, seed=plan.seed, tries=attempt + 1, seconds=seconds)
        if catch.caught:
            shutil.rmtree(directory / "data", ignore_errors=True)
        if catch.caught or (result is not None and result.cut_short):
            break
    return catch


def judge_catch(bug: Bug, result: Result) -> Catch:
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
    return Catch(bug, by, caught, after, len(indices), verdict=result.verdict)

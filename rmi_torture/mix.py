"""A mix of everything: each workload in turn, under every kind of fault that can befall it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rmi_torture.faults.setup import missing_java, possible_kinds
from rmi_torture.plan import Plan
from rmi_torture.result import Result
from rmi_torture.targets import MEMBERS

OVERHEAD_S = 12.0
OVERHEAD_HAZELCAST_S = 45.0

_LEASE = {"RMI_LOCK_LEASE_S": "1.0"}
"""Short, so that many holders can dawdle past its end in little time."""

_PROCESS_FAULTS = ("kill", "pause")
_HAZELCAST_FAULTS = (
    *("kill", "pause", "nameserver", "partition", "loss", "delay"),
    *sorted(MEMBERS),
)


@dataclass(frozen=True)
class Phase:
    """A part of the mix.

    Attributes:
        name: for people, and of its directory.
        plan: what is run.
    """

    name: str
    plan: Plan

    @property
    def estimate_s(self) -> float:
        """About how long it takes, with start, end and checkers, in seconds."""
        hazelcast = self.plan.store == "hazelcast"
        overhead_s = OVERHEAD_HAZELCAST_S if hazelcast else OVERHEAD_S
        # Starting, collecting and checking grow with what was done.
        return self.plan.seconds * 1.15 + overhead_s


@dataclass(frozen=True)
class Passed:
    """What came of a part.

    Attributes:
        phase: which.
        verdict: in a word.
        acknowledged: operations.
        faults: how many were made.
        seconds: how long all of it took.
    """

    phase: Phase
    verdict: str
    acknowledged: int
    faults: int
    seconds: float

    @classmethod
    def of(cls, phase: Phase, result: Result, seconds: float) -> Passed:
        """Keep what is told of a result, and let go of its history."""
        made = sum(result.faults.values())
        return cls(phase, result.verdict, result.acknowledged, made, seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "phase": self.phase.name,
            "verdict": self.verdict,
            "seed": self.phase.plan.seed,
            "acknowledged": self.acknowledged,
            "faults": self.faults,
            "seconds": round(self.seconds, 1),
        }


def phases(minutes: float, seed: int, *, kinds: Sequence[str], hazelcast: bool) -> list[Phase]:
    """Return the parts of the mix. Pure code.

    Args:
        minutes: how long all clients work, together.
        seed: of all parts.
        kinds: of faults that this machine has the means for.
        hazelcast: whether it can run Hazelcast members.
    """
    every = tuple(kind for kind in kinds if kind not in MEMBERS)
    # Only the data object's disk forgets: the loggers' is shared by several processes.
    shared = tuple(kind for kind in every if kind != "power")
    shares: list[tuple[str, float, dict[str, Any]]] = [
        ("bank", 0.5, {"workload": "bank", "faults": every, "every_s": 1.0, "batch": 64}),
        ("lock", 0.05, {"workload": "lock", "faults": _PROCESS_FAULTS, "environment": _LEASE}),
        ("queue", 0.1, {"workload": "queue", "faults": _PROCESS_FAULTS}),
        ("messages", 0.15, {"workload": "messages", "faults": shared, "every_s": 1.5}),
    ]
    if hazelcast:
        given = {"store": "hazelcast", "faults": _HAZELCAST_FAULTS}
        shares.append(("messages on Hazelcast", 0.2, {"workload": "messages", **given}))
    whole = sum(share for _, share, _ in shares)
    return [
        Phase(name, Plan(seconds=minutes * 60 * share / whole, seed=seed, **given))
        for name, share, given in shares
    ]


def phases_here(minutes: float, seed: int) -> tuple[list[Phase], str]:
    """Return the parts that this machine has the means for, and what is left out and why."""
    without = missing_java()
    found = phases(minutes, seed, kinds=possible_kinds(), hazelcast=not without)
    return found, without and f"without Hazelcast: it {without}"

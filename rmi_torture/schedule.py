"""Which fault comes when, to whom and for how long: decided by a seed alone. Pure code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

DURATION_S_MIN = 0.3


class Step(NamedTuple):
    """One fault.

    Attributes:
        at_s: when it begins, in seconds after the start.
        kind: which one.
        target: to which service.
        duration_s: how long it lasts; 0 for those that are over at once.
    """

    at_s: float
    kind: str
    target: str
    duration_s: float


def plan_faults(
    seed: int,
    targets: Mapping[str, Sequence[str]],
    *,
    for_s: float,
    every_s: float = 2.5,
    lasting_s_max: float = 3.0,
    calm_s: float = 1.0,
) -> list[Step]:
    """Return a schedule; the same seed and arguments give the same one.

    The kinds come by turns, in an order of chance, so that each has its share however short the
    run is. A target is spared while a fault of the same kind still lasts there.

    Args:
        seed: of all choices.
        targets: kind of fault to the services it may strike.
        for_s: when the last fault is over.
        every_s: one fault begins in this time, on the average.
        lasting_s_max: longest duration of those that last.
        calm_s: before the first one.

    Returns:
        The steps, in order of time.
    """
    rng = Random(f"faults/{seed}")  # noqa: S311 (repeatable on purpose)
    steps: list[Step] = []
    until: dict[tuple[str, str], float] = {}
    turn: list[str] = []
    at_s = calm_s
    while targets:
        if not turn:
            turn = sorted(targets)
            rng.shuffle(turn)
        kind = turn.pop()
        target = rng.choice(list(targets[kind]))
        lasts_s = 0.0 if kind in SUDDEN else rng.uniform(DURATION_S_MIN, lasting_s_max)
        if at_s + lasts_s > for_s:
            break
        if until.get((kind, target), 0.0) <= at_s:
            steps.append(Step(round(at_s, 3), kind, target, round(lasts_s, 3)))
            until[kind, target] = at_s + lasts_s
        at_s += rng.uniform(0.5, 1.5) * every_s
    return steps


SUDDEN = frozenset(("kill", "nameserver", "power", "member", "members"))
"""Faults that are over at once: what follows is the system's own recovery."""

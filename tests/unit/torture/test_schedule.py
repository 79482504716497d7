"""The schedule of faults: a seed decides all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmi_torture.schedule import SUDDEN, plan_faults
from rmi_torture.targets import KINDS, WORKLOADS, targets_of

TARGETS = targets_of(tuple(KINDS), "bank")


def test_the_same_seed_gives_the_same_schedule_and_another_another() -> None:
    one, same, other = (plan_faults(seed, TARGETS, for_s=60) for seed in (7, 7, 8))
    assert one == same
    assert one != other


def test_each_kind_comes_before_any_kind_comes_for_the_third_time() -> None:
    steps = plan_faults(3, TARGETS, for_s=200, every_s=1)
    first_two_rounds = [step.kind for step in steps[: 2 * len(KINDS)]]
    assert set(first_two_rounds) == set(KINDS)


@given(st.integers(0, 10**6), st.floats(0.5, 5), st.floats(0.5, 10))
def test_all_is_over_in_time_and_nothing_is_struck_twice_at_once(
    seed: int, every_s: float, lasting_s: float
) -> None:
    steps = plan_faults(seed, TARGETS, for_s=60, every_s=every_s, lasting_s_max=lasting_s)
    until: dict[tuple[str, str], float] = {}
    for step in steps:
        assert 0 < step.at_s <= step.at_s + step.duration_s <= 60.001
        assert (step.duration_s == 0) == (step.kind in SUDDEN)
        assert step.target in TARGETS[step.kind]
        assert until.get((step.kind, step.target), 0) <= step.at_s + 0.001
        until[step.kind, step.target] = step.at_s + step.duration_s


def test_no_faults_make_an_empty_schedule() -> None:
    assert plan_faults(1, {}, for_s=60) == []


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_kind_has_a_target_in_every_workload(workload: str) -> None:
    assert all(targets_of(tuple(KINDS), workload).values())


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no fault 'earthquake'"):
        targets_of(("earthquake",), "bank")

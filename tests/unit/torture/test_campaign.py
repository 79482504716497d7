"""The hunt for planted bugs, and the mix: what is run, how often, and what counts as caught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rmi_runtime.errors import Unavailable
from rmi_torture import campaign
from rmi_torture.campaign import STRETCH, TRIES, bugs_named, hunt, plan_for
from rmi_torture.checkers import Verdict
from rmi_torture.faults.hazelcast import settled
from rmi_torture.history import Operation
from rmi_torture.mix import phases
from rmi_torture.plan import Plan
from rmi_torture.planted import BUGS
from rmi_torture.result import Result
from rmi_torture.targets import KINDS, MEMBERS, WORKLOADS

BUG = BUGS["lost-update"]
ON_HAZELCAST = BUGS["one-backup"]
CAUGHT, MISSED = "effects", "books"


class Performer:
    """Performs no plan, and finds what it is told to, run by run."""

    def __init__(self, *blamed: str | Exception, cut_short: bool = False) -> None:
        self.plans: list[Plan] = []
        self._blamed = list(blamed)
        self._cut_short = cut_short

    def __call__(self, plan: Plan, out_dir: Path) -> Result:
        self.plans.append(plan)
        blamed = self._blamed.pop(0)
        if isinstance(blamed, Exception):
            raise blamed
        verdict = Verdict(blamed, checked=1)
        verdict.blame("lost", "one is gone", 20)
        history = [Operation(10 * n, 1, "deposit", {}, n) for n in range(5)]
        needs: frozenset[str] = frozenset()
        return Result(
            plan, out_dir, history, [verdict], needs, {}, plan.seconds, (), self._cut_short
        )


def test_a_bug_is_caught_only_by_a_checker_that_must_find_it(tmp_path: Path) -> None:
    catch = hunt(BUG, 7, tmp_path, Performer(CAUGHT))
    assert (catch.caught, catch.by, catch.tries, catch.seed) == (True, ["effects: lost 1"], 1, 7)
    assert (catch.after, catch.of) == (3, 5)
    assert not hunt(BUG, 7, tmp_path, Performer(*[MISSED] * TRIES)).caught


def test_what_is_not_found_is_looked_for_again_with_another_seed_and_more_time(
    tmp_path: Path,
) -> None:
    perform = Performer(MISSED, Unavailable("slow"), CAUGHT)
    catch = hunt(BUG, 7, tmp_path, perform)
    assert (catch.caught, catch.tries) == (True, 3)
    assert len({plan.seed for plan in perform.plans}) == 3
    assert catch.seed == perform.plans[-1].seed
    assert perform.plans[-1].seconds == pytest.approx(BUG.seconds * STRETCH**2)


def test_a_hunt_that_is_cut_short_is_not_tried_again(tmp_path: Path) -> None:
    catch = hunt(BUG, 7, tmp_path, Performer(MISSED, cut_short=True))
    assert (catch.caught, catch.tries) == (False, 1)


def test_only_what_needs_java_is_skipped_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "missing_java", lambda: "no Java")
    perform = Performer(CAUGHT)
    assert hunt(ON_HAZELCAST, 7, tmp_path, perform).skipped == "no Java"
    assert perform.plans == []
    assert hunt(BUG, 7, tmp_path, perform).caught


@pytest.mark.parametrize("name", BUGS)
def test_the_plan_of_a_bug_waits_for_its_faults(name: str) -> None:
    plan = plan_for(BUGS[name], 1)
    assert plan.faults_min == (1 if plan.faults else 0)
    assert bool(plan.steps()) == bool(plan.faults)


def test_all_bugs_are_hunted_unless_some_are_named() -> None:
    assert bugs_named([]) == list(BUGS.values())
    assert bugs_named(["one-backup", "lost-update"]) == [ON_HAZELCAST, BUG]


@pytest.mark.parametrize(
    ("members", "migrating", "losses", "backups", "with_two", "with_one"),
    [
        (3, False, 2, 20, True, True),
        (3, False, 0, 10, False, True),
        (3, False, 0, 9, False, False),
        (3, True, 0, 20, False, False),
        (2, False, 1, 10, False, False),
    ],
)
def test_members_are_struck_only_when_all_their_copies_are_there(
    members: int, migrating: bool, losses: int, backups: int, with_two: bool, with_one: bool
) -> None:
    cluster = {"members": members, "migrating": migrating, "losses": losses}
    told = {"cluster": cluster, "total": {"entries": 10, "backups": backups}}
    assert settled(told, 2) is with_two
    assert settled(told, 1) is with_one


def made(kinds: Sequence[str], hazelcast: bool) -> list[Plan]:
    return [phase.plan for phase in phases(10, 7, kinds=kinds, hazelcast=hazelcast)]


@pytest.mark.parametrize("hazelcast", [True, False])
def test_the_mix_has_every_workload_and_every_fault_and_takes_the_time_it_is_given(
    hazelcast: bool,
) -> None:
    plans = made([kind for kind in KINDS if kind not in MEMBERS], hazelcast)
    assert {plan.workload for plan in plans} == set(WORKLOADS)
    expected = set(KINDS) if hazelcast else set(KINDS) - MEMBERS
    assert {kind for plan in plans for kind in plan.faults} == expected
    assert sum(plan.seconds for plan in plans) == pytest.approx(600)
    assert {plan.seed for plan in plans} == {7}


def test_the_mix_leaves_out_what_the_machine_has_no_means_for() -> None:
    kinds = [kind for kind in KINDS if kind not in MEMBERS | {"full"}]
    assert all("full" not in plan.faults for plan in made(kinds, hazelcast=True))


def test_the_same_plan_makes_the_same_faults_at_the_same_times() -> None:
    one, same = (
        Plan(faults=("kill", "pause"), seconds=30, seed=7),
        Plan(faults=("kill", "pause"), seconds=30, seed=7),
    )
    assert one.steps() == same.steps()
    assert one.steps()
    assert one.steps() != replace(one, seed=8).steps()

"""The files of a run: written, read, and judged again."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmi_runtime.errors import InternalError, InvalidRequest, NotFound
from rmi_torture.checkers import Line, Verdict
from rmi_torture.judgement import CHECKS, HISTORY, KEPT, RUN, Report, judge, write_report
from rmi_torture.kept import Kept, read_kept, write_kept
from rmi_torture.plan import Plan
from rmi_torture.targets import WORKLOADS
from tests.unit.torture.simulation import ACCOUNTS, OPENING, Simulation

KEPT_OF_ALL = Kept(
    {1: 1000, 2: 50},
    {"", "open-1"},
    {Line(1, 1, 0, 1, 1000, "open-1"), Line(2, 2, 1, 2, 7, "a \u00e9 \n")},
    [("m1", "text"), ("m0", "")],
    {"msg.messages.1": ["m1"], "msg.messages.2": ["m0", "m1"]},
)


def save(directory: Path, simulation: Simulation, lines: list[Line], **told: object) -> None:
    """Write the files of a run of the bank's workload."""
    with (directory / HISTORY).open("wb") as file:
        for event in simulation.events:
            file.write(event.as_json() + b"\n")
    kept = Kept(dict.fromkeys(ACCOUNTS, OPENING), set(simulation.opening), set(lines))
    write_kept(kept, directory / KEPT)
    plan = Plan("bank", seed=7)
    report = Report(plan, plan.steps(), 12.5, {"kill": 3}, **told)  # type: ignore[arg-type]
    write_report(report, directory)


@pytest.fixture
def simulation() -> Simulation:
    return Simulation(7).run(300)


def test_what_was_kept_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_kept(KEPT_OF_ALL, tmp_path / KEPT)
    assert read_kept(tmp_path / KEPT) == KEPT_OF_ALL


def test_a_line_that_is_not_known_is_named(tmp_path: Path) -> None:
    write_kept(Kept({1: 5}), tmp_path / KEPT)
    with (tmp_path / KEPT).open("a") as file:
        file.write('{"what":"ghost"}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_kept(tmp_path / KEPT)


def test_a_run_is_judged_by_its_files_alone(tmp_path: Path, simulation: Simulation) -> None:
    save(tmp_path, simulation, simulation.lines)
    found = judge(tmp_path)
    assert found.verdict == "passed"
    assert (found.plan.seed, found.seconds, found.faults) == (7, 12.5, {"kill": 3})
    assert len(found.operations) == len(simulation.operations())
    assert {verdict.checker for verdict in found.verdicts} == {
        *("books", "bank order", "effects", "search"),
    }


def test_a_journal_that_was_changed_afterwards_is_found(
    tmp_path: Path, simulation: Simulation
) -> None:
    acknowledged = [op for op in simulation.operations() if op.outcome == "ok"]
    gone = next(op.asked["request_id"] for op in acknowledged if op.f == "deposit")
    save(tmp_path, simulation, [line for line in simulation.lines if line.request_id != gone])
    found = judge(tmp_path)
    assert found.verdict == "failed"
    assert {v.checker: v.counts for v in found.verdicts}["effects"]["lost"] == 1


def test_a_statement_that_lacks_lines_of_the_journal_is_found(
    tmp_path: Path, simulation: Simulation
) -> None:
    save(tmp_path, simulation, simulation.lines)
    kept = read_kept(tmp_path / KEPT)
    kept.statements[1] = []
    write_kept(kept, tmp_path / KEPT)
    found = judge(tmp_path)
    assert found.verdict == "failed"
    assert {v.checker for v in found.verdicts if not v.valid} == {"statements"}


def test_a_run_that_was_cut_short_is_judged_and_says_so(
    tmp_path: Path, simulation: Simulation
) -> None:
    save(tmp_path, simulation, simulation.lines, cut_short=True)
    found = judge(tmp_path)
    assert (found.verdict, found.cut_short) == ("passed", True)


def test_a_system_that_did_not_come_back_is_not_judged(
    tmp_path: Path, simulation: Simulation
) -> None:
    save(tmp_path, simulation, [], unready=("bank.data",))
    found = judge(tmp_path)
    assert (found.verdict, found.verdicts) == ("stuck", [])


def test_a_directory_without_a_run_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--out"):
        judge(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [(RUN, "{}"), (RUN, "x"), (HISTORY, "x\n"), (KEPT, "x\n"), (KEPT, None)]
)
def test_files_that_are_not_those_of_a_run_are_refused(
    tmp_path: Path, simulation: Simulation, name: str, text: str | None
) -> None:
    save(tmp_path, simulation, simulation.lines)
    (tmp_path / name).unlink() if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(InvalidRequest, match="not those of a run"):
        judge(tmp_path)


def test_what_a_checker_stumbles_over_is_not_told_as_wrong_files(
    tmp_path: Path, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(history: object, kept: object) -> list[Verdict]:
        raise KeyError("amount")

    save(tmp_path, simulation, simulation.lines)
    _, needs = CHECKS["bank"]
    monkeypatch.setitem(CHECKS, "bank", (stumble, needs))  # type: ignore[arg-type]
    with pytest.raises(InternalError, match=r"checker stumbled .*KeyError\('amount'\)"):
        judge(tmp_path)


def test_every_workload_has_checkers_and_needs_operations() -> None:
    assert set(CHECKS) == set(WORKLOADS)
    assert all(needs for _, needs in CHECKS.values())

"""Verdicts of runs, curves, plots and pages."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from rmi_torture.checkers import Verdict
from rmi_torture.history import NEMESIS, Event, Operation
from rmi_torture.plan import Plan
from rmi_torture.plots import bar_plot, line_plot
from rmi_torture.report import nemesis_events, print_result, write_html
from rmi_torture.result import Result
from rmi_torture.series import Shade, series_of

SECOND = 10**9


def operation(number: int, f: str = "transfer", outcome: str = "ok", **got: object) -> Operation:
    began = number * SECOND // 10
    return Operation(
        number,
        1,
        f,
        {},
        began,
        began + 5 * 10**6,
        outcome,
        got,
        {},  # type: ignore[arg-type]
    )


def result(tmp_path: Path, operations: list[Operation], *verdicts: Verdict) -> Result:
    path = tmp_path / "history.jsonl"
    events = [
        Event(
            0, SECOND, NEMESIS, "info", "pause", {"target": "a<b", "phase": "begin", "lasts_s": 1}
        ),
        Event(1, 2 * SECOND, NEMESIS, "info", "pause", {"target": "a<b", "phase": "end"}),
        Event(2, 3 * SECOND, NEMESIS, "info", "kill", {"target": "c", "phase": "begin"}),
    ]
    path.write_bytes(b"".join(event.as_json() + b"\n" for event in events))
    needs = frozenset(("transfer", "balances"))
    return Result(Plan(), path, operations, verdicts, needs, {"pause": 1, "kill": 1}, 10.0)


GOOD = [operation(n) for n in range(100)] + [
    operation(100, "balances", balances={"1": 5, "2": 7}, commit=3)
]


def test_a_run_without_errors_passed(tmp_path: Path) -> None:
    assert result(tmp_path, GOOD, Verdict("a", checked=1)).verdict == "passed"


def test_a_run_with_an_error_failed_even_if_it_is_incomplete(tmp_path: Path) -> None:
    bad = Verdict("a", checked=1)
    bad.blame("lost", "one is gone", 7)
    assert bad.first == 7
    assert result(tmp_path, GOOD[:1], bad).verdict == "failed"


@pytest.mark.parametrize(
    ("operations", "verdict"),
    [
        (GOOD[:100], Verdict("a", checked=1)),
        ([*GOOD[:100], operation(100, "balances", "info")], Verdict("a", checked=1)),
        (GOOD, Verdict("a")),
    ],
)
def test_a_run_that_says_nothing_is_invalid(
    tmp_path: Path, operations: list[Operation], verdict: Verdict
) -> None:
    assert result(tmp_path, operations, verdict).verdict == "invalid"


def test_a_run_in_which_no_fault_was_made_is_invalid(tmp_path: Path) -> None:
    found = result(tmp_path, GOOD, Verdict("a", checked=1))
    found.faults = {"kill": 0}
    assert found.verdict == "invalid"
    said = io.StringIO()
    print_result(found, Console(file=said, width=100))
    assert "no fault was made" in said.getvalue()
    found.plan = Plan(faults=())
    assert found.verdict == "passed"


def test_a_run_in_which_one_way_of_asking_never_succeeded_is_invalid(tmp_path: Path) -> None:
    over_http = replace(GOOD[0], way="HTTP")
    failed = replace(GOOD[1], way="Pyro batch", outcome="fail")
    found = result(tmp_path, [*GOOD, over_http, failed], Verdict("a", checked=1))
    assert found.missing == ["anything over Pyro batch"]
    assert found.verdict == "invalid"
    found.operations = [*found.operations, replace(GOOD[2], way="Pyro batch")]
    assert found.verdict == "passed"


def test_a_run_without_a_kind_of_fault_that_was_due_again_and_again_is_invalid(
    tmp_path: Path,
) -> None:
    found = result(tmp_path, GOOD, Verdict("a", checked=1))
    found.plan = Plan(faults=("kill", "pause"), seconds=60.0, seed=7)
    due = Counter(step.kind for step in found.plan.steps())
    assert min(due.values()) > 3
    found.seconds = 60.0
    assert found.verdict == "passed"
    found.faults = {"kill": due["kill"]}
    assert found.unmade == {"pause": due["pause"]}
    assert found.verdict == "invalid"
    said = io.StringIO()
    print_result(found, Console(file=said, width=100))
    assert f"no pause was made, of {due['pause']} that were due" in said.getvalue()
    third_s = [step.at_s for step in found.plan.steps() if step.kind == "pause"][2]
    found.seconds = third_s - 0.1  # it ended before: two may be chance
    assert found.verdict == "passed"


def test_a_system_that_did_not_come_back_is_stuck(tmp_path: Path) -> None:
    found = result(tmp_path, GOOD, Verdict("a", checked=1))
    found.unready = ["bank.data"]
    assert found.verdict == "stuck"


def test_curves_have_what_the_history_has(tmp_path: Path) -> None:
    found = result(tmp_path, [*GOOD, operation(101, outcome="info")])
    series = series_of(found.operations, nemesis_events(found.history))
    width_s = series.throughput[1][0] - series.throughput[0][0]
    assert round(sum(rate for _, rate in series.throughput) * width_s) == 101
    assert series.books == [(pytest.approx(10.005), 12)]
    assert series.outcomes["transfer"] == {"ok": 100, "info": 1}
    assert [(s.kind, round(s.end_s - s.begin_s)) for s in series.shades] == [
        ("pause", 1),
        ("kill", 0),
    ]
    assert series.latency_ms[0][1] == pytest.approx(5.0)


def test_plots_are_well_formed() -> None:
    shades = [Shade("kill", "<&>", 1, 1), Shade("pause", "b", 2, 4)]
    for logarithmic in (False, True):
        svg = line_plot(
            {"a & b": [(0, 1), (5, 300), (9, 20)]}, shades, 10, unit="ms", logarithmic=logarithmic
        )
        root = ElementTree.fromstring(svg)
        assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 1
        assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 2
    ElementTree.fromstring(bar_plot({"<x>": {"ok": 3, "fail": 1}}, ("ok", "fail")))
    assert "Nothing" in line_plot({"empty": []}, [], 10, unit="")


def test_a_page_says_first_whether_the_run_is_valid_and_needs_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    write_html(result(tmp_path, GOOD[:100], Verdict("a", checked=1)), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.index("invalid") < page.index("<svg")
    assert "never succeeded: balances" in page
    assert "a&lt;b" in page
    assert "src=" not in page
    assert "<script" not in page


def test_the_summary_tells_the_verdict_and_the_errors(tmp_path: Path) -> None:
    bad = Verdict("effects", checked=5).expect("lost", "doubled")
    bad.blame("lost", "[r1] is gone")
    out = io.StringIO()
    print_result(result(tmp_path, GOOD, bad), Console(file=out, width=120))
    text = out.getvalue()
    assert text.startswith("failed")
    assert "lost 1" in text
    assert "[r1] is gone" in text


def test_the_summary_of_a_run_that_was_cut_short_says_so(tmp_path: Path) -> None:
    found = result(tmp_path, GOOD, Verdict("effects", checked=5))
    found.cut_short = True
    out = io.StringIO()
    print_result(found, Console(file=out, width=120))
    assert "cut short after 10 of 60 s" in out.getvalue()
    assert found.as_dict()["cut_short"] is True

"""``rmi bench`` as far as it can be tested without measuring; and the simulation beside it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks.queueing import simulate, stations
from benchmarks.rows import Row, alternate
from rmi_launch.bench import bench
from rmi_launch.failures import WRONG_USE

HOPS_US = {"gateway": 40.0, "bank.business": 15.0, "bank.data": 20.0, "store": 12.0}


def test_an_unknown_row_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmi_launch.bench.NEEDED", ())
    result = CliRunner().invoke(bench, ["--only", "nonsense", "--quiet"])
    assert result.exit_code == WRONG_USE
    assert "nonsense" in result.output


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmi_launch.bench.NEEDED", ("no_such_library",))
    result = CliRunner().invoke(bench, [])
    assert "no_such_library" in str(result.exception)


def test_sides_are_measured_in_turn_and_the_ratio_is_the_rounds_median() -> None:
    order: list[str] = []
    figures = {"ours": iter([10.0, 40.0, 90.0]), "theirs": iter([10.0, 20.0, 30.0])}

    def side(name: str) -> float:
        order.append(name)
        return next(figures[name])

    row = Row("key", "what", "against", 2.0)
    alternate(
        3,
        {"ours": lambda: side("ours"), "theirs": lambda: side("theirs")},
        [(row, "ours", "theirs")],
    )
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert row.ratios == [1.0, 2.0, 3.0]
    assert row.ratio == 2.0
    assert row.kept


def test_a_bound_from_above_is_kept_by_less() -> None:
    row = Row("key", "what", "against", 3.0, at_most=True, ours=[4.0], theirs=[1.0])
    assert not row.kept
    row.theirs = [2.0]
    assert row.kept


def test_a_row_that_was_not_measured_is_not_kept() -> None:
    assert not Row("key", "what", "against", 0.0).kept


def test_more_load_and_slower_disks_take_longer() -> None:
    calm = simulate(stations(100, HOPS_US), 2_000)
    busy = simulate(stations(100, HOPS_US), 20_000)
    slow = simulate(stations(5_000, HOPS_US), 2_000)
    assert calm[0] < busy[0] < slow[0]
    assert slow[0] > 5.0

"""``rmi bench`` as far as it can be tested without measuring; and the simulation beside it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.echo_processes import server
from benchmarks.queueing import simulate, stations
from benchmarks.rows import Row, alternate
from rmi_launch.bench import bench
from rmi_launch.failures import FAILED, WRONG_USE, run
from rmi_launch.torture import torture

HOPS_US = {"gateway": 40.0, "bank.business": 15.0, "bank.data": 20.0, "store": 12.0}


def test_an_unknown_row_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmi_launch.bench.NEEDED", ())
    result = CliRunner().invoke(bench, ["--only", "nonsense", "--quiet"])
    assert result.exit_code == WRONG_USE
    assert "nonsense" in result.output


def test_what_is_not_installed_is_a_failure_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rmi_launch.bench.NEEDED", ("no_such_library",))
    assert run(lambda: bench.main(["--quiet"], standalone_mode=False)) == FAILED
    assert "not installed: no_such_library; run 'make bench'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--skip", "start", "--skip", "nonsense"], "no row 'nonsense'"),
        (["--only", "start", "--skip", "start", "--skip", "start"], "no row is left"),
    ],
)
def test_rows_are_looked_up_before_anything_is_measured(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmi_launch.bench.NEEDED", ())
    monkeypatch.setattr("benchmarks.command.measure", _not_measured)
    result = CliRunner().invoke(bench, options)
    assert result.exit_code == WRONG_USE
    assert said in result.output


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmi_launch.bench.NEEDED", ())
    monkeypatch.setattr("benchmarks.command.measure", _not_measured)
    result = CliRunner().invoke(bench, ["--json", str(tmp_path / "missing" / "figures.json")])
    assert isinstance(result.exception, FileNotFoundError)
    assert CliRunner().invoke(bench, ["--json", str(tmp_path)]).exit_code == WRONG_USE
    (tmp_path / "figures.json").touch()
    large = ["--large", str(tmp_path / "figures.json")]
    assert CliRunner().invoke(bench, large).exit_code == WRONG_USE


def _not_measured(run: object) -> None:
    raise AssertionError("it began to measure")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (bench, "--seconds"),
        (torture, "--minutes"),
        (torture, "--every-s"),
        (torture, "--lasting-s"),
    ],
)
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_time_that_is_no_number_is_wrong_use(
    command: click.Command, option: str, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmi_launch.bench._check_installed", _not_begun)
    monkeypatch.setattr("rmi_launch.torture.logging", None)  # what it would begin with
    result = CliRunner().invoke(command, [option, number])
    assert result.exit_code == WRONG_USE, result.exception
    assert f"'{option}'" in result.output


@pytest.fixture
def log_level() -> Iterator[None]:
    """What a run sets for its own process is as before, after the test."""
    logger = logging.getLogger("rmi_runtime")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("log_level")
@pytest.mark.parametrize("options", [["--faults", "nonsense"], ["--bug", "nonsense"]])
def test_a_torture_that_does_not_begin_leaves_no_directory(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = CliRunner().invoke(torture, options)
    assert result.exit_code == WRONG_USE
    assert f"'{options[0]}'" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [["--steps", "--mix"], ["--bug", "all", "--mix"], ["--recovery", "5", "--steps"]]
)
def test_tortures_of_two_sorts_at_once_are_wrong_use(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmi_launch.torture.logging", None)  # what it would begin with
    result = CliRunner().invoke(torture, options)
    assert result.exit_code == WRONG_USE, result.exception
    assert "one after the other" in result.output


def _not_begun() -> None:
    raise AssertionError("it began")


def test_other_programs_are_found_from_everywhere_and_ctrl_c_is_not_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with server("stock") as (uri, peer):
        assert uri.startswith("PYRO:")
        assert os.getsid(peer.process.pid) == peer.process.pid


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

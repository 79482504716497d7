"""What people read: durations, states, tables."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from rmi_launch.commands import rmi
from rmi_launch.plan import ServiceSpec
from rmi_launch.status import ServiceStatus, duration, status_table
from rmi_launch.supervisor import Service, State
from rmi_launch.tables import new_table, show
from rmi_launch.up_view import TerminalView
from rmi_runtime import Settings


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.4, "0s"),
        (59.9, "59s"),
        (60, "1m 00s"),
        (3599, "59m 59s"),
        (3600, "1h 00m"),
        (86_399, "23h 59m"),
        (86_400, "1d 00h"),
        (10 * 86_400 + 7200, "10d 02h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_table_in_a_pipe_is_never_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("name", "number", right=("number",))
    table.add_row("x" * 300, "1")
    show(table)
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "number"]
    assert row.split() == ["x" * 300, "1"]


def test_a_table_on_a_narrow_terminal_is_never_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    table = new_table("name", "state")
    table.add_row("bank.business.1", "draining")
    show(table)
    printed = capsys.readouterr().out
    assert "bank.business.1" in printed
    assert "draining" in printed


@pytest.mark.parametrize("columns", [1, 40, 80, 200])
def test_a_long_value_is_whole_on_a_terminal_also_beside_text_that_is_broken(columns: int) -> None:
    printed = io.StringIO()
    table = new_table("setting", "value", "source", "meaning")
    table.columns[-1].no_wrap = False
    table.add_row("data_dir", "/home/" + "x" * 90, "--data-dir", "directory for the databases")
    show(table, Console(file=printed, force_terminal=True, width=columns))
    for word in ("data_dir", "/home/" + "x" * 90, "--data-dir", "databases"):
        assert word in printed.getvalue()
    assert "…" not in printed.getvalue()


def test_what_rmi_up_shows_on_a_narrow_terminal_is_whole_too(tmp_path: Path) -> None:
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, width=20)
    TerminalView(console, began=0.0).ready(Settings(data_dir=tmp_path), [])
    assert f"http://{Settings().http}/openapi.json" in printed.getvalue()


BRACKETS = "[/]b[red]:warning:"


def test_an_address_in_brackets_is_shown_and_not_taken_for_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(status_table([ServiceStatus("gateway", "[fd00::1]:8080", "ready")]))
    assert "[fd00::1]:8080" in capsys.readouterr().out


def test_a_name_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show(status_table([ServiceStatus("a\x1b[2J\nb", "127.0.0.1:1", "ready")]))
    assert r"a\x1b[2J\nb" in capsys.readouterr().out


def test_config_shows_a_value_as_it_is() -> None:
    result = CliRunner().invoke(rmi, ["config", "--data-dir", BRACKETS, "--http", "[::1]:1"])
    assert result.exit_code == 0
    assert f" {BRACKETS} " in result.output


async def test_what_rmi_up_shows_of_paths_and_addresses_is_no_markup(
    tmp_path: Path,
) -> None:
    printed = io.StringIO()
    view = TerminalView(Console(file=printed, force_terminal=True, width=300), began=0.0)
    settings = Settings(data_dir=tmp_path / BRACKETS, http="[fd00::1]:8080", insecure=True)
    spec = ServiceSpec("msg.logger.1", "module:function")
    service = Service(spec, state=State.READY, address="[fd00::1]:1")
    view.ready(settings, [service])
    service.state, service.why = State.DEAD, f"{BRACKETS}: Is a directory"
    view.changed(service)
    lines = printed.getvalue().splitlines()
    assert any(BRACKETS in line and "data" in line for line in lines)
    assert any("[fd00::1]:1 " in line for line in lines)
    assert f"{BRACKETS}: Is a directory" in lines[-1]

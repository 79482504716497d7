"""The command line: every command explains itself, and every error has its exit code."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rmi_launch import failures, hazelcast
from rmi_launch.cli import raise_file_limit
from rmi_launch.commands import COMMANDS, rmi
from rmi_launch.failures import run
from rmi_launch.supervisor import StartFailed
from rmi_launch.up import AddressInUse, refuse_taken_addresses
from rmi_runtime.errors import CallTimeout, Conflict, Unavailable
from rmi_runtime.settings import FIELDS, Settings, SettingsError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_explains_itself(name: str) -> None:
    command = rmi.get_command(click.Context(rmi), name)
    assert command is not None
    subcommands = command.commands.values() if isinstance(command, click.Group) else ()
    for each in (command, *subcommands):
        assert each.help, each.name
        assert each.help.strip().endswith((".", ":")), each.name
        for option in each.params:
            if isinstance(option, click.Option):
                assert option.help, option.opts


@pytest.mark.parametrize("module", ["rmi_launch", "rmi_launch.cli"])
def test_the_command_can_be_run_as_a_module(module: str, pytestconfig: pytest.Config) -> None:
    line = [sys.executable, "-m", module, "--version"]
    ended = subprocess.run(
        line, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.startswith("rmi, version ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["business", "--id", "x"], "'x' is not a whole number."),
        (["account", "create", "1", "--balance", "1.5"], "'1.5' is not a whole number."),
        (["token", "revoke", "all"], "'all' is not a whole number."),
        (["torture", "--minutes", "long"], "'long' is not a number."),
        (["torture", "--minutes", "nan"], "'nan' is not a finite number."),
    ],
)
def test_a_value_that_is_no_number_is_told_what_was_expected(
    line: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: rmi.main(line, standalone_mode=False)) == failures.WRONG_USE
    assert expected in capsys.readouterr().err


def test_an_unknown_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: rmi.main(["fly"], standalone_mode=False)) == failures.WRONG_USE
    assert "fly" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (SettingsError("bad", field="f", source="s"), 2),
        (Unavailable("bad"), 3),
        (CallTimeout("bad"), 3),
        (failures.NotRunning("bad"), 3),
        (Conflict("bad"), 1),
        (StartFailed("bad"), 1),
        (PermissionError("bad"), 1),
    ],
)
def test_an_error_becomes_one_line_and_an_exit_code(
    error: Exception, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    assert run(command) == exit_code
    assert capsys.readouterr().err == "rmi: bad\n"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "ulimit -u"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "ulimit -v"),
        (MemoryError(), "ulimit -v"),
    ],
)
def test_where_processes_or_memory_are_short_it_says_what_to_do(
    error: Exception, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    assert run(command) == 1
    told = capsys.readouterr().err
    assert advice in told
    assert told.count("\n") == 1


def test_interruption_has_its_exit_code() -> None:
    def command() -> None:
        raise KeyboardInterrupt

    assert run(command) == 130


def test_a_mistake_of_ours_is_not_hidden() -> None:
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(command)


def test_config_shows_every_setting_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("rmi.toml").write_text("loggers = 5")
    monkeypatch.setenv("RMI_MESSAGES", "4")
    result = CliRunner().invoke(rmi, ["config", "--json", "--no-restart", "--ns", "[::1]:1"])
    rows = {row["field"]: row for row in json.loads(result.output)}
    assert list(rows) == list(FIELDS)
    assert rows["loggers"] == {"field": "loggers", "value": 5, "source": "rmi.toml"}
    assert rows["messages"] == {"field": "messages", "value": 4, "source": "RMI_MESSAGES"}
    assert rows["restart"] == {"field": "restart", "value": False, "source": "--no-restart"}
    assert rows["ns"] == {"field": "ns", "value": ["[::1]:1"], "source": "--ns"}
    assert rows["data_dir"] == {"field": "data_dir", "value": "var", "source": "default"}


def test_config_as_a_table_names_every_setting_and_no_key() -> None:
    Path("var").mkdir()
    Path("var/cluster.key").write_text("5ec12e7")
    output = CliRunner().invoke(rmi, ["config"]).output
    assert output.split()[:4] == ["setting", "value", "source", "meaning"]
    assert all(name in output for name in FIELDS)
    assert "5ec12e7" not in output


def test_a_wrong_setting_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["up", "--business", "zero"]
    assert run(lambda: rmi.main(command, standalone_mode=False)) == failures.WRONG_USE
    assert capsys.readouterr().err == "rmi: --business: 'zero' is not a whole number\n"


def test_a_taken_address_is_refused_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUse, match="--http") as caught:
            refuse_taken_addresses(Settings(ns=("127.0.0.1:0",), http=address))
        assert caught.value.fields == {"address": address}
    refuse_taken_addresses(Settings(ns=("127.0.0.1:0",), http="127.0.0.1:0"))


@pytest.mark.parametrize(
    ("address", "number", "said"),
    [
        ("192.0.2.1:0", None, "this machine does not have that address: choose another"),
        ("127.0.0.1:80", errno.EACCES, "needs the administrator's rights: choose another"),
        ("127.0.0.1:80", errno.EADDRINUSE, "stop what listens there, or choose another"),
    ],
)
def test_the_advice_fits_what_is_wrong_with_an_address(
    address: str, number: int | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number is not None:
        monkeypatch.setattr("rmi_launch.up.socket.socket", _refusing(number))
    with pytest.raises(AddressInUse, match=said):
        refuse_taken_addresses(
            Settings(http=address, ns=(address,), insecure=True, host="192.0.2.1")
        )


def _refusing(number: int) -> type[socket.socket]:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(number, "no")

    return Refusing


def test_the_limit_on_open_files_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_member_on_a_port_that_nobody_can_know_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_late() -> None:
        raise Conflict("it went on")

    monkeypatch.setattr(hazelcast, "check_client", too_late)
    member = ["hazelcast", "member", "--listen", "127.0.0.1:0"]
    assert run(lambda: rmi.main(member, standalone_mode=False)) == 2
    assert capsys.readouterr().err.startswith("rmi: --listen: port 0 ")

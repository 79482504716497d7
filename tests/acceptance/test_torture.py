"""A short torture of the real system: it must stand it, and a planted bug must be found."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rmi_torture.belongings import VARIABLE
from rmi_torture.history import operations, read_history
from tests.acceptance.system import BIN
from tests.support import eventually

END_S = 60.0


def torture(out: Path, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [str(BIN / "rmi"), "torture", "--json", "--out", str(out), *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_bank_stands_kills_pauses_and_cuts_of_power_and_network(tmp_path: Path) -> None:
    faults = "kill,pause,nameserver,partition,loss,power,clock"
    code, told = torture(
        tmp_path,
        *("--faults", faults, "--minutes", "0.135", "--seed", "7"),
        *("--every-s", "0.7", "--lasting-s", "1.5"),
    )
    assert told["verdict"] == "passed", told
    assert code == 0
    assert not told["cut_short"]
    assert told["missing"] == []
    assert [checker["valid"] and checker["checked"] > 0 for checker in told["checkers"]] == [
        *(True, True, True, True, True),
    ]
    # Those that kill may have found nobody alive; the others always find something to do.
    assert {"pause", "partition", "loss", "clock"} <= set(told["faults"])
    assert {"kill", "nameserver", "power"} & set(told["faults"])
    assert told["acknowledged"] > 500
    history = operations(read_history(tmp_path / "history.jsonl"))
    assert len(history) == told["operations"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "passed" in page
    assert "<svg" in page
    again, told_again = torture(tmp_path, "--check", str(tmp_path))
    assert (again, told_again) == (code, told)


def test_the_same_seed_gives_the_same_faults_and_the_same_verdict(tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        _, told = torture(
            tmp_path / name, "--faults", "kill,pause", "--minutes", "0.06", "--seed", "7"
        )
        run = json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8"))
        found.append((told["verdict"], run["plan"], run["schedule"]))
    assert found[0] == found[1]
    assert found[0][0] == "passed"
    assert found[0][2]


@pytest.mark.parametrize("bug", ["lost-update", "lease-outlives-owner"])
def test_a_planted_bug_is_caught(tmp_path: Path, bug: str) -> None:
    code, [told] = torture(tmp_path, "--bug", bug)
    assert told["caught"], told
    assert code == 0


def test_an_unknown_fault_is_wrong_use(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(BIN / "rmi"), "torture", "--faults", "earthquake", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "earthquake" in done.stderr


HOUR = ("--minutes", "60", "--faults", "pause,partition", "--every-s", "0.5", "--seed", "7")


@contextmanager
def long_run(out: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A run that would last, an hour if nothing else is said."""
    command = [str(BIN / "rmi"), "torture", "--json", "--out", str(out), *(options or HOUR)]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def belongings(run: subprocess.Popen[str]) -> list[str]:
    """The commands of all processes of a run's system."""
    mark = f"{VARIABLE}={run.pid}-".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


async def until_it_works(out: Path) -> None:
    """Wait until faults have begun and full reads have succeeded."""

    def works() -> bool:
        path = out / "history.jsonl"
        text = path.read_text() if path.exists() else ""
        return '"nemesis"' in text and '"type":"ok","f":"balances"' in text

    await eventually(works, timeout_s=END_S)


async def test_ctrl_c_ends_a_run_early_and_what_was_recorded_is_checked(tmp_path: Path) -> None:
    with long_run(tmp_path) as run:
        await until_it_works(tmp_path)
        assert belongings(run)
        run.send_signal(signal.SIGINT)
        out, said = run.communicate(timeout=END_S)
        assert run.returncode == 130, said
        assert belongings(run) == []
    told = json.loads(out)
    assert (told["verdict"], told["cut_short"]) == ("passed", True), told
    assert told["operations"] == len(operations(read_history(tmp_path / "history.jsonl")))
    assert "cut short" in said
    assert "cut short" in (tmp_path / "report.html").read_text(encoding="utf-8")


async def test_the_end_of_its_terminal_ends_it_at_once_and_leaves_nobody(tmp_path: Path) -> None:
    with long_run(tmp_path) as run:
        await until_it_works(tmp_path)
        assert belongings(run)
        run.send_signal(signal.SIGHUP)
        run.communicate(timeout=END_S)
        assert belongings(run) == []


async def test_a_second_ctrl_c_ends_it_at_once_and_leaves_nobody(tmp_path: Path) -> None:
    with long_run(tmp_path) as run:
        await until_it_works(tmp_path)
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        assert "Ctrl-C again" in run.stderr.readline()
        run.send_signal(signal.SIGINT)
        out, said = run.communicate(timeout=END_S)
        assert run.returncode == 130, said
        assert out == ""
        assert belongings(run) == []
        assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_measuring_the_return_ends_with_all_it_started(
    tmp_path: Path, number: signal.Signals
) -> None:
    with long_run(tmp_path, "--recovery", "2000") as run:
        await eventually(lambda: len(belongings(run)) > 5, timeout_s=END_S)
        run.send_signal(number)
        _, said = run.communicate(timeout=END_S)
        assert run.returncode == 130, said
        assert "Traceback" not in said
        assert belongings(run) == []

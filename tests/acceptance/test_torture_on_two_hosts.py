"""A short torture of the system on two hosts, which are network namespaces here."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rmi_torture.belongings import VARIABLE
from rmi_torture.history import NEMESIS, read_history
from rmi_torture.namespaces import why_no_relay
from tests.acceptance.system import BIN
from tests.acceptance.test_two_hosts import no_namespaces
from tests.support import eventually

END_S = 60.0


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if why := no_namespaces():
        pytest.skip(why)


def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "rmi"), "torture", "--hosts", "2", "--json", "--out", str(out), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_of(run: subprocess.Popen[str]) -> list[str]:
    """Namespaces and processes that a run has."""
    found = [path.name for path in Path("/run/netns").glob(f"rmi-torture-{run.pid}-*")]
    mark = f"{VARIABLE}={run.pid}-".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes():
                found.append(path.name)
        except OSError:
            continue
    return found


def ended(run: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, said = run.communicate(timeout=110)
    finally:
        run.kill()
        run.wait()
    return run.returncode, out, said


@pytest.mark.timeout(180)
def test_the_bank_stands_partitions_of_the_link_and_works_before_and_after(tmp_path: Path) -> None:
    faults = ("--faults", "partition", "--every-s", "3", "--lasting-s", "1.5")
    run = start(tmp_path, *faults, "--minutes", "0.12", "--seed", "7")
    code, out, said = ended(run)
    assert code == 0, said
    told: dict[str, Any] = json.loads(out)
    assert (told["verdict"], told["hosts"], told["missing"]) == ("passed", 2, [])
    assert told["faults"]["partition"] >= 1
    assert "two hosts: network namespaces" in said
    assert left_of(run) == []

    events = list(read_history(tmp_path / "history.jsonl"))
    cuts = [event.time_ns for event in events if event.process == NEMESIS]
    acknowledged = [event.time_ns for event in events if event.type == "ok"]
    assert sum(time_ns < cuts[0] for time_ns in acknowledged) > 100
    assert sum(time_ns > cuts[-1] for time_ns in acknowledged) > 100


@pytest.mark.timeout(180)
def test_the_usual_run_also_delays_and_loses_single_packets_and_the_bank_stands_it(
    tmp_path: Path,
) -> None:
    if why := why_no_relay():
        pytest.skip(why)
    pace = ("--every-s", "1.2", "--lasting-s", "1.5", "--minutes", "0.17", "--seed", "7")
    run = start(tmp_path, *pace)
    code, out, said = ended(run)
    assert code == 0, said
    told: dict[str, Any] = json.loads(out)
    assert (told["verdict"], told["hosts"], told["missing"]) == ("passed", 2, [])
    assert set(told["faults"]) == {"kill", "pause", "nameserver", "partition", "delay", "loss"}
    assert "without the fault" not in said
    assert left_of(run) == []


@pytest.mark.timeout(180)
async def test_a_second_ctrl_c_leaves_neither_processes_nor_namespaces(tmp_path: Path) -> None:
    run = start(tmp_path, "--faults", "partition", "--minutes", "60", "--every-s", "0.5")
    try:
        history = tmp_path / "history.jsonl"
        await eventually(
            lambda: history.exists() and '"nemesis"' in history.read_text(), timeout_s=END_S
        )
        assert left_of(run)
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        assert "Ctrl-C again" in run.stderr.readline()
        run.send_signal(signal.SIGINT)
    finally:
        code, _, said = ended(run)
    assert code == 130, said
    assert left_of(run) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--faults", "clock"), "'clock' is not to be had with --hosts 2"),
        (("--bug", "all"), "--hosts 2 is for plain runs"),
        (("--store", "hazelcast"), "--hosts 2 needs --store sqlite"),
    ],
)
def test_what_there_is_not_with_two_hosts_is_wrong_use(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, said = ended(start(tmp_path, *arguments))
    assert code == 2
    assert words in " ".join(said.replace("│", " ").split())

"""A short torture of the real system: it must stand it, and a planted bug must be found."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rmi_torture.history import operations, read_history
from tests.acceptance.system import BIN


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
        tmp_path, "--faults", faults, "--minutes", "0.2", "--seed", "7", "--every-s", "0.8"
    )
    assert told["verdict"] == "passed", told
    assert code == 0
    assert len(told["faults"]) >= 5
    assert told["acknowledged"] > 500
    history = operations(read_history(tmp_path / "history.jsonl"))
    assert len(history) == told["operations"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "passed" in page
    assert "<svg" in page


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

"""Planted bugs fit the product as it is now, and the product knows nothing of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rmi_torture.planted import BUGS
from rmi_torture.targets import KINDS, WORKLOADS

ROOT = Path(__file__).parents[3]
PRODUCT = ("rmi_runtime", "rmi_bank", "rmi_msg")

PLANT_ALL = """
import os, sys
import rmi_bank, rmi_msg
from rmi_torture.planted import BUGS, plant
for name in BUGS:
    pid = os.fork()
    if not pid:
        try:
            plant(name)
        except BaseException as error:
            print(name, repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    os.waitpid(pid, 0)
"""


def test_every_bug_finds_the_parts_that_it_replaces() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLANT_ALL], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == ""


@pytest.mark.parametrize("name", BUGS)
def test_every_bug_says_what_is_wrong_and_where_it_shows(name: str) -> None:
    bug = BUGS[name]
    assert bug.what.endswith(".")
    assert bug.workload in WORKLOADS
    assert set(bug.faults) <= set(KINDS)
    assert bug.caught_by


def test_there_are_at_least_twelve() -> None:
    assert len(BUGS) >= 12


def test_no_product_module_knows_of_the_harness() -> None:
    for package in PRODUCT:
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "torture" not in text.lower(), path

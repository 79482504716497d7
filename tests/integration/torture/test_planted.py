"""Planted bugs fit the product as it is now, and the product knows nothing of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rmi_torture.planted import BUGS
from rmi_torture.planted import data_bugs as data
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

IN_THE_DATA_OBJECT = [name for name, bug in BUGS.items() if bug.plant.__module__ == data.__name__]

COMMIT = """
import asyncio, inspect, sys
from rmi_bank import SqliteLedger, open_data
from rmi_torture.planted import plant

async def answer(found):
    return await found if inspect.isawaitable(found) else found

async def main():
    plant(sys.argv[1])
    async with open_data(SqliteLedger(sys.argv[2])) as data:
        for account in (1, 2):
            await data.open_account(account, 1000, None, f"open-{account}")
        for number in range(3):
            request_id = f"1:{number}"
            grant = await answer(data.lock(1, [1, 2], [request_id]))
            outcome = [request_id, "transfer 1 2 5", "1"]
            assert await answer(data.commit(grant["lease"], [[1, 2, 5, 0]], [outcome])) > 0
        assert set((await answer(data.balances([1, 2])))["balances"])
    print("answered")

asyncio.run(main())
"""


def test_every_bug_finds_the_parts_that_it_replaces() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLANT_ALL], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == ""


@pytest.mark.parametrize("name", IN_THE_DATA_OBJECT)
def test_a_data_object_with_a_bug_still_answers(name: str, tmp_path: Path) -> None:
    """A bug that breaks what it replaces would be caught by anybody, and prove nothing."""
    done = subprocess.run(
        [sys.executable, "-c", COMMIT, name, str(tmp_path / "bank.sqlite")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr


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

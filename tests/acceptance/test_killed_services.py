"""Services are killed with SIGKILL, one at a time, under load: nothing is lost, all heals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.system import ROOT, System, running_system
from tests.support import sync_eventually

VICTIMS = ["bank.business.2", "bank.data", "msg.facade.1", "Pyro.NameServer"]


def start_load(system: System, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "clients/bank_client.py", "--json", "--seed", str(seed)),
            *("--requests", "800", "--concurrency", "50", "--fake-every", "10"),
            *("--url", system.url, "--data-dir", str(system.data_dir)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def business_lines(system: System) -> int:
    return sum(len(system.log(name)) for name in system.names("bank.business."))


def until_under_way(system: System, load: subprocess.Popen[str], lines: int) -> None:
    def under_way() -> bool:
        if load.poll() is not None:
            pytest.fail(f"the load ended early: {load.communicate()}")
        return business_lines(system) >= lines

    sync_eventually(under_way, timeout_s=60)


@pytest.mark.timeout(300)
def test_killing_services_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with running_system(tmp_path, "--demo") as system:
        for seed, victim in enumerate(VICTIMS):
            lines = business_lines(system)
            load = start_load(system, seed)
            try:
                until_under_way(system, load, lines + 200)
                pid = system.kill_service(victim)
                assert load.poll() is None, "it was killed after the load"
                out, err = load.communicate(timeout=120)
            finally:
                load.kill()
                load.wait()
            report = json.loads(out)
            assert load.returncode == 0, f"{victim}: {report} {err}"
            assert report["books"]["balanced"], victim
            assert report["unanswered"] == 0, victim
            system.wait_restarted(victim, pid)
        posted = system.client("postrequest", "--url", system.url)
        assert posted.returncode == 0, posted.stderr
        assert system.stop() == 0

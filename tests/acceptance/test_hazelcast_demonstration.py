"""The seed's demonstration on a real cluster: loggers and their members go, the messages stay."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.acceptance.system import System, running_system
from tests.hazelcast import free_ports, link_jars

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(240)]

TEN = sorted(f"msg{n}" for n in range(1, 11))
STOP_S = 40.0


def start(data_dir: Path) -> contextlib.AbstractContextManager[System]:
    link_jars(data_dir)
    port = str(free_ports())
    return running_system(
        data_dir, "--store", "hazelcast", "--hazelcast-port", port, "--no-restart"
    )


def get(system: System) -> tuple[int, list[str], list[str]]:
    """Get all messages as the seed did: the loggers' texts, and those that were consumed."""
    answer = httpx.get(system.url, params={"msg": "HELLO"}, timeout=30)
    logged, consumed = answer.json() if answer.status_code == 200 else ([], [])
    return (
        answer.status_code,
        sorted(text for _, text in logged),
        sorted(text for _, text in consumed),
    )


def processes(system: System, number: int) -> list[int]:
    """Return the processes of logger *number*: itself, its member's keeper, its member."""
    path = system.data_dir / "hazelcast" / f"member-{number}.lock"
    note = json.loads(path.read_text(encoding="utf-8"))
    logger = int(system.service(f"msg.logger.{number}")["pid"])
    return [logger, int(note["keeper"]), int(note["member"])]


def wait_ended(pids: list[int]) -> None:
    deadline = time.monotonic() + STOP_S
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"processes {pids} did not end"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1][1] != "Z"
    except OSError:
        return False


def stop_gracefully(system: System, number: int) -> None:
    os.kill(processes(system, number)[0], signal.SIGTERM)


def kill_both(system: System, number: int) -> None:
    """Kill the logger, the member, and what is between them, at the same moment."""
    for pid in processes(system, number):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [stop_gracefully, kill_both])
def test_all_ten_are_read_back_with_three_two_and_one_loggers(
    tmp_path: Path, end: Callable[[System, int], None]
) -> None:
    with start(tmp_path) as system:
        posted = system.client("postrequest", "--url", system.url)
        assert posted.stdout.count("200") == 10
        assert_statistics(system)
        for number in (1, 2):
            assert get(system)[:2] == (200, TEN)
            pids = processes(system, number)
            end(system, number)
            wait_ended(pids)
        status, logged, consumed = get(system)
        assert (status, logged, consumed) == (200, TEN, TEN)
        last = processes(system, 3)
        assert system.stop() == 0
    wait_ended(last)


def assert_statistics(system: System) -> None:
    """The table adds up to ten entries and twenty backups on three members."""
    said = system.rmi("map-stats", "--json")
    assert said.returncode == 0, said.stderr
    statistics = json.loads(said.stdout)
    assert len(statistics["members"]) == 3
    assert (statistics["total"]["entries"], statistics["total"]["backups"]) == (10, 20)
    assert statistics["total"]["puts"] >= 10  # more if a backup was slow, and a put repeated
    assert statistics["cluster"]["safe"] is True
    table = system.rmi("map-stats").stdout.splitlines()
    heading = (
        "Member Entries Gets Puts Removals Sets Entry Memory Backups Backup Memory Events Hits"
    )
    assert " ".join(table[0].split()) == f"{heading} Locks Dirty Entries"
    assert table[4].split()[:2] == ["TOTAL", "10"]
    assert table[5].startswith("safe: 3 members")


def test_map_stats_without_a_cluster_says_so(tmp_path: Path) -> None:
    said = System(tmp_path).rmi("map-stats")
    assert said.returncode == 3
    assert "no Hazelcast member runs" in said.stderr


def test_a_killed_logger_gets_its_member_back_and_nothing_is_lost(tmp_path: Path) -> None:
    link_jars(tmp_path)
    port = str(free_ports())
    with running_system(
        tmp_path, "--store", "hazelcast", "--hazelcast-port", port, "--loggers", "1"
    ) as system:
        assert system.client("postrequest", "--url", system.url).stdout.count("200") == 10
        before = processes(system, 1)
        system.wait_restarted("msg.logger.1", system.kill_service("msg.logger.1"))
        assert processes(system, 1)[1:] == before[1:]
        assert get(system)[:2] == (200, TEN)

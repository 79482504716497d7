"""The seed's demonstration on a real cluster: loggers and their members go, the messages stay."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.system import System, running_system
from tests.hazelcast import link_jars
from tests.ports import free_member_ports
from tests.processes import alive
from tests.support import sync_eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(240)]

TEN = sorted(f"msg{n}" for n in range(1, 11))
STOP_S = 40.0
READERS = 4


def start(data_dir: Path) -> contextlib.AbstractContextManager[System]:
    link_jars(data_dir)
    port = str(free_member_ports(3))
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
    sync_eventually(lambda: not any(alive(pid) for pid in pids), timeout_s=STOP_S)


def stop_gracefully(system: System, number: int) -> None:
    os.kill(processes(system, number)[0], signal.SIGTERM)


def kill_both(system: System, number: int) -> None:
    """Kill the logger, the member, and what is between them, at the same moment."""
    for pid in processes(system, number):
        os.kill(pid, signal.SIGKILL)


class Reader:
    """Reads all messages, over and over, on connections of its own, and notes what came of it."""

    def __init__(self, url: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read) for _ in range(READERS)]

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def wait_read(self, more: int = 3) -> None:
        """Wait until so many more reads have ended."""
        wanted = self.outcomes.total() + more
        sync_eventually(lambda: self.outcomes.total() >= wanted, timeout_s=STOP_S)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                answer = httpx.get(self._url, params={"msg": "HELLO"}, timeout=30)
            except httpx.RemoteProtocolError:
                self.outcomes["cut off"] += 1  # begun, and not ended: nobody takes it for whole
                continue
            except httpx.HTTPError as error:
                self.wrong.append(repr(error))
                return
            if answer.status_code == 200:
                logged, consumed = answer.json()
                if sorted(text for _, text in logged) != TEN or len(consumed) > len(TEN):
                    self.wrong.append(answer.text)
                self.outcomes["all ten"] += 1
            elif answer.headers["content-type"] == "application/problem+json":
                self.outcomes[f"{answer.status_code} {answer.json()['code']}"] += 1
            else:
                self.wrong.append(answer.text)


@pytest.mark.parametrize("end", [stop_gracefully, kill_both])
def test_all_ten_are_read_back_with_three_two_and_one_loggers(
    tmp_path: Path, end: Callable[[System, int], None]
) -> None:
    with start(tmp_path) as system:
        posted = system.client("postrequest", "--url", system.url)
        assert posted.stdout.count("200") == 10
        assert_statistics(system)
        assert_state(system, 3, "safe", "any 2 may be lost at once")
        for number, words in ((1, "member, safe for the next loss"), (2, "not safe")):
            assert get(system)[:2] == (200, TEN)
            pids = processes(system, number)
            reader = Reader(system.url)
            with reader.reading():
                reader.wait_read()
                end(system, number)
                wait_ended(pids)
                reader.wait_read()
            assert not reader.wrong
            assert set(reader.outcomes) <= {"all ten", "503 unavailable", "cut off"}
            assert reader.outcomes["all ten"]
            print(f"\n{end.__name__} {number}, reads meanwhile: {dict(reader.outcomes)}")
            assert get(system)[:2] == (200, TEN)
            assert_state(system, 3 - number, "lost", words)
        status, logged, consumed = get(system)
        assert (status, logged, consumed) == (200, TEN, TEN)
        last = processes(system, 3)
        if end is kill_both:
            end(system, 3)
            assert_state(system, 0, "unreachable", "none of 3 members")
        else:
            assert system.stop() == 0
    wait_ended(last)


def assert_state(system: System, members: int, state: str, words: str) -> None:
    """``/readyz`` and ``rmi status`` come to tell what the cluster is doing."""

    def told() -> tuple[int, str]:
        answer = httpx.get(f"{system.url}/readyz")
        store = answer.json().get("store", {})
        assert (store.get("members"), store.get("state")) == (members, state), store
        return answer.status_code, store["says"]

    status, says = sync_eventually(told, timeout_s=STOP_S, every_s=0.1)
    assert status == (200 if members else 503)
    assert words in says
    if members:
        line = system.rmi("status").stdout.splitlines()[-1]
        assert line.startswith(f"Hazelcast: {members} of 3 members")
        assert words in line
    rows = json.loads(system.rmi("status", "--json").stdout)
    told = [row["store"]["members"] for row in rows if row["store"] is not None]
    assert set(told) == {members}


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
    port = str(free_member_ports(3))
    with running_system(
        tmp_path, "--store", "hazelcast", "--hazelcast-port", port, "--loggers", "1"
    ) as system:
        assert system.client("postrequest", "--url", system.url).stdout.count("200") == 10
        before = processes(system, 1)
        system.wait_restarted("msg.logger.1", system.kill_service("msg.logger.1"))
        assert processes(system, 1)[1:] == before[1:]
        assert get(system)[:2] == (200, TEN)

"""Each service starts by hand, against a stock ``pyro5-ns``, and together they are the system."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import Pyro5.api
import Pyro5.errors
import pytest

from tests.acceptance.system import BIN, ROOT
from tests.ports import free_ports

SERVICES = (
    ("bank.data", "data"),
    ("bank.business.1", "business", "--id", "1"),
    ("msg.logger.1", "logger", "--id", "1"),
    ("msg.facade.1", "facade"),
    ("msg.messages.1", "messages", "--id", "1"),
)
WAIT_S = 30.0


class ByHand:
    """Processes started one by one, as in so many terminals."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.name_server = f"127.0.0.1:{free_ports()}"
        self.http = f"127.0.0.1:{free_ports()}"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        self.processes.append(process)
        return process

    def start_stock_name_server(self) -> None:
        host, _, port = self.name_server.partition(":")
        process = self.start(str(BIN / "pyro5-ns"), "-n", host, "-p", port)
        assert process.stdout is not None
        line = ""
        while "NS running" not in line:
            line = process.stdout.readline()
            assert line, "pyro5-ns did not start"

    def start_service(self, *arguments: str) -> subprocess.Popen[str]:
        process = self.start(
            str(BIN / "rmi"),
            *arguments,
            *("--ns", self.name_server, "--data-dir", str(self.data_dir)),
        )
        assert process.stdout is not None
        line = ""
        while " ready at " not in line:
            line = process.stdout.readline()
            assert line, f"{arguments} did not become ready: exit code {process.wait()}"
        return process

    def stop(self) -> list[int]:
        codes = []
        for process in reversed(self.processes):
            process.send_signal(signal.SIGINT)
            codes.append(process.wait(WAIT_S))
        return codes


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[ByHand]:
    started = ByHand(tmp_path)
    try:
        yield started
    finally:
        for process in started.processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()


def registered(location: str) -> dict[str, str]:
    host, _, port = location.partition(":")
    with Pyro5.api.locate_ns(host, int(port)) as name_server:
        return dict(name_server.list())


def test_services_by_hand_under_a_stock_name_server_are_the_system(by_hand: ByHand) -> None:
    by_hand.start_stock_name_server()
    for name, *arguments in SERVICES:
        by_hand.start_service(*arguments)
        assert name in registered(by_hand.name_server)
    by_hand.start_service("gateway", "--http", by_hand.http)
    rmi = [str(BIN / "rmi"), "--data-dir", str(by_hand.data_dir), "--ns", by_hand.name_server]

    def run(*arguments: str) -> str:
        command = [rmi[0], *arguments, *rmi[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    run("account", "create", "1", "--balance", "1000")
    run("account", "create", "2", "--balance", "1000")
    token = run("token", "create", "--client", "7", "--role", "teller").strip().splitlines()[-1]
    token = token.split()[-1]
    with httpx.Client(base_url=f"http://{by_hand.http}", timeout=WAIT_S) as http:
        moved = http.post(
            "/bank/transfers",
            json={"source": 1, "target": 2, "amount": 300},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert (moved.status_code, moved.json()["balance"]) == (201, 700)
        assert http.post("/", data={"msg": "msg1"}).text == "POST request b'msg=msg1'"
        assert "msg1" in http.get("/", params={"msg": "HELLO"}).text
    leaving = by_hand.processes.pop()  # the gateway, which is in no name server
    leaving.send_signal(signal.SIGINT)
    assert leaving.wait(WAIT_S) == 0
    stock = by_hand.processes[0]
    by_hand.processes.remove(stock)
    try:
        assert by_hand.stop() == [0] * len(SERVICES)
        left = [name for name in registered(by_hand.name_server) if name != "Pyro.NameServer"]
        assert left == [], "a service that stopped in order is still registered"
    finally:
        stock.kill()
        stock.wait()


def test_a_service_waits_for_a_name_server_that_starts_later(by_hand: ByHand) -> None:
    process = by_hand.start(
        str(BIN / "rmi"),
        *("data", "--ns", by_hand.name_server, "--data-dir", str(by_hand.data_dir)),
    )
    deadline = time.monotonic() + WAIT_S
    while not (by_hand.data_dir / "log").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
    by_hand.start_stock_name_server()
    while "bank.data" not in registered(by_hand.name_server):
        assert process.poll() is None
        assert time.monotonic() < deadline

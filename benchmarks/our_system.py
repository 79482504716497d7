"""The system under measurement: ``rmi up`` in a directory of its own, and load from ``wrk``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.filled import TOKEN, fill

READY_S = 90.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SCRIPT = Path(__file__).with_name("transfers.lua")


@dataclass(frozen=True)
class Load:
    """What one run of ``wrk`` measured.

    Attributes:
        per_s: answers per second.
        p50_ms, p99_ms: latencies.
        refused: answers that were no success.
        broken: connections and requests that failed.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    refused: int
    broken: int


class System:
    """A running system of ours.

    Attributes:
        directory: its data directory.
        ready_s: how long it took to be ready.
    """

    def __init__(self, directory: Path, ready_s: float) -> None:
        self.directory = directory
        self.ready_s = ready_s
        running = json.loads((directory / "running.json").read_text())
        self.http: str = running["http"]
        self.name_server: str = running["ns"][0]
        self.pids: dict[str, int] = {s["name"]: s["pid"] for s in running["services"]}

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return f"http://{self.http}"

    @property
    def token(self) -> str:
        """A teller's token."""
        tokens = json.loads((self.directory / "demo-tokens.json").read_text())
        return str(tokens[0]["token"])

    def cpu_s(self) -> dict[str, float]:
        """Return how much processor time each kind of service has used."""
        found: dict[str, float] = {}
        for name, pid in self.pids.items():
            kind = re.sub(r"\.\d+$", "", name)
            found[kind] = found.get(kind, 0.0) + cpu_s(pid)
        return found

    def rss_mb(self) -> dict[str, float]:
        """Return the resident memory of each service."""
        return {name: rss_mb(pid) for name, pid in self.pids.items()}


def cpu_s(pid: int) -> float:
    """Return how much processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


@contextlib.contextmanager
def our_system(
    directory: Path, arguments: Sequence[str] = (), *, accounts: int = 10_000
) -> Iterator[System]:
    """Run the system.

    Args:
        directory: its data directory; a ledger is made there if there is none.
        arguments: more arguments of ``rmi up``.
        accounts: of a ledger that is made.
    """
    if not (directory / "bank.sqlite").exists():
        fill(directory, accounts, accounts)
    began_s = time.monotonic()
    command = [str(Path(sys.executable).with_name("rmi")), "up", "--data-dir", str(directory)]
    command += ["--http", "127.0.0.1:0", "--ns", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = _until_ready(process)
        if said is not None:
            raise RuntimeError(f"the system did not start:\n{said}")
        yield System(directory, time.monotonic() - began_s)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _until_ready(process: subprocess.Popen[str]) -> str | None:
    """Return None when the system is ready, else what it said instead."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        if line.startswith("ready: "):
            return None
        said += line
    return said


def has_wrk() -> bool:
    """Return whether the load generator is installed."""
    return shutil.which("wrk") is not None


def wrk(
    url: str,
    kind: str,
    token: str = "",
    *,
    connections: int = 128,
    seconds: float = 5.0,
    accounts: int = 10_000,
    pause_ms: int = 0,
) -> Load:
    """Load an HTTP server.

    Args:
        url: of the server.
        kind: of requests; see ``transfers.lua``.
        token: of the client, or none.
        connections: how many, each with one request at a time.
        seconds: for how long.
        accounts: numbered from 1, to choose from.
        pause_ms: average pause of a connection between two requests.

    Raises:
        RuntimeError: ``wrk`` failed, or no request succeeded.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    command += ["-s", str(SCRIPT), url, "--", kind, token, str(accounts)]
    command.append(str(pause_ms))
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^RESULT (.*)$", said.stdout, re.MULTILINE)
    if not found:
        raise RuntimeError(f"wrk failed: {said.stdout} {said.stderr}")
    result: dict[str, Any] = json.loads(found[1])
    if result["requests"] and result["requests"] == result["refused"]:
        raise RuntimeError(f"{url} refused everything; it says: {_what_it_says(url, kind, token)}")
    return Load(
        (result["requests"] - result["refused"]) / result["duration_us"] * 1e6,
        result["p50_us"] / 1e3,
        result["p99_us"] / 1e3,
        result["requests"],
        result["refused"],
        result["broken"],
    )


def _what_it_says(url: str, kind: str, token: str) -> str:
    """Return how a server answers one request such as those it refused."""
    if kind == "empty":
        return httpx.get(f"{url}/healthz", trust_env=False).text
    path = "/messages" if kind == "messages" else "/bank/transfers"
    body = {"text": "hello"} if kind == "messages" else {"source": 1, "target": 2, "amount": 1}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "what-is-it"}
    return httpx.post(url + path, json=body, headers=headers, trust_env=False).text


__all__ = ["TOKEN", "Load", "System", "cpu_s", "has_wrk", "our_system", "rss_mb", "wrk"]

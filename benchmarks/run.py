"""Measures the rows: ``rmi bench``, or ``python -m benchmarks.run``."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bank_clients import BankClientProcess
from benchmarks.disk import DiskProbe
from benchmarks.echo_processes import run_clients, server
from benchmarks.filled import TOKEN, fill
from benchmarks.our_system import Load, System, has_wrk, our_system, wrk
from benchmarks.postgres import INSTALL, find_programs, pgbench, postgres, prepare_pgbench
from benchmarks.rows import Row, alternate, new_rows

ACCOUNTS = 10_000
CONNECTIONS = 128
MANY_ACCOUNTS = 1_000_000
MANY_LINES = 10_000_000
DISK_S = 2.0
PEER = Path(__file__).parent / "peers" / "transfers_on_postgres.py"

Say = Callable[[str], None]


@dataclass
class Run:
    """One run of the benchmarks.

    Attributes:
        rounds: how often each side is measured.
        seconds: for how long.
        directory: for everybody's files.
        many: a data directory with the large ledger; made if it is not there.
        say: told what happens.
        rows: what is measured.
        memory: resident memory of each service, by what was measured.
    """

    rounds: int
    seconds: float
    directory: Path
    many: Path
    say: Say
    rows: dict[str, Row] = field(default_factory=new_rows)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)

    def wanted(self, *keys: str) -> bool:
        """Return whether one of these rows is to be measured."""
        return any(key in self.rows for key in keys)

    def missing(self, why: str, *keys: str) -> None:
        """Note that rows cannot be measured."""
        for key in keys:
            if key in self.rows:
                self.rows[key].missing = why

    def pairs(self, *pairs: tuple[str, str, str]) -> list[tuple[Row, str, str]]:
        """Return those pairs whose rows are wanted."""
        return [(self.rows[key], ours, theirs) for key, ours, theirs in pairs if key in self.rows]


def measure(run: Run) -> None:
    """Measure all rows that *run* has."""
    for part, keys in (
        (_runtime, ("pipelined", "sixteen")),
        (_transfers, ("http-peer", "http-pgbench", "batches")),
        (_latency, ("one",)),
        (_messages, ("messages",)),
        (_size, ("size",)),
        (_start, ("start",)),
        (_hazelcast, ("hazelcast",)),
    ):
        if run.wanted(*keys):
            run.say(f"measuring {', '.join(key for key in keys if run.wanted(key))}")
            part(run)


def _runtime(run: Run) -> None:
    with server("stock") as (stock, _), server("ours") as (ours, _):

        def rate(kind: str, uri: str, count: int) -> float:
            found = run_clients(kind, uri, count, run.seconds)
            return sum(one["calls_per_s"] for one in found)

        alternate(
            run.rounds,
            {
                "stock": lambda: rate("stock", stock, 1),
                "pipelined": lambda: rate("pipelined", ours, 1),
                "stock 16": lambda: rate("stock", stock, 16),
                "ours 16": lambda: rate("stock", ours, 16),
            },
            run.pairs(("pipelined", "pipelined", "stock"), ("sixteen", "ours 16", "stock 16")),
        )


def _transfers(run: Run) -> None:
    if not has_wrk():
        run.missing("needs wrk: apt-get install wrk", "http-peer", "http-pgbench")
        return
    if find_programs() is None:
        run.missing(f"needs PostgreSQL: {INSTALL}", "http-peer", "http-pgbench", "batches")
        return
    loads: dict[str, list[Load]] = {"ours": [], "peer": []}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgres(run.directory / "postgres"))
        prepare_pgbench(url)
        peer = stack.enter_context(peer_on_postgres(url)) if run.wanted("http-peer") else ""
        ours = stack.enter_context(our_system(run.directory / "transfers", accounts=ACCOUNTS))
        batches = stack.enter_context(
            BankClientProcess("batches", ours.name_server, TOKEN, str(ACCOUNTS))
        )

        def http(name: str, target: str) -> float:
            load = wrk(target, "transfers", TOKEN, connections=CONNECTIONS, seconds=run.seconds)
            loads[name].append(load)
            return load.per_s

        measured = {
            "ours": lambda: http("ours", ours.url),
            "pgbench": lambda: pgbench(url, run.seconds),
            "batches": lambda: float(batches.run(run.seconds)["per_s"]),
        }
        if peer:
            measured["peer"] = lambda: http("peer", peer)
        for warm_up in measured.values():
            warm_up()
        for found in loads.values():
            found.clear()
        alternate(
            run.rounds,
            measured,
            run.pairs(
                ("http-peer", "ours", "peer"),
                ("http-pgbench", "ours", "pgbench"),
                ("batches", "batches", "pgbench"),
            ),
        )
        run.memory["after the transfers"] = ours.rss_mb()
    if "http-peer" in run.rows:
        for name, found in loads.items():
            run.rows["http-peer"].notes[name] = latencies(found)


def latencies(loads: list[Load]) -> dict[str, float]:
    """Return medians over rounds, and how many answers were no success."""
    return {
        "per_s": statistics.median(load.per_s for load in loads),
        "p50_ms": statistics.median(load.p50_ms for load in loads),
        "p99_ms": statistics.median(load.p99_ms for load in loads),
        "refused": sum(load.refused + load.broken for load in loads),
    }


@contextlib.contextmanager
def peer_on_postgres(url: str) -> Iterator[str]:
    """Run the FastAPI service; yields its address."""
    process = subprocess.Popen(
        [sys.executable, str(PEER), str(ACCOUNTS), TOKEN],
        env={**os.environ, "DATABASE_URL": url},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us, who end it
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().split()
        if not said or said[0] != "ready":
            raise RuntimeError("the FastAPI service did not start; see above")
        yield f"http://127.0.0.1:{said[1]}"
    finally:
        process.terminate()
        process.wait(20)


def _latency(run: Run) -> None:
    with (
        our_system(run.directory / "one", accounts=ACCOUNTS) as ours,
        BankClientProcess("one", ours.name_server, TOKEN, str(ACCOUNTS)) as client,
        server("stock") as (stock, _),
    ):
        row = run.rows["one"]
        alternate(
            run.rounds,
            {
                "one": lambda: float(client.run(run.seconds)["p50_us"]),
                "echo": lambda: float(run_clients("stock", stock, 1, run.seconds)[0]["p50_us"]),
            },
            [(row, "one", "echo")],
        )


def _messages(run: Run) -> None:
    if not has_wrk():
        run.missing("needs wrk: apt-get install wrk", "messages")
        return
    with our_system(run.directory / "messages") as ours:

        def rate(kind: str) -> float:
            return wrk(ours.url, kind, connections=CONNECTIONS, seconds=run.seconds).per_s

        rate("messages")
        alternate(
            run.rounds,
            {"messages": lambda: rate("messages"), "empty": lambda: rate("empty")},
            [(run.rows["messages"], "messages", "empty")],
        )


def _size(run: Run) -> None:
    if not has_wrk():
        run.missing("needs wrk: apt-get install wrk", "size")
        return
    if not (run.many / "bank.sqlite").exists():
        run.say(f"filling a ledger with {MANY_ACCOUNTS:,} accounts and {MANY_LINES:,} lines")
        fill(run.many, MANY_ACCOUNTS, MANY_LINES)
    with (
        our_system(run.directory / "fresh", accounts=ACCOUNTS) as fresh,
        our_system(run.many) as many,
    ):

        def rate(system: System, accounts: int) -> float:
            load = wrk(
                system.url,
                "transfers",
                TOKEN,
                connections=CONNECTIONS,
                seconds=run.seconds,
                accounts=accounts,
            )
            return load.per_s

        measured = {
            "many": lambda: rate(many, MANY_ACCOUNTS),
            "fresh": lambda: rate(fresh, ACCOUNTS),
        }
        for warm_up in measured.values():
            warm_up()
        alternate(run.rounds, measured, [(run.rows["size"], "many", "fresh")])
        run.rows["size"].notes["start_s"] = {"many": many.ready_s, "fresh": fresh.ready_s}
        run.memory["fresh"] = fresh.rss_mb()
        run.memory["a million accounts"] = many.rss_mb()


def _start(run: Run) -> None:
    row = run.rows["start"]
    for number in range(run.rounds):
        began_s = time.monotonic()
        with our_system(run.directory / f"start{number}", ("--demo",), accounts=0) as system:
            row.ours.append(system.ready_s)
            row.theirs.append(3.0)
        row.notes.setdefault("start_and_stop_s", []).append(time.monotonic() - began_s)


def _hazelcast(run: Run) -> None:
    from benchmarks.hazelcast_row import measure_hazelcast

    measure_hazelcast(run)


def machine() -> dict[str, Any]:
    """Return what this ran on."""
    model = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "memory_gb": round(memory_gb, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "disk": disk(),
    }


def disk() -> dict[str, Any]:
    """Return how long a small durable write takes here while nothing of ours runs."""
    with DiskProbe() as probe:
        time.sleep(DISK_S)
    return probe.figures()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a directory for a run, and remove it."""
    directory = Path(tempfile.mkdtemp(prefix="rmi-bench-"))
    directory.chmod(0o755)  # PostgreSQL runs as a user of its own
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)

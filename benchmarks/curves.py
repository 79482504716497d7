"""More than promises: throughput against concurrency and size, and where a transfer's time goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.disk import DiskProbe
from benchmarks.filled import TOKEN, fill
from benchmarks.our_system import Load, System, our_system, wrk
from benchmarks.postgres import find_programs, postgres, prepare_pgbench
from benchmarks.run import ACCOUNTS, CONNECTIONS, Run, peer_on_postgres

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
HALF_CONNECTIONS, HALF_TRIES = 256, 3
SIZES = (10**3, 10**4, 10**5, 10**6)
LINES = (10**4, 10**5, 10**6, 10**7)
HOPS = ("gateway", "bank.business", "bank.data", "store")


def measure_curves(run: Run) -> dict[str, Any]:
    """Measure all curves; needs ``wrk``."""
    figures: dict[str, Any] = {}
    run.say("measuring concurrency, and where the time goes")
    with our_system(run.directory / "curves", accounts=ACCOUNTS) as ours:
        _load(ours, 64, run.seconds)
        points = _by_concurrency(run, ours)
        figures["concurrency"] = {"ours": points, "half": _at_half(run, ours, points)}
        figures["hops"] = {str(n): hops(ours, n, run.seconds) for n in (1, CONNECTIONS)}
    if find_programs() is not None:
        with postgres(run.directory / "postgres-curves") as url:
            prepare_pgbench(url)
            with peer_on_postgres(url) as peer:
                figures["concurrency"]["peer"] = [
                    _point(n, wrk(peer, "transfers", TOKEN, connections=n, seconds=run.seconds))
                    for n in CONCURRENCIES
                ]
    run.say("measuring sizes")
    figures["accounts"] = [_sized(run, size, size) for size in SIZES]
    figures["lines"] = [_sized(run, min(lines, ACCOUNTS), lines) for lines in LINES[:-1]]
    figures["lines"].append(_sized(run, 10**6, LINES[-1], run.many))
    return figures


def _at_half(run: Run, system: System, top: list[dict[str, float]]) -> dict[str, Any]:
    """Measure at half the highest rate of *top*, with many connections that pause in between."""
    half_per_s = max(point["per_s"] for point in top) / 2
    pause_ms = 1.0
    for _ in range(HALF_TRIES):  # each comes closer to it
        load = _load(system, HALF_CONNECTIONS, 1, pause_ms=round(pause_ms))
        more_s = HALF_CONNECTIONS / half_per_s - HALF_CONNECTIONS / load.per_s
        pause_ms = max(1.0, pause_ms + more_s * 1000)
    with DiskProbe() as probe:
        load = _load(system, HALF_CONNECTIONS, 2 * run.seconds, pause_ms=round(pause_ms))
    return {**_point(HALF_CONNECTIONS, load), "disk": probe.figures()}


def _by_concurrency(run: Run, system: System) -> list[dict[str, float]]:
    return [_point(n, _load(system, n, run.seconds)) for n in CONCURRENCIES]


def _load(
    system: System,
    connections: int,
    seconds: float,
    accounts: int = ACCOUNTS,
    pause_ms: int = 0,
) -> Load:
    return wrk(
        system.url,
        "transfers",
        TOKEN,
        connections=connections,
        seconds=seconds,
        accounts=accounts,
        pause_ms=pause_ms,
    )


def _point(connections: int, load: Load) -> dict[str, float]:
    return {
        "connections": connections,
        "per_s": load.per_s,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
    }


def hops(
    system: System, connections: int, seconds: float, accounts: int = ACCOUNTS
) -> dict[str, Any]:
    """Return rate, latency, and the processor time per transfer at each place on its way."""
    data = system.pids["bank.data"]
    before = {**system.cpu_s(), "store": store_cpu_s(data)}
    load = _load(system, connections, seconds, accounts)
    after = {**system.cpu_s(), "store": store_cpu_s(data)}
    done = load.requests - load.refused
    cost_us = {name: (after[name] - before[name]) / done * 1e6 for name in HOPS}
    cost_us["bank.data"] -= cost_us["store"]
    return {**_point(connections, load), "cpu_us": cost_us}


def store_cpu_s(pid: int) -> float:
    """Return the processor time of all threads of a process but its event loop's."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if int(task.name) != pid:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _sized(run: Run, accounts: int, lines: int, directory: Path | None = None) -> dict[str, Any]:
    """Measure a system over a ledger of a size."""
    path = directory or run.directory / f"sized-{accounts}-{lines}"
    if not (path / "bank.sqlite").exists():
        fill(path, accounts, lines)
    with our_system(path) as system:
        _load(system, 64, 1, accounts)
        found = hops(system, CONNECTIONS, run.seconds, accounts)
        return {
            "accounts": accounts,
            "lines": lines,
            "start_s": system.ready_s,
            "per_s": found["per_s"],
            "p99_ms": found["p99_ms"],
            "data_cpu_us": found["cpu_us"]["bank.data"] + found["cpu_us"]["store"],
            "data_rss_mb": system.rss_mb()["bank.data"],
        }

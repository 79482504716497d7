"""How fast the runtime is beside stock Pyro5: ``python -m benchmarks.runtime``.

Sixteen stock clients are sixteen processes with a proxy each, speaking Pyro5's default, serpent; on
a small machine their own work is most of what is measured. Other arrangements are beside them, the
last of which leaves that work out: the bytes of sixteen stock clients' calls, sent by one process
(:mod:`benchmarks.runtime_clients`), each when the reply to the last one has come.

Both sides run in turn, round by round, on the same machine; servers and clients are processes of
their own. Figures are medians over the rounds, ratios the medians of each round's ratio.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import click
import Pyro5
import Pyro5.api
from rich.console import Console
from rich.table import Table

from benchmarks.echo_processes import Peer, run_clients, server
from benchmarks.runtime_clients import run_stock


@dataclass
class Case:
    """One thing to measure.

    Attributes:
        name: what it is.
        client: kind of the client processes.
        server: kind of the server.
        clients: how many processes of them at the same time.
        each: how many in each process, where that is not one.
        serializer: what they speak, if they are stock.
        against: name of the case that it is compared with.
        ratio_min: what the comparison should show at least.
    """

    name: str
    client: str
    server: str
    clients: int = 1
    against: str = ""
    ratio_min: float = 0.0
    each: int = 1
    serializer: str = "serpent"
    rates: list[float] = field(default_factory=list)
    p50s_us: list[float] = field(default_factory=list)
    p99s_us: list[float] = field(default_factory=list)
    server_cpu_us: list[float] = field(default_factory=list)
    client_cpu_us: list[float] = field(default_factory=list)

    def run(self, uri: str, seconds: float) -> list[dict[str, Any]]:
        """Run the clients once; return what each process of them measured."""
        if self.client in ("threads", "recorded"):
            stock = (self.client, uri, self.serializer, self.clients, self.each, seconds)
            return run_stock(*stock)
        return run_clients(self.client, uri, self.clients, seconds)


BASE = "stock client, stock daemon"

# Sixteen stock clients: kind of process, how many, clients in each, serializer, at least.
SIXTEEN = {
    "16 stock clients": ("threads", 16, 1, "serpent", 5.0),
    "16 stock clients, 4 processes": ("threads", 4, 4, "serpent", 0.0),
    "16 stock clients, 2 processes": ("threads", 2, 8, "serpent", 0.0),
    "16 stock clients, 1 process": ("threads", 1, 16, "serpent", 0.0),
    "16 stock clients, msgpack": ("threads", 16, 1, "msgpack", 0.0),
    "16 stock clients' bytes, serpent": ("recorded", 1, 16, "serpent", 5.0),
    "16 stock clients' bytes, msgpack": ("recorded", 1, 16, "msgpack", 0.0),
}


def cases() -> list[Case]:
    """Return what is measured, in order."""
    return [
        Case(BASE, "stock", "stock"),
        Case("stock client, our daemon", "stock", "ours", against=BASE, ratio_min=1.0),
        Case("our SyncProxy, our daemon", "sync", "ours", against=BASE, ratio_min=1.0),
        Case("our Proxy, one call at a time", "async", "ours", against=BASE, ratio_min=1.0),
        Case("our Proxy, pipelined", "pipelined", "ours", against=BASE, ratio_min=10.0),
        Case("our Proxy, pipelined, async def", "pipelined", "ours-async", against=BASE),
        *(case for name in SIXTEEN for case in sixteen(name)),
    ]


def sixteen(name: str) -> list[Case]:
    """Return an arrangement of 16 stock clients, on a stock daemon and on ours."""
    client, processes, each, serializer, ratio_min = SIXTEEN[name]
    how: dict[str, Any] = {"each": each, "serializer": serializer}
    return [
        Case(f"{name}: stock", client, "stock", processes, **how),
        Case(
            f"{name}: ours",
            client,
            "ours",
            processes,
            f"{name}: stock",
            ratio_min,
            **how,
        ),
    ]


def measure(rounds: int, seconds: float, pattern: str) -> list[Case]:
    """Run all cases, round by round."""
    chosen = cases()
    if pattern:
        wanted = {c.name for c in chosen if pattern in c.name}
        wanted |= {c.against for c in chosen if c.name in wanted}
        chosen = [c for c in chosen if c.name in wanted]
    with ExitStack() as stack:
        servers = {
            kind: stack.enter_context(server(kind)) for kind in sorted({c.server for c in chosen})
        }
        for _ in range(rounds):
            for case in chosen:
                uri, process = servers[case.server]
                before_s = process.cpu_s()
                found = case.run(uri, seconds)
                calls = sum(one["calls"] for one in found)
                case.server_cpu_us.append((process.cpu_s() - before_s) / calls * 1e6)
                if "cpu_us" in found[0]:
                    used_us = sum(one["cpu_us"] * one["calls"] for one in found)
                    case.client_cpu_us.append(used_us / calls)
                case.rates.append(sum(one["calls_per_s"] for one in found))
                if "p50_us" in found[0]:
                    case.p50s_us.append(statistics.median(one["p50_us"] for one in found))
                    case.p99s_us.append(statistics.median(one["p99_us"] for one in found))
    return chosen


def memory_per_idle_connection(count: int) -> dict[str, Any]:
    """Hold idle connections on our daemon, and measure its memory and a client's calls."""
    with server("ours") as (uri, _):
        with Pyro5.api.Proxy(uri) as proxy:
            before = proxy.rss_bytes()
            idle = Peer("client", "idle", uri, str(count))
            try:
                assert idle.line() == "ready"
                per_connection = (proxy.rss_bytes() - before) / count
                beside = run_clients("stock", uri, 1, 1.0)[0]
            finally:
                idle.end()
        return {"connections": count, "bytes_per_connection": per_connection, "client": beside}


def ratios(case: Case, chosen: list[Case]) -> list[float]:
    """Return each round's ratio to the case that this one is compared with."""
    base = next((c for c in chosen if c.name == case.against), None)
    return [one / other for one, other in zip(case.rates, base.rates, strict=True)] if base else []


def show(chosen: list[Case], idle: dict[str, Any] | None) -> None:
    """Print the table."""
    table = Table(title="Calls of echo('hello')")
    for heading in (
        "",
        "calls/s",
        "spread",
        "p50 µs",
        "p99 µs",
        "server CPU µs",
        "client CPU µs",
        "ratio",
        "spread",
        "at least",
    ):
        table.add_column(heading, justify="left" if not heading else "right")
    for case in chosen:
        found = ratios(case, chosen)
        table.add_row(
            case.name,
            f"{statistics.median(case.rates):,.0f}",
            f"{min(case.rates):,.0f}–{max(case.rates):,.0f}",
            f"{statistics.median(case.p50s_us):,.0f}" if case.p50s_us else "",
            f"{statistics.median(case.p99s_us):,.0f}" if case.p99s_us else "",
            f"{statistics.median(case.server_cpu_us):,.1f}",
            f"{statistics.median(case.client_cpu_us):,.1f}" if case.client_cpu_us else "",
            f"{statistics.median(found):.2f}" if found else "",
            f"{min(found):.2f}–{max(found):.2f}" if found else "",
            f"{case.ratio_min:g}" if case.ratio_min else "",
        )
    console = Console()
    console = Console(width=max(console.width, 150))  # the table needs that much
    console.print(table)
    if idle:
        console.print(
            f"{idle['connections']:,} idle connections: {idle['bytes_per_connection']:,.0f} bytes "
            f"each in the server; beside them a stock client makes "
            f"{idle['client']['calls_per_s']:,.0f} calls/s, p99 {idle['client']['p99_us']:,.0f} µs"
        )


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds over all cases.")
@click.option("--seconds", default=2.0, show_default=True, help="Time per case and round.")
@click.option("--idle", default=10_000, show_default=True, help="Idle connections; 0 for none.")
@click.option("--only", default="", help="Only cases whose name contains this, and their bases.")
@click.option("--json", "json_path", type=click.Path(), help="Also write the figures there.")
def main(rounds: int, seconds: float, idle: int, only: str, json_path: str | None) -> None:
    """Measure the runtime beside stock Pyro5."""
    chosen = measure(rounds, seconds, only)
    connections = memory_per_idle_connection(idle) if idle else None
    show(chosen, connections)
    if json_path:
        figures = {
            "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
            "cases": [
                {
                    "name": case.name,
                    "calls_per_s": case.rates,
                    "p50_us": case.p50s_us,
                    "p99_us": case.p99s_us,
                    "server_cpu_us_per_call": case.server_cpu_us,
                    "client_cpu_us_per_call": case.client_cpu_us,
                    "against": case.against,
                    "ratios": ratios(case, chosen),
                    "ratio_min": case.ratio_min,
                }
                for case in chosen
            ],
            "idle": connections,
        }
        with open(json_path, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()

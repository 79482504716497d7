"""A simulation of the transfers' way: what latency does under a load, before anybody buys it.

``python -m benchmarks.queueing`` prints a table for `docs/capacity.md`. Each station takes all that
waits for it (up to a batch), works for a fixed time and a time per transfer, and hands the batch
on: that is what the gateway's and the business objects' gathering and the store's group commit do.
Each station has a core of its own; arrivals are random (Poisson). Times are the measured ones, from
``docs/benchmarks.json`` if it is there. Waiting for accounts that others have locked is left out.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.json"
BATCH_MAX = 1024
ARRIVALS = 60_000
SYNCS_US = (100.0, 1_000.0, 5_000.0)
LOADS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass
class Station:
    """One place on the way.

    Attributes:
        name: of it.
        fixed_us: per batch.
        each_us: per transfer.
        servers: batches at once.
    """

    name: str
    fixed_us: float
    each_us: float
    servers: int = 1
    queue: deque[float] = field(default_factory=deque)
    busy: int = 0


def stations(sync_us: float, hops_us: dict[str, float], gateways: int = 1) -> list[Station]:
    """Return the way of a transfer.

    Args:
        sync_us: what the disk takes for one sync.
        hops_us: processor time per transfer at each place.
        gateways: gateway processes.
    """
    half_data_us = hops_us["bank.data"] / 2
    return [
        Station("gateway", 30, hops_us["gateway"], gateways),
        Station("business", 60, hops_us["bank.business"], 6),
        Station("lock", 60, half_data_us),
        Station("commit", 60, half_data_us),
        Station("store", 60 + sync_us, hops_us["store"]),
    ]


def simulate(way: Sequence[Station], per_s: float, seed: int = 1) -> tuple[float, float]:
    """Return the median and the 99th percentile of the time on the way, in milliseconds.

    Args:
        way: the stations, in order, with nobody in them.
        per_s: transfers that arrive per second.
        seed: of the arrivals.
    """
    chance = random.Random(seed)
    events: list[tuple[float, int, int, list[float]]] = []  # when, order, station, who is through
    order = 0
    at_us = 0.0
    took: list[float] = []

    def begin(place: int, now_us: float) -> None:
        nonlocal order
        station = way[place]
        while station.queue and station.busy < station.servers:
            batch = [station.queue.popleft() for _ in range(min(len(station.queue), BATCH_MAX))]
            station.busy += 1
            order += 1
            end_us = now_us + station.fixed_us + station.each_us * len(batch)
            heapq.heappush(events, (end_us, order, place, batch))

    def run_until(now_us: float) -> None:
        while events and events[0][0] <= now_us:
            end_us, _, place, batch = heapq.heappop(events)
            way[place].busy -= 1
            if place + 1 < len(way):
                way[place + 1].queue.extend(batch)
                begin(place + 1, end_us)
            else:
                took.extend(end_us - born_us for born_us in batch)
            begin(place, end_us)

    for _ in range(ARRIVALS):
        at_us += chance.expovariate(per_s / 1e6)
        run_until(at_us)
        way[0].queue.append(at_us)
        begin(0, at_us)
    run_until(float("inf"))
    took = sorted(took[ARRIVALS // 10 :])
    return took[len(took) // 2] / 1e3, took[len(took) * 99 // 100] / 1e3


@click.command()
@click.option("--gateways", default=2, show_default=True, help="Gateway processes.")
def main(gateways: int) -> None:
    """Print latency against load, for disks of three kinds."""
    hops_us = {"gateway": 40.0, "bank.business": 15.0, "bank.data": 20.0, "store": 12.0}
    if FIGURES.exists():
        found = json.loads(FIGURES.read_text())["curves"]["hops"]
        hops_us = list(found.values())[-1]["cpu_us"]
    most = 1e6 / max(hops_us["gateway"] / gateways, hops_us["bank.data"], hops_us["store"])
    print(f"Each station its core; at most {most:,.0f} transfers/s.\n")
    print(
        "| load | transfers /s |",
        " | ".join(f"sync {s / 1e3:g} ms: p50, p99" for s in SYNCS_US),
        "|",
    )
    print("|--:|--:|" + "--:|" * len(SYNCS_US))
    for load in LOADS:
        cells = []
        for sync_us in SYNCS_US:
            p50_ms, p99_ms = simulate(stations(sync_us, hops_us, gateways), load * most)
            cells.append(f"{p50_ms:.1f} ms, {p99_ms:.1f} ms")
        print(f"| {load:.0%} | {load * most:,.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""The promises about speed, each measured beside what it is compared with.

A *row* has two sides. They run in turn, round by round, so that whatever else the machine does
meets both; what counts is the median of the rounds' ratios, and their spread is told.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Row:
    """One promise.

    Attributes:
        key: a short name.
        what: what is measured.
        against: what with.
        bound: what the ratio shall be at least, or at most if *at_most*.
        at_most: less is better.
        unit: of the two sides' figures.
        ours, theirs: one figure per round.
        notes: more that was measured.
        missing: why it could not be measured, and what to do.
    """

    key: str
    what: str
    against: str
    bound: float
    at_most: bool = False
    unit: str = "/s"
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    missing: str = ""

    @property
    def ratios(self) -> list[float]:
        """Each round's ratio."""
        return [one / other for one, other in zip(self.ours, self.theirs, strict=True) if other]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(self.ratios) if self.ratios else 0.0

    @property
    def kept(self) -> bool:
        """Whether the promise is kept."""
        if not self.ratios:
            return False
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "key": self.key,
            "what": self.what,
            "against": self.against,
            "bound": self.bound,
            "at_most": self.at_most,
            "unit": self.unit,
            "ours": self.ours,
            "theirs": self.theirs,
            "ratios": self.ratios,
            "ratio": self.ratio if self.ratios else None,
            "kept": self.kept if self.ratios else None,
            "notes": self.notes,
            "missing": self.missing,
        }


def new_rows() -> dict[str, Row]:
    """Return all rows, by key, in order."""
    rows = [
        Row("pipelined", "pipelined calls, one connection", "stock Pyro5 client and daemon", 10),
        Row("sixteen", "16 stock Pyro5 clients, our daemon", "the same, stock daemon", 5),
        Row(
            "http-peer",
            "HTTP transfers, durable, 128 connections, operation log on",
            "FastAPI + asyncpg + PostgreSQL, one process",
            10,
        ),
        Row("http-pgbench", "the same", "pgbench TPC-B-like, 8 clients, prepared", 3),
        Row("batches", "batch transfers over Pyro, durable", "the same pgbench", 15),
        Row(
            "one",
            "one client, one transfer at a time, p50",
            "one stock Pyro5 echo call, p50",
            3,
            at_most=True,
            unit=" µs",
        ),
        Row("messages", "HTTP messages, SQLite store", "the same gateway's empty route", 0.4),
        Row(
            "hazelcast",
            "HTTP messages, Hazelcast store",
            "a bare asyncio Hazelcast client's set rate, same members",
            0.5,
        ),
        Row(
            "size",
            "HTTP transfers with a million accounts and ten million journal lines",
            "the same on a fresh ledger",
            0.9,
        ),
        Row("start", "rmi up, environment present, to ready", "3 s", 1, at_most=True, unit=" s"),
    ]
    return {row.key: row for row in rows}


Side = Callable[[], float]


def alternate(
    rounds: int,
    measured: Mapping[str, Side],
    pairs: Iterable[tuple[Row, str, str]],
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Measure several things in turn, and note each pair of them in its row.

    Args:
        rounds: how often.
        measured: what to measure, by name.
        pairs: row, name of our side, name of the other.
        progress: called after each measurement.
    """
    pairs = list(pairs)
    for number in range(rounds):
        names = list(measured)
        if number % 2:  # nobody always runs after the same one
            names.reverse()
        found = {}
        for name in names:
            found[name] = measured[name]()
            progress()
        for row, ours, theirs in pairs:
            row.ours.append(found[ours])
            row.theirs.append(found[theirs])

"""What a report draws: curves and bars made of a history. Pure code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rmi_torture.history import INFO, NEMESIS, OK, OPEN_NS, Event, Operation

BINS = 240
POINTS_MAX = 600


@dataclass(frozen=True)
class Shade:
    """A time during which a fault lasted.

    Attributes:
        kind: which one.
        target: where.
        begin_s: from when, in seconds after the start.
        end_s: until when; the same for those that are over at once.
    """

    kind: str
    target: str
    begin_s: float
    end_s: float


@dataclass
class Series:
    """The curves of one run, by seconds after its start.

    Attributes:
        seconds: how long it was.
        throughput: operations that ended well, a second.
        latency_ms: (median, 99th percentile, worst) of those, or None where there were none.
        outcomes: operation to how many ended ok, fail, info.
        errors: code to how many.
        books: (second, minor units on all customers' accounts) of each full read.
        shades: the faults.
    """

    seconds: float
    throughput: list[tuple[float, float]] = field(default_factory=list)
    latency_ms: list[tuple[float, float, float, float]] = field(default_factory=list)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    books: list[tuple[float, float]] = field(default_factory=list)
    shades: list[Shade] = field(default_factory=list)


def series_of(operations: Sequence[Operation], nemesis: Iterable[Event]) -> Series:
    """Make the curves.

    Args:
        operations: the history, paired.
        nemesis: the events of the nemesis.
    """
    if not operations:
        return Series(0.0)
    start_ns = operations[0].began_ns
    end_ns = max(op.began_ns if op.ended_ns == OPEN_NS else op.ended_ns for op in operations)
    seconds = max(1e-3, (end_ns - start_ns) / 1e9)
    made = Series(seconds)
    bins: list[list[float]] = [[] for _ in range(BINS)]
    for operation in operations:
        made.outcomes.setdefault(operation.f, Counter())[operation.outcome] += 1
        if operation.outcome != OK:
            made.errors[operation.code or "no answer"] += 1
            continue
        at_s = (operation.ended_ns - start_ns) / 1e9
        place = min(BINS - 1, int(at_s / seconds * BINS))
        bins[place].append((operation.ended_ns - operation.began_ns) / 1e6)
        if operation.f == "balances":
            held = sum(int(b) for b in operation.got["balances"].values())
            made.books.append((at_s, held))
    width_s = seconds / BINS
    for place, latencies in enumerate(bins):
        at_s = (place + 0.5) * width_s
        made.throughput.append((at_s, len(latencies) / width_s))
        if latencies:
            latencies.sort()
            made.latency_ms.append(
                (at_s, _part(latencies, 0.5), _part(latencies, 0.99), latencies[-1])
            )
    made.books = made.books[:: max(1, len(made.books) // POINTS_MAX)]
    made.shades = _shades(nemesis, start_ns, seconds)
    return made


def _part(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _shades(events: Iterable[Event], start_ns: int, seconds: float) -> list[Shade]:
    """Pair the beginnings and ends of faults."""
    found: list[Shade] = []
    begun: dict[tuple[str, str], float] = {}
    for event in events:
        if event.process != NEMESIS or event.type != INFO:
            continue
        at_s = (event.time_ns - start_ns) / 1e9
        target = str(event.value.get("target", ""))
        if event.value.get("phase") == "end":
            since_s = begun.pop((event.f, target), at_s)
            found.append(Shade(event.f, target, since_s, at_s))
        elif event.value.get("lasts_s"):
            begun[event.f, target] = at_s
        else:
            found.append(Shade(event.f, target, at_s, at_s))
    found += [Shade(kind, target, at, seconds) for (kind, target), at in begun.items()]
    return sorted(found, key=lambda shade: shade.begin_s)

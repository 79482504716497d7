"""Writes ``docs/benchmarks.md`` and its plots: ``rmi bench --report``."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import bench, shown
from benchmarks.curves import HOPS, measure_curves
from benchmarks.disk import in_words
from benchmarks.run import Run, scratch

FIGURES = "benchmarks.json"
_HOP_WORDS = {
    "gateway": "gateway: HTTP, token, gathering",
    "bank.business": "business object: rules, lock, commit",
    "bank.data": "data object: locks, checks, operation log",
    "store": "store: SQLite, write-ahead log, sync",
}


def write(docs: Path, **options: Any) -> None:
    """Measure everything, and write the page and its plots.

    Args:
        docs: directory of the page.
        options: of :func:`benchmarks.command.bench`.
    """
    figures_path = options["json_path"] or docs / FIGURES
    bench(**{**options, "json_path": figures_path})
    figures = json.loads(figures_path.read_text())
    large = options["large"] or Path(tempfile.gettempdir()) / "rmi-bench-large"
    with scratch() as directory:
        run = Run(1, options["seconds"], directory, large, print)
        figures["curves"] = measure_curves(run)
    figures_path.write_text(json.dumps(figures, indent=1) + "\n")
    write_page(docs, figures)


def write_page(docs: Path, figures: dict[str, Any]) -> None:
    """Write the page from figures that were measured before."""
    curves = figures.get("curves")
    lines = [*_head(figures), *_rows(figures["rows"]), *_machine(figures)]
    if curves:
        _plot_concurrency(docs / "benchmarks-concurrency.png", curves["concurrency"])
        _plot_sizes(docs / "benchmarks-size.png", curves)
        _plot_hops(docs / "benchmarks-hops.png", curves["hops"])
        lines += [*_concurrency(curves["concurrency"]), *_sizes(curves), *_hops(curves["hops"])]
    lines += _memory(figures["memory_mb"])
    (docs / "benchmarks.md").write_text("\n".join(lines) + "\n")


def _head(figures: dict[str, Any]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Written by `rmi bench --report` (`make bench ARGS=--report`); do not edit. Every figure"
    yield "is measured with the operation log on, every answer on disk, and the default settings."
    yield ""
    yield "Both sides of a row run in turn on the same machine,"
    yield f"{figures['rounds']} rounds of {figures['seconds']:g} s each. Figures are medians,"
    yield "ratios the median of each round's ratio, beside the smallest and the largest. A ratio"
    yield "says what an absolute figure cannot: it holds on another machine too, more or less."
    yield ""


def _rows(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| row | what | ours | against | theirs | ratio | spread | promised | |"
    yield "|---|---|--:|---|--:|--:|--:|--:|---|"
    for row in rows:
        promised = f"{'≤' if row['at_most'] else '≥'} {row['bound']:g}"
        start = f"| `{row['key']}` | {row['what']} |"
        if not row["ratios"]:
            yield f"{start} | {row['against']} | | | | {promised} | {row['missing']} |"
            continue
        ours, theirs = (
            shown(statistics.median(row[side]), row["unit"]) for side in ("ours", "theirs")
        )
        spread = f"{min(row['ratios']):.2f}–{max(row['ratios']):.2f}"
        kept = "kept" if row["kept"] else "**missed**"
        yield (
            f"{start} {ours} | {row['against']} | {theirs} | {row['ratio']:.2f} | {spread} | "
            f"{promised} | {kept} |"
        )
    yield ""
    for row in rows:
        for name, note in row["notes"].items():
            if isinstance(note, dict):
                words = ", ".join(f"{key} {value:,.2f}" for key, value in note.items())
                yield f"- `{row['key']}`, {name}: {words}"
    yield ""


def _machine(figures: dict[str, Any]) -> Iterator[str]:
    about = figures["machine"]
    yield "## The machine"
    yield ""
    yield f"- {about['cores']} cores, {about['processor']}, {about['memory_gb']} GB"
    yield f"- {about['system']}, Python {about['python']}"
    yield f"- a small write with `fdatasync` takes {in_words(about['disk'])}"
    yield f"- measured {figures['at']}"
    yield ""
    if about["load_before"] > about["cores"] / 4:
        yield (
            f"**Other programs were at work on it** (load average {about['load_before']:.1f} on "
            f"{about['cores']} cores before the first figure): absolute figures are too low, the "
            "ratios favour whoever has more processes, and latencies and starts are mostly waiting "
            "for a turn. Measure again on an idle machine before you rely on them."
        )
        yield ""


def _concurrency(found: dict[str, Any]) -> Iterator[str]:
    yield "## Throughput and latency against concurrency"
    yield ""
    yield "HTTP transfers; each connection has one request under way."
    yield ""
    yield "![throughput and latency against concurrency](benchmarks-concurrency.png)"
    yield ""
    peer = {point["connections"]: point for point in found.get("peer", [])}
    yield "| connections | ours /s | p50 ms | p99 ms | FastAPI + PostgreSQL /s | p50 ms | p99 ms |"
    yield "|--:|--:|--:|--:|--:|--:|--:|"
    for point in found["ours"]:
        other = peer.get(point["connections"])
        cells = [_cells(point), _cells(other) if other else " | | "]
        yield f"| {point['connections']} | {' | '.join(cells)} |"
    top = max(point["per_s"] for point in found["ours"])
    half = found["half"]
    busy = next(point for point in found["ours"] if point["per_s"] >= top / 2)
    yield ""
    yield (
        f"Half the top load is passed with {busy['connections']} connections without pauses: "
        f"{busy['per_s']:,.0f}/s at p99 {busy['p99_ms']:.1f} ms."
    )
    yield (
        f"At half the top load ({half['per_s']:,.0f}/s of {top:,.0f}/s, from {half['connections']} "
        "connections that pause between their requests, as users do): "
        f"p50 {half['p50_ms']:.1f} ms, **p99 {half['p99_ms']:.1f} ms** (promised: under 10). "
        f"Meanwhile a small write with `fdatasync` took {in_words(half['disk'])}."
    )
    yield ""


def _cells(point: dict[str, float]) -> str:
    return f"{point['per_s']:,.0f} | {point['p50_ms']:.2f} | {point['p99_ms']:.2f}"


def _sizes(curves: dict[str, Any]) -> Iterator[str]:
    yield "## Cost against the size of the ledger"
    yield ""
    yield "![cost against size](benchmarks-size.png)"
    yield ""
    yield "| accounts | journal lines | transfers /s | p99 ms | data object CPU | memory | start |"
    yield "|--:|--:|--:|--:|--:|--:|--:|"
    for point in (*curves["accounts"], *curves["lines"]):
        yield (
            f"| {point['accounts']:,} | {point['lines']:,} | {point['per_s']:,.0f} | "
            f"{point['p99_ms']:.1f} | {point['data_cpu_us']:.0f} µs | "
            f"{point['data_rss_mb']:,.0f} MB | {point['start_s']:.2f} s |"
        )
    yield ""


def _hops(hops: dict[str, Any]) -> Iterator[str]:
    yield "## Where a transfer's time goes"
    yield ""
    yield "Processor time per transfer at each place on its way; with one connection nothing shares"
    yield "the cost of a hop, with many a batch does."
    yield ""
    yield "![processor time hop by hop](benchmarks-hops.png)"
    yield ""
    yield f"| | {' | '.join(f'{n} connections' if n != '1' else '1 connection' for n in hops)} |"
    yield f"|---|{'--:|' * len(hops)}"
    for hop in HOPS:
        cells = (f"{found['cpu_us'][hop]:.0f} µs" for found in hops.values())
        yield f"| {_HOP_WORDS[hop]} | {' | '.join(cells)} |"
    sums = (f"{sum(found['cpu_us'].values()):.0f} µs" for found in hops.values())
    yield f"| all | {' | '.join(sums)} |"
    yield ""


def _memory(memory: dict[str, dict[str, float]]) -> Iterator[str]:
    if not memory:
        return
    yield "## Memory"
    yield ""
    yield "Resident megabytes; what the processes share is counted in each of them."
    yield ""
    names = sorted({name for found in memory.values() for name in found})
    yield f"| service | {' | '.join(memory)} |"
    yield f"|---|{'--:|' * len(memory)}"
    for name in names:
        cells = (f"{found[name]:,.0f}" if name in found else "" for found in memory.values())
        yield f"| `{name}` | {' | '.join(cells)} |"


def _plot_concurrency(path: Path, found: dict[str, Any]) -> None:
    figure, (rate, latency) = _two_plots()
    for name, label in (("ours", "this project"), ("peer", "FastAPI + asyncpg + PostgreSQL")):
        points = found.get(name, [])
        at = [point["connections"] for point in points]
        rate.plot(at, [point["per_s"] for point in points], "o-", label=label)
        (line,) = latency.plot(
            at, [point["p99_ms"] for point in points], "o-", label=f"{label}, p99"
        )
        latency.plot(
            at,
            [point["p50_ms"] for point in points],
            "o:",
            color=line.get_color(),
            label=f"{label}, p50",
        )
    rate.set(xscale="log", xlabel="connections", ylabel="durable transfers per second")
    latency.set(xscale="log", yscale="log", xlabel="connections", ylabel="milliseconds")
    rate.legend()
    # Below the plot: no corner of it is free of points.
    latency.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    _save(figure, path, legend=False)


def _plot_sizes(path: Path, curves: dict[str, Any]) -> None:
    figure, (rate, cost) = _two_plots()
    for name, label in (("accounts", "accounts"), ("lines", "journal lines")):
        points = curves[name]
        at = [point[name] for point in points]
        rate.plot(at, [point["per_s"] for point in points], "o-", label=label)
        cost.plot(at, [point["data_cpu_us"] for point in points], "o-", label=label)
    rate.set(xscale="log", xlabel="how many", ylabel="durable transfers per second", ylim=(0, None))
    cost.set(xscale="log", xlabel="how many", ylabel="µs of CPU at the data object", ylim=(0, None))
    _save(figure, path)


def _plot_hops(path: Path, hops: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 2.6))
    for place, found in enumerate(hops.values()):
        total = sum(found["cpu_us"].values())
        start = 0.0
        for number, hop in enumerate(HOPS):
            width = found["cpu_us"][hop] / total * 100
            axes.barh(
                place, width, left=start, color=f"C{number}", label=hop if not place else None
            )
            axes.text(
                start + width / 2, place, f"{found['cpu_us'][hop]:.0f}", ha="center", va="center"
            )
            start += width
        axes.text(101, place, f"{total:.0f} µs", va="center")
    axes.set_yticks(range(len(hops)), [f"{n} connection{'s' * (int(n) != 1)}" for n in hops])
    axes.set(xlabel="% of the processor time of one transfer (numbers: µs)", xlim=(0, 112))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.3), ncols=4)
    _save(figure, path, legend=False)


def _two_plots() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(1, 2, figsize=(11, 4.2))


def _save(figure: Any, path: Path, *, legend: bool = True) -> None:
    for axes in figure.axes:
        axes.grid(visible=True, alpha=0.3)
        if legend:
            axes.legend()
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})

"""Reports that people read: a summary for the terminal, and one HTML page with its plots.

Validity comes first: whether the run says anything at all, and what the checkers found. Speed comes
after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rmi_torture.campaign import Catch
from rmi_torture.checkers import Verdict
from rmi_torture.history import NEMESIS, Event, read_history
from rmi_torture.mix import Passed
from rmi_torture.plan import Plan
from rmi_torture.plots import bar_plot, line_plot
from rmi_torture.result import Result
from rmi_torture.series import Series, series_of
from rmi_torture.targets import KINDS, LINK_KINDS, NETWORK

MEANINGS = {
    "passed": "No checker found an error, and each kind of operation succeeded.",
    "failed": "A checker found an error: see below.",
    "invalid": "The run says nothing: some kind of operation never succeeded, or a checker had "
    "nothing to look at.",
    "stuck": "The system did not come back after the faults, so nothing could be judged.",
}
_OUTCOMES = ("ok", "fail", "info")

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; color: #222;
  padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; } td, th { padding: .25em .8em .25em 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid #eee; }
svg { width: 100%; height: auto; font-size: 11px; }
.passed { color: #1f7a4d; } .failed, .stuck { color: #b3261e; } .invalid { color: #9a6700; }
code { background: #f4f4f4; padding: 0 .2em; }
"""


def nemesis_events(history: Path) -> list[Event]:
    """Return what the nemesis did, from a history file."""
    return [event for event in read_history(history) if event.process == NEMESIS]


def print_result(result: Result, console: Console) -> None:
    """Print a run's summary."""
    colour = "green" if result.verdict == "passed" else "red"
    console.print(f"[bold {colour}]{result.verdict}[/]: {MEANINGS[result.verdict]}")
    for line in _particulars(result):
        console.print(line, highlight=False)
    table = Table("checker", "looked at", "errors", box=None, pad_edge=False)
    for verdict in result.verdicts:
        table.add_row(verdict.checker, f"{verdict.checked:,}", _errors(verdict))
    if result.verdicts:
        console.print(table)
    for verdict in result.verdicts:
        for example in verdict.examples[:5]:
            console.print(f"  {verdict.checker}: {example}", markup=False, highlight=False)


def _particulars(result: Result) -> list[str]:
    plan = result.plan
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(result.faults.items()))
    lines = [
        f"workload {plan.workload}, seed {plan.seed}, {result.seconds:.0f} s",
        f"operations {len(result.operations):,}, acknowledged {result.acknowledged:,}",
        f"faults {sum(result.faults.values())}: {faults or 'none'}",
        *_network(plan),
    ]
    if result.cut_short:
        lines.insert(
            0,
            f"cut short after {result.seconds:.0f} of {plan.seconds:.0f} s: "
            "the verdict is on the part that ran",
        )
    if plan.bug:
        lines.insert(0, f"planted bug: {plan.bug}")
    if result.missing:
        lines.append(f"never succeeded: {', '.join(result.missing)}")
    if result.faultless:
        lines.append("no fault was made: the run says nothing of what was to be withstood")
    lines += [
        f"no {kind} was made, of {count} that were due: the run says nothing of that"
        for kind, count in result.unmade.items()
    ]
    lines += [f"did not come back: {what}" for what in result.unready]
    return lines


def _network(plan: Plan) -> list[str]:
    """Say by which means faults of the network were made, if there were any."""
    if plan.hosts == 2:
        return ["two hosts: network namespaces; faults of the network are those of their link"]
    if NETWORK & set(plan.faults):
        return ["one host: faults of the network are those of a TCP proxy"]
    return []


def _errors(verdict: Verdict) -> str:
    found = [f"{kind} {count}" for kind, count in verdict.counts.items() if count]
    return ", ".join(found) or f"none of: {', '.join(verdict.counts)}"


def print_catches(catches: Sequence[Catch], console: Console) -> None:
    """Print the table of planted bugs."""
    table = Table(box=None, pad_edge=False)
    table.add_column("planted bug", no_wrap=True)
    for name in ("workload", "faults", "caught by", "after"):
        table.add_column(name)
    for name in ("seed", "tries", "seconds"):
        table.add_column(name, no_wrap=True)
    for catch in catches:
        faults = ", ".join(catch.bug.faults) or "none"
        table.add_row(
            catch.bug.name,
            catch.bug.workload,
            faults,
            *_how_caught(catch),
            str(catch.seed),
            str(catch.tries),
            f"{catch.seconds:.0f}",
        )
    console.print(table)
    caught = sum(catch.caught for catch in catches)
    skipped = sum(bool(catch.skipped) for catch in catches)
    told = f"{caught} of {len(catches)} planted bugs caught"
    told += f", {skipped} skipped" if skipped else ""
    console.print(f"{told}, in {sum(catch.seconds for catch in catches):.0f} s", highlight=False)


def _how_caught(catch: Catch) -> tuple[str, str]:
    """Return who caught a bug, and after how many operations."""
    if catch.skipped:
        return f"skipped: {catch.skipped}", ""
    by = "; ".join(catch.by)
    if not catch.caught:
        return f"[red]MISSED[/] ({catch.verdict}) {by}", f"{catch.of:,} operations"
    after = "" if catch.after is None else f"{catch.after:,} of {catch.of:,} operations"
    return by, after


def print_phases(parts: Sequence[Passed], console: Console) -> None:
    """Print the table of a mix."""
    table = Table("part", "verdict", "acknowledged", "faults", "seconds", box=None, pad_edge=False)
    for part in parts:
        colour = "green" if part.verdict == "passed" else "red"
        table.add_row(
            part.phase.name,
            f"[{colour}]{part.verdict}[/]",
            f"{part.acknowledged:,}",
            str(part.faults),
            f"{part.seconds:.0f}",
        )
    console.print(table)


def write_html(result: Result, path: Path) -> None:
    """Write a run's page: one file, nothing from elsewhere."""
    series = series_of(result.operations, nemesis_events(result.history))
    title = f"{result.plan.workload}, seed {result.plan.seed}: {result.verdict}"
    parts = [
        f"<h1>{escape(result.plan.workload)}: "
        f'<span class="{result.verdict}">{result.verdict}</span></h1>',
        f"<p>{escape(MEANINGS[result.verdict])}</p>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in _particulars(result)) + "</ul>",
        _checkers_html(result.verdicts),
        _plots_html(result, series),
        _errors_html(series),
        _faults_html(result, series),
    ]
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n",
        encoding="utf-8",
    )


def _checkers_html(verdicts: Sequence[Verdict]) -> str:
    rows = "".join(
        f"<tr><td>{escape(verdict.checker)}</td>"
        f'<td class="{"passed" if verdict.valid else "failed"}">'
        f"{'no error' if verdict.valid else 'errors'}</td>"
        f"<td>{verdict.checked:,}</td><td>{escape(_errors(verdict))}</td></tr>"
        for verdict in verdicts
    )
    examples = "".join(
        f"<li>{escape(example)}</li>" for verdict in verdicts for example in verdict.examples
    )
    head = "<tr><th>checker</th><th></th><th>looked at</th><th>errors</th></tr>"
    return f"<h2>Checkers</h2><table>{head}{rows}</table><ul>{examples}</ul>"


def _plots_html(result: Result, series: Series) -> str:
    shades, seconds = series.shades, series.seconds
    latency = {
        name: [(point[0], point[place]) for point in series.latency_ms]
        for place, name in ((1, "median"), (2, "99 of 100"), (3, "worst"))
    }
    outcomes = {f: dict(counts) for f, counts in sorted(series.outcomes.items())}
    parts = [
        "<h2>Operations that ended well, a second</h2>",
        line_plot({"throughput": series.throughput}, shades, seconds, unit="operations/s"),
        "<h2>How long they took</h2>",
        line_plot(latency, shades, seconds, unit="ms", logarithmic=True),
        "<h2>How operations ended</h2>",
        "<p>ok: it happened; fail: it certainly did not; info: nobody knew.</p>",
        bar_plot(outcomes, _OUTCOMES),
    ]
    if series.books:
        parts += [
            "<h2>The books</h2>",
            "<p>What all customers held together, at each full read.</p>",
            line_plot(
                {"customers": series.books}, shades, seconds, unit="minor units", from_zero=False
            ),
        ]
    return "".join(parts)


def _errors_html(series: Series) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(code)}</code></td><td>{count:,}</td></tr>"
        for code, count in series.errors.most_common()
    )
    return f"<h2>Errors that clients saw</h2><table>{rows or '<tr><td>none</td></tr>'}</table>"


def _faults_html(result: Result, series: Series) -> str:
    meanings = {**KINDS, **LINK_KINDS} if result.plan.hosts == 2 else KINDS
    rows = "".join(
        f"<tr><td>{escape(kind)}</td><td>{count}</td><td>{escape(meanings.get(kind, ''))}</td>"
        f"<td>{escape(_struck(kind, series))}</td></tr>"
        for kind, count in sorted(result.faults.items())
    )
    return f"<h2>Faults</h2><table>{rows or '<tr><td>none</td></tr>'}</table>"


def _struck(kind: str, series: Series) -> str:
    targets = sorted({shade.target for shade in series.shades if shade.kind == kind})
    return ", ".join(targets)

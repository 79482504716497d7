"""What ``rmi bench`` does: measures, shows a table, and writes the figures down."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row, new_rows
from benchmarks.run import Run, machine, measure, scratch
from rmi_runtime.errors import InvalidRequest


def shown(value: float, unit: str) -> str:
    """Return a figure for the table."""
    return f"{value:,.2f}{unit}" if value < 100 else f"{value:,.0f}{unit}"


def table_of(rows: list[Row]) -> Table:
    """Return the rows as a table."""
    table = Table(title="Promises about speed: medians of the rounds, and their spread")
    for heading in ("", "ours", "against", "theirs", "ratio", "spread", "promised", ""):
        table.add_column(heading, justify="left" if heading in ("", "against") else "right")
    for row in rows:
        promised = f"{'≤' if row.at_most else '≥'} {row.bound:g}"
        if not row.ratios:
            table.add_row(row.what, "", row.against, "", "", "", promised, row.missing)
            continue
        table.add_row(
            row.what,
            shown(statistics.median(row.ours), row.unit),
            row.against,
            shown(statistics.median(row.theirs), row.unit),
            f"{row.ratio:.2f}",
            f"{min(row.ratios):.2f}–{max(row.ratios):.2f}",
            promised,
            "kept" if row.kept else "MISSED",
        )
    return table


class UnknownRow(InvalidRequest):
    """Nothing is measured under such a name, or nothing is left to measure."""

    code = "unknown_row"


def rows_wanted(only: Sequence[str], skip: Sequence[str]) -> dict[str, Row]:
    """Return the rows to measure, by name.

    Args:
        only: their names; none: all.
        skip: names of rows not to measure.

    Raises:
        UnknownRow: there is no row of such a name, or none is left.
    """
    rows = new_rows()
    for key in (*only, *skip):
        if key not in rows:
            raise UnknownRow(f"there is no row {key!r}; there are {', '.join(rows)}")
    found = {key: rows[key] for key in only or rows if key not in skip}
    if not found:
        raise UnknownRow("no row is left to measure: each that --only names is skipped by --skip")
    return found


def bench(
    rounds: int,
    seconds: float,
    only: Sequence[str],
    skip: Sequence[str],
    large: Path | None,
    json_path: Path | None,
    quiet: bool,
) -> bool:
    """Measure each promise about speed beside what it is compared with.

    Args:
        rounds: how often each side is measured.
        seconds: for how long, each time.
        only: names of the rows to measure; none: all.
        skip: names of rows not to measure.
        large: data directory with a million accounts, made there if it is missing; None: a
            directory that stays among the temporary files.
        json_path: where to write all figures, or None.
        quiet: show only the table.

    Returns:
        Whether all that could be measured is as promised.

    Raises:
        UnknownRow: there is no row of such a name.
    """
    wanted = rows_wanted(only, skip)
    if json_path is not None:
        json_path.touch()  # better refused now than when all has been measured
    console = Console(stderr=True)
    began_s = time.monotonic()

    def say(text: str) -> None:
        if not quiet:
            console.print(f"[dim]{time.monotonic() - began_s:6.0f} s[/] {text}", highlight=False)

    about = machine()
    large = large or Path(tempfile.gettempdir()) / "rmi-bench-large"
    with scratch() as directory:
        run = Run(rounds, seconds, directory, large, say)
        run.rows = wanted
        measure(run)
    out = Console()
    out = Console(width=max(out.width, 140))
    out.print(table_of(list(run.rows.values())))
    if json_path is not None:
        figures = {
            "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "machine": about,
            "rounds": rounds,
            "seconds": seconds,
            "rows": [row.as_dict() for row in run.rows.values()],
            "memory_mb": run.memory,
        }
        json_path.write_text(json.dumps(figures, indent=1) + "\n")
        say(f"the figures are in {json_path}")
    return all(row.kept or row.missing for row in run.rows.values())

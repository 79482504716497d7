"""``python -m tests.compat``: run every row in every direction and print the table.

Without running anything, ``--markdown`` prints what ``docs/compatibility.md`` holds, and
``--differences`` the table in ``docs/runtime.md``.
"""

from __future__ import annotations

import argparse
import logging
import sys

from rich.console import Console
from rich.table import Table

from tests.compat.page import differences, page
from tests.compat.run import FAILED, NOT_RUN, PASSED, SKIPPED, run_all
from tests.compat.table import DIRECTIONS, SAME, Direction, Row

PLAIN_WIDTH = 150
SIGNS = {PASSED: "[green]✓[/]", FAILED: "[red]✗[/]", SKIPPED: "·", NOT_RUN: "[dim]–[/]"}

STOCKS_WAY = "[yellow]≠[/]"


def main() -> int:
    """Run the command.

    Returns:
        0 if all is green.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.compat",
        description="Try every feature in every direction, and print the table.",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--markdown", action="store_true", help="run nothing: print docs/compatibility.md"
    )
    instead.add_argument(
        "--differences", action="store_true", help="run nothing: print the table in docs/runtime.md"
    )
    options = parser.parse_args()
    if options.markdown:
        print(page(), end="")
        return 0
    if options.differences:
        print(differences(), end="")
        return 0
    return _try_everything()


def _try_everything() -> int:
    """Run all rows and print what came of them; return 0 if all is green."""
    logging.getLogger().addHandler(logging.NullHandler())  # no last resort: errors are expected
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    table = Table(title="Compatibility with Pyro5: who calls whom", title_justify="left")
    table.add_column("")
    for direction in DIRECTIONS:
        heading = f"{direction.client}\n→ {direction.server}"
        table.add_column(heading, justify="center", no_wrap=True)
    table.add_column("ours is")
    group, count, rows, problems = "", dict.fromkeys(SIGNS, 0), [], []
    with console.status("trying every feature in every direction …"):
        for row, outcomes, found in run_all():
            if row.group != group:
                group = row.group
                table.add_section()
                table.add_row(f"[bold]{group}[/]")
            verdict = "" if row.verdict == SAME else row.verdict
            signs = [_sign(row, direction, outcome) for direction, outcome in outcomes.items()]
            table.add_row(row.name, *signs, verdict)
            for outcome in outcomes.values():
                count[outcome] += 1
            rows.append(row)
            problems += found
    console.print(table)
    _print_differences(console, rows)
    console.print(
        f"\n{len(rows)} features, {count[PASSED]} passed, {count[FAILED]} failed, "
        f"{count[SKIPPED]} skipped. ✓ as the row says; ≠ stock's other way, shown as well"
    )
    for problem in problems:
        console.print(problem, style="red", markup=False)
    return 1 if problems else 0


def _sign(row: Row, direction: Direction, outcome: str) -> str:
    if outcome == PASSED and row.is_stocks_way(direction):
        return STOCKS_WAY
    return SIGNS[outcome]


def _print_differences(console: Console, rows: list[Row]) -> None:
    table = Table(title="Where ours differs, and why", title_justify="left")
    for heading in ("feature", "ours is", "why"):
        table.add_column(heading)
    for row in rows:
        if row.verdict != SAME:
            table.add_row(row.name, row.verdict, row.why)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

"""Tables on stdout: in colour on a terminal, whole (never cut off) elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def new_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table.

    Args:
        columns: their headings.
        right: those of them that hold numbers.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def show(table: Table) -> None:
    """Print *table*."""
    console = Console()
    if not console.is_terminal:
        # A file or a pipe has no edge at which to cut.
        endless = console.options.update(max_width=10_000)
        console.width = max(console.width, console.measure(table, options=endless).maximum)
    console.print(table, highlight=False)

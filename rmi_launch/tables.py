"""Tables on stdout: in colour on a terminal, and never cut off."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

GAP = 2
"""Spaces after a column."""

WRAPPED_WIDTH_MIN = 20
"""A column whose text goes on in the next line has room for a few words, or a long one."""


def new_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table.

    Args:
        columns: their headings.
        right: those of them that hold numbers.
    """
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def plain(value: object) -> Text:
    """Return *value* as a cell that shows it as it is.

    ``[fd00::1]:9090`` is no markup, and what could steer a terminal is spelled out.
    """
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return Text("".join(shown))


def show(table: Table, console: Console | None = None) -> None:
    """Print *table*: as wide as it is, unless its text can go on in the next line.

    Args:
        table: the table.
        console: where it is printed. [default: stdout]
    """
    console = console or Console()
    endless = console.options.update(max_width=10_000)
    width = max(console.width, _least_width(table, console, endless))
    if not console.is_terminal or all(column.no_wrap for column in table.columns):
        # A file or a pipe has no edge at which to cut, and a terminal goes on below its edge:
        # half a name or number is of no use to anybody.
        width = max(width, console.measure(table, options=endless).maximum)
    # console.print(width=) can only make it narrower, so it is rendered first.
    lines = console.render(table, console.options.update(width=width, highlight=False))
    console.print(Segments(lines), crop=False, end="")


def _least_width(table: Table, console: Console, endless: ConsoleOptions) -> int:
    """Return how wide *table* has to be, so that only text is broken, and nothing else cut."""
    width = 0
    for column in table.columns:
        cells = (column.header, *column.cells)
        whole = max(console.measure(cell, options=endless).maximum for cell in cells)
        width += GAP + (whole if column.no_wrap else min(whole, WRAPPED_WIDTH_MIN))
    return width

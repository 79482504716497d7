"""``rmi bench``: measures the promises about speed on this machine."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import click

from rmi_launch.options import FiniteRange, WholeRange
from rmi_runtime.errors import Definite

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("fastapi", "asyncpg", "matplotlib")


class BenchmarksMissing(Definite):
    """The benchmarks, or a library that they need, are not installed."""

    code = "benchmarks_missing"


@click.command(short_help="Measure each promise about speed beside a peer.")
@click.option(
    "--rounds",
    type=WholeRange(1, 1000),
    default=5,
    show_default=True,
    help="How often each side is measured, in turn with the other.",
)
@click.option(
    "--seconds",
    type=FiniteRange(0.5, 3600),
    default=5.0,
    show_default=True,
    help="For how long, each time.",
)
@click.option("--only", multiple=True, metavar="ROW", help="Measure this row; may be repeated.")
@click.option("--skip", multiple=True, metavar="ROW", help="Do not measure this row.")
@click.option(
    "--large",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data directory with a million accounts and ten million journal lines; it is made "
    "(1.2 GB, some minutes) if it is not there.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all figures to this file.",
)
@click.option(
    "--report", is_flag=True, help="Also measure what docs/benchmarks.md shows; write it."
)
@click.option("--quiet", is_flag=True, help="Show only the table.")
def bench(report: bool, **options: Any) -> None:
    """Measure each promise about speed beside what it is compared with, in alternating rounds.

    Needs a checkout of the project and `pip install '.[bench]'`; `make bench` sees to both. Rows
    whose peers (PostgreSQL, wrk, Java) are not on this machine say how to install them.

    A promise that is missed here is a line of the table (and of --json: "kept"), and no failure.
    """
    _check_installed()
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    command = importlib.import_module("benchmarks.command")
    try:
        if report:
            importlib.import_module("benchmarks.report").write(ROOT / "docs", **options)
        else:
            command.bench(**options)
    except command.UnknownRow as error:
        raise click.UsageError(error.message) from None


def _check_installed() -> None:
    if not (ROOT / "benchmarks" / "command.py").exists():
        raise BenchmarksMissing(
            "the benchmarks are in the project's source, not in the installed package: "
            "get a checkout, and run 'make bench' there"
        )
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise BenchmarksMissing(
            f"not installed: {', '.join(absent)}; run 'make bench', or pip install '.[bench]'"
        )

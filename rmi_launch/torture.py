"""``rmi torture``: faults against a system of its own, and what the checkers say."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from rmi_launch.failures import INTERRUPTED
from rmi_launch.options import FiniteRange, WholeRange
from rmi_launch.torture_kinds import hosts_here, kinds_here
from rmi_runtime.errors import RmiError
from rmi_torture.campaign import Catch, bugs_named, estimate_s, hunt
from rmi_torture.faults.setup import missing_means
from rmi_torture.interrupts import Interrupts
from rmi_torture.judgement import judge
from rmi_torture.mix import Passed, phases_here
from rmi_torture.plan import Plan
from rmi_torture.planted import BUGS
from rmi_torture.recovery import measure_recovery
from rmi_torture.report import print_catches, print_phases, print_result, write_html
from rmi_torture.result import Result
from rmi_torture.run import run
from rmi_torture.steps import check_steps
from rmi_torture.targets import DEFAULT_KINDS, KINDS, WORKLOADS

RECOVERY_TRIES = 15
REPORT = "report.html"

LOG_WIDTH = 160
"""Columns of what is written to a file or a pipe, which do not say how wide they are."""


class TortureFound(RmiError):
    """The torture found something, or found out nothing. The report says what."""

    code = "torture_found"
    definite = True


@click.command(short_help="Run a system under faults, and check what it did.")
@click.option(
    "--workload",
    type=click.Choice(WORKLOADS),
    default="bank",
    show_default=True,
    help="What the clients do.",
)
@click.option(
    "--faults",
    metavar="KINDS",
    help=f"Kinds of faults, separated by commas: {', '.join(KINDS)}; all; or none. "
    f"[default: {','.join(DEFAULT_KINDS[1])}; with --hosts 2: {','.join(DEFAULT_KINDS[2])}]",
)
@click.option(
    "--minutes",
    type=FiniteRange(0.05, 600),
    default=1.0,
    show_default=True,
    help="How long the clients work.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of faults and requests.")
@click.option(
    "--requests",
    type=WholeRange(0),
    default=0,
    metavar="NUMBER",
    help="Stop when so many operations were acknowledged. [default: when the time is over]",
)
@click.option(
    "--every-s",
    type=FiniteRange(0.1, 600),
    default=2.5,
    show_default=True,
    help="One fault begins in this time, on the average.",
)
@click.option(
    "--lasting-s",
    type=FiniteRange(0.4, 600),
    default=3.0,
    show_default=True,
    help="A fault lasts so long at most.",
)
@click.option(
    "--concurrency",
    type=WholeRange(1, 1000),
    default=4,
    show_default=True,
    help="Clients of each kind.",
)
@click.option(
    "--batch",
    type=WholeRange(1, 1000),
    default=32,
    show_default=True,
    help="Operations in a batch; in the messages' workloads, posts under way.",
)
@click.option(
    "--store",
    type=click.Choice(("sqlite", "hazelcast")),
    default="sqlite",
    show_default=True,
    help="Where messages are kept.",
)
@click.option(
    "--hosts",
    type=WholeRange(1, 2),
    default=1,
    show_default=True,
    help="2: the system runs on two network namespaces, and faults of the network strike the link "
    "between them. Without root, one host and a TCP proxy must do.",
)
@click.option(
    "--bug",
    "bugs",
    multiple=True,
    metavar="NAME",
    help="Plant this bug, which must be caught; 'all' plants one after the other. "
    "May be given several times.",
)
@click.option(
    "--steps", is_flag=True, help="Cut the power and fail the disk at every step of a commit."
)
@click.option(
    "--mix",
    is_flag=True,
    help="Each workload in turn under all kinds of faults; --minutes is the time of all together.",
)
@click.option(
    "--check",
    "saved",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Run nothing: judge the files of an earlier run again.",
)
@click.option(
    "--recovery",
    "lines",
    type=WholeRange(0, 10**8),
    default=0,
    metavar="LINES",
    help="Kill the data object with so many lines in its journal, and time its return.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where history, report and data go. [default: a new directory]",
)
def torture(
    workload: str,
    faults: str | None,
    minutes: float,
    seed: int,
    bugs: tuple[str, ...],
    steps: bool,
    mix: bool,
    saved: Path | None,
    lines: int,
    as_json: bool,
    out: Path | None,
    **others: Any,
) -> None:
    """Run a system under faults, and check that it lost, doubled and mixed up nothing.

    Ctrl-C ends a run early: what was recorded by then is checked. A second one ends it at once.
    """
    runs_of_another_sort = {
        "--check": saved,
        "--steps": steps,
        "--recovery": lines,
        "--bug": bugs,
        "--mix": mix,
    }
    asked = [option for option, value in runs_of_another_sort.items() if value]
    if len(asked) > 1:
        raise click.UsageError(
            f"{' and '.join(asked)} are runs of their own: ask for one after the other"
        )
    if asked and others["hosts"] == 2:
        raise click.UsageError(f"--hosts 2 is for plain runs: leave {asked[0]} out")
    # Its clients complain, rightly, of each service that was killed.
    logging.getLogger("rmi_runtime").setLevel(logging.ERROR)
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=LOG_WIDTH)
    if saved is not None:
        _show(_judged(saved), as_json, console)
        return
    if steps:
        _steps(seed, as_json, console)
        return
    if lines:
        _recovery(lines, _fresh(out), as_json, console)
        return
    runs = _Runs(console)
    with runs.guarding():
        if bugs:
            _hunt(bugs, seed, out, as_json, runs)
        elif mix:
            _mix(minutes, seed, _fresh(out), as_json, runs)
        else:
            usual = DEFAULT_KINDS[others["hosts"]]
            others["hosts"] = hosts_here(others["hosts"], others["store"], console)
            kinds = kinds_here(faults, usual, others["store"], others["hosts"], console)
            plan = Plan(workload, kinds, minutes * 60, seed, **others)
            _show(runs.perform(plan, _fresh(out)), as_json, console)


def _judged(directory: Path) -> Result:
    """Judge the files of a run, and write its page."""
    result = judge(directory)
    write_html(result, directory / REPORT)
    return result


class _Runs:
    """Carries out plans, one after the other, until somebody presses Ctrl-C."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._interrupts = Interrupts(self._told)
        self.guarding = self._interrupts.guarding

    @property
    def interrupted(self) -> bool:
        """Somebody wants no more runs."""
        return self._interrupts.asked

    def _told(self) -> None:
        self.console.print(
            "ending early: no more faults, then what was recorded is checked; "
            "Ctrl-C again ends at once",
            highlight=False,
        )

    def perform(self, plan: Plan, out_dir: Path) -> Result:
        """Carry out a plan, and judge what it left.

        Raises:
            KeyboardInterrupt: somebody wants an end at once.
        """
        try:
            asyncio.run(self._run(plan, out_dir))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        return _judged(out_dir)

    async def _run(self, plan: Plan, out_dir: Path) -> None:
        with self._interrupts.watching() as stop:
            await run(plan, out_dir, stop)


def _fresh(out: Path | None) -> Path:
    """Return *out*, or a new directory in it if a run was here before; None: one of our own."""
    if out is None:
        return Path(tempfile.mkdtemp(prefix="rmi-torture-"))
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        out = out / time.strftime("%Y%m%d-%H%M%S")
        out.mkdir()
    return out


def _show(result: Result, as_json: bool, console: Console) -> None:
    """Tell what came of a run; the exit code is 0 only if it passed, and in full."""
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=1))
    print_result(result, console)
    page = result.history.with_name(REPORT)
    console.print(f"history: {result.history}\nreport: {page}", markup=False, highlight=False)
    if result.verdict != "passed":
        raise TortureFound(f"the run {result.verdict}; see the report")
    if result.cut_short:
        raise SystemExit(INTERRUPTED)


def _hunt(bugs: tuple[str, ...], seed: int, out: Path | None, as_json: bool, runs: _Runs) -> None:
    console = runs.console
    names = [] if "all" in bugs else list(bugs)
    for name in names:
        if name not in BUGS:
            raise click.BadParameter(
                f"no planted bug {name!r}; there are {', '.join(BUGS)}", param_hint="'--bug'"
            )
    wanted, out_dir = bugs_named(names), _fresh(out)
    minutes = sum(map(estimate_s, wanted)) / 60
    console.print(
        f"{len(wanted)} planted bugs, about {minutes:.1f} minutes: {out_dir}", highlight=False
    )
    catches: list[Catch] = []
    for number, bug in enumerate(wanted, 1):
        if runs.interrupted:
            break
        catch = hunt(bug, seed, out_dir, runs.perform)
        catches.append(catch)
        word = "skipped" if catch.skipped else "caught" if catch.caught else "MISSED"
        how = catch.skipped or "; ".join(catch.by) or catch.verdict
        console.print(
            f"{number}/{len(wanted)} {word}: {bug.name} ({how}), {catch.seconds:.0f} s",
            highlight=False,
        )
    if as_json:
        click.echo(json.dumps([catch.as_dict() for catch in catches], indent=1))
    print_catches(catches, console)
    missed = [catch.bug.name for catch in catches if not catch.caught and not catch.skipped]
    if runs.interrupted:
        console.print(f"cut short after {len(catches)} of {len(wanted)}", highlight=False)
        raise SystemExit(INTERRUPTED)
    if missed:
        raise TortureFound(f"not caught: {', '.join(missed)}")


def _mix(minutes: float, seed: int, out_dir: Path, as_json: bool, runs: _Runs) -> None:
    console = runs.console
    wanted, without = phases_here(minutes, seed)
    for kind, why in missing_means().items():
        console.print(f"without the fault {kind!r}: it {why}", markup=False)
    if without:
        console.print(without, markup=False)
    estimate = sum(phase.estimate_s for phase in wanted) / 60
    console.print(f"{len(wanted)} parts, about {estimate:.1f} minutes: {out_dir}", highlight=False)
    parts: list[Passed] = []
    for number, phase in enumerate(wanted, 1):
        if runs.interrupted:
            break
        console.print(
            f"{number}/{len(wanted)} {phase.name}: {phase.plan.seconds:.0f} s of work, "
            f"faults {', '.join(phase.plan.faults)}",
            highlight=False,
        )
        began_s = time.monotonic()
        result = runs.perform(phase.plan, out_dir / phase.name.replace(" ", "-").lower())
        parts.append(Passed.of(phase, result, time.monotonic() - began_s))
        print_result(result, console)
    if as_json:
        click.echo(json.dumps([part.as_dict() for part in parts], indent=1))
    print_phases(parts, console)
    _end_of_mix(parts, len(wanted), runs)


def _end_of_mix(parts: Sequence[Passed], wanted: int, runs: _Runs) -> None:
    bad = [part.phase.name for part in parts if part.verdict != "passed"]
    if bad:
        raise TortureFound(f"not passed: {', '.join(bad)}")
    if runs.interrupted:
        runs.console.print(f"cut short in part {len(parts)} of {wanted}", highlight=False)
        raise SystemExit(INTERRUPTED)


def _recovery(lines: int, out_dir: Path, as_json: bool, console: Console) -> None:
    told = measure_recovery(out_dir, lines, RECOVERY_TRIES).as_dict()
    if as_json:
        click.echo(json.dumps(told))
    console.print(
        f"{told['lines']:,} journal lines: a deposit is acknowledged {told['median_s']:.2f} s "
        f"after SIGKILL to the data object (median of {told['tries']}; worst "
        f"{told['worst_s']:.2f} s)",
        highlight=False,
    )


def _steps(seed: int, as_json: bool, console: Console) -> None:
    verdicts = asyncio.run(check_steps(seed))
    if as_json:
        click.echo(json.dumps([verdict.as_dict() for verdict in verdicts], indent=1))
    for verdict in verdicts:
        word = "passed" if verdict.valid and verdict.checked else "failed"
        console.print(f"{word}: {verdict.checker}, {verdict.checked:,} cases", highlight=False)
        for example in verdict.examples:
            console.print(f"  {example}", markup=False, highlight=False)
    if not all(verdict.valid and verdict.checked for verdict in verdicts):
        raise TortureFound("a step of a commit does not survive")

"""Judges a run by the files it left, and by nothing else: so anybody can judge it again.

A run's directory has ``history.jsonl`` (:mod:`rmi_torture.history`), ``kept.jsonl``
(:mod:`rmi_torture.kept`) and ``run.json``: the plan, and how far it came (:class:`Report`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from rmi_runtime.errors import InternalError, InvalidRequest, NotFound
from rmi_torture.checkers import (
    Ledger,
    Verdict,
    check_bank_order,
    check_books,
    check_by_search,
    check_effects,
    check_locks,
    check_messages,
    check_queue,
    check_raw_commits,
    check_statements,
)
from rmi_torture.history import Operation, operations, read_history
from rmi_torture.kept import Kept, read_kept
from rmi_torture.plan import Plan
from rmi_torture.result import Result
from rmi_torture.schedule import Step

HISTORY, KEPT, RUN = "history.jsonl", "kept.jsonl", "run.json"


@dataclass(frozen=True)
class Report:
    """What a run tells of itself, in ``run.json``.

    Attributes:
        plan: what was to be run.
        schedule: of the faults, as the plan has it: (at, kind, target, duration), in seconds.
        seconds: how long the clients worked.
        faults: how many of each kind were made.
        unready: services that were not ready again after the faults, or what could not be read.
        cut_short: somebody ended it before its time.
    """

    plan: Plan
    schedule: Sequence[Step] = ()
    seconds: float = 0.0
    faults: Mapping[str, int] = field(default_factory=dict)
    unready: Sequence[str] = ()
    cut_short: bool = False


Check = Callable[[Sequence[Operation], Kept], list[Verdict]]


def _check_bank(history: Sequence[Operation], kept: Kept) -> list[Verdict]:
    ledger = Ledger(kept.lines)
    # Runs that were saved before statements were kept have none.
    statements = [check_statements(kept.statements, ledger)] if kept.statements else []
    return [
        *statements,
        check_books(history, ledger, sum(kept.initial.values())),
        check_bank_order(history, ledger),
        check_effects(history, ledger, kept.own, kept.initial),
        check_by_search(history, kept.initial),
    ]


def _check_lock(history: Sequence[Operation], kept: Kept) -> list[Verdict]:
    return [check_locks(history), check_raw_commits(history, Ledger(kept.lines))]


def _check_messages(history: Sequence[Operation], kept: Kept) -> list[Verdict]:
    return [check_messages(history, kept.messages), check_queue(history, kept.consumed)]


def _check_queue(history: Sequence[Operation], kept: Kept) -> list[Verdict]:
    return [check_queue(history, kept.consumed)]


CHECKS: Mapping[str, tuple[Check, frozenset[str]]] = {
    "bank": (
        _check_bank,
        frozenset(("transfer", "deposit", "withdrawal", "balance", "balances")),
    ),
    "lock": (_check_lock, frozenset(("lock", "commit", "unlock"))),
    "messages": (_check_messages, frozenset(("post", "read"))),
    "queue": (_check_queue, frozenset(("post", "consumed"))),
}
"""Workload to its checkers, and to the kinds of operations that must have succeeded."""


def write_report(report: Report, directory: Path) -> None:
    """Write ``run.json``: the last of a run's files."""
    text = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (directory / RUN).write_bytes(text + b"\n")


def judge(directory: Path) -> Result:
    """Judge a run.

    Args:
        directory: with its files.

    Raises:
        NotFound: one of them is not there.
        InvalidRequest: one of them is not what it ought to be.
        InternalError: a checker stumbled over them.
    """
    for name in (RUN, HISTORY):
        if not (directory / name).is_file():
            raise NotFound(
                f"{directory} has no {name}: no run came to its end there; "
                "name the directory that 'rmi torture' told, or was given with --out"
            )
    # Millions of objects that all stay: looking through them again and again is vain.
    gc.disable()
    try:
        report = msgspec.json.decode((directory / RUN).read_bytes(), type=Report)
        check, needs = CHECKS[report.plan.workload]
        history = operations(read_history(directory / HISTORY))
        kept = None if report.unready else read_kept(directory / KEPT)
        verdicts = [] if kept is None else _checked(check, history, kept, directory)
    except (msgspec.DecodeError, ValueError, KeyError, FileNotFoundError) as error:
        raise InvalidRequest(f"the files in {directory} are not those of a run: {error}") from error
    finally:
        gc.enable()
    return Result(
        report.plan,
        directory / HISTORY,
        history,
        verdicts,
        needs,
        report.faults,
        report.seconds,
        report.unready,
        report.cut_short,
    )


def _checked(
    check: Check, history: Sequence[Operation], kept: Kept, directory: Path
) -> list[Verdict]:
    """Return the verdicts; what a checker stumbles over is no word on the system."""
    try:
        return check(history, kept)
    except (ValueError, LookupError, TypeError) as error:
        raise InternalError(
            f"a checker stumbled over the files in {directory} ({error!r}): they were edited or "
            "are of another version, or the checker has a fault; the run itself is not judged"
        ) from error

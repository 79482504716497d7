"""One run: a system, a workload, faults by a seeded schedule; then calm, collection, judgement."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from rmi_runtime.errors import RmiError
from rmi_torture.checkers import Verdict, all_valid
from rmi_torture.faults.nemesis import Nemesis
from rmi_torture.faults.setup import Surroundings
from rmi_torture.history import OK, Operation, Recorder, operations, read_history
from rmi_torture.schedule import plan_faults
from rmi_torture.system_under_test import SystemUnderTest
from rmi_torture.targets import targets_of
from rmi_torture.workloads.base import Setting, Workload, run_client
from rmi_torture.workloads.table import make_workload

CALM_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        workload: its name.
        faults: kinds of faults.
        seconds: how long the clients work.
        seed: of the schedule and the requests.
        requests: stop when so many operations were acknowledged; 0: only the time counts.
        every_s: one fault begins in this time, on the average.
        lasting_s: longest duration of a fault.
        concurrency: clients of each kind.
        batch: operations in a batch.
        timeout_s: how long clients wait.
        store: where messages are kept, ``sqlite`` or ``hazelcast``.
        bug: name of a planted bug, or nothing.
        environment: more variables for the system, such as settings.
        arguments: more arguments for ``rmi up``.
    """

    workload: str = "bank"
    faults: tuple[str, ...] = ("kill", "pause", "nameserver")
    seconds: float = 60.0
    seed: int = 1
    requests: int = 0
    every_s: float = 2.5
    lasting_s: float = 3.0
    concurrency: int = 4
    batch: int = 32
    timeout_s: float = 5.0
    store: str = "sqlite"
    bug: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


@dataclass
class Result:
    """What came of it.

    Attributes:
        plan: what was run.
        history: the file.
        operations: the history, paired.
        verdicts: one of each checker.
        needs: kinds of operations that must have succeeded.
        faults: how many of each kind were made.
        seconds: how long the clients worked.
        unready: services that were not ready again after the faults, or what could not be read.
        plots: curves of the workload's own.
    """

    plan: Plan
    history: Path
    operations: Sequence[Operation]
    verdicts: Sequence[Verdict]
    needs: frozenset[str]
    faults: Mapping[str, int]
    seconds: float
    unready: Sequence[str] = ()
    plots: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Kinds of operations that never succeeded: then the run says nothing."""
        done = {operation.f for operation in self.operations if operation.outcome == OK}
        return sorted(self.needs - done)

    @property
    def acknowledged(self) -> int:
        """How many operations ended well."""
        return sum(operation.outcome == OK for operation in self.operations)

    @property
    def verdict(self) -> str:
        """Say in a word how it went.

        ``stuck``: the system did not come back, so nothing can be judged. ``failed``: a checker
        found an error. ``invalid``: some kind of operation never succeeded, or a checker had
        nothing to look at, so that it says nothing. Else ``passed``.
        """
        if self.unready:
            return "stuck"
        if not all(verdict.valid for verdict in self.verdicts):
            return "failed"
        return "invalid" if self.missing or not all_valid(self.verdicts) else "passed"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, without the history."""
        plan = self.plan
        return {
            "verdict": self.verdict,
            "workload": plan.workload,
            "seed": plan.seed,
            "bug": plan.bug,
            "seconds": round(self.seconds, 1),
            "operations": len(self.operations),
            "acknowledged": self.acknowledged,
            "faults": dict(self.faults),
            "missing": self.missing,
            "unready": list(self.unready),
            "checkers": [verdict.as_dict() for verdict in self.verdicts],
        }


async def run(plan: Plan, out_dir: Path) -> Result:
    """Carry out a plan.

    Args:
        plan: what to run.
        out_dir: gets the history and, below ``data``, the system's own directory.

    Returns:
        The result, judged.

    Raises:
        RmiError: the system could not be started.
    """
    targets = targets_of(plan.faults, plan.workload)
    steps = plan_faults(
        plan.seed,
        targets,
        for_s=plan.seconds,
        every_s=plan.every_s,
        lasting_s_max=plan.lasting_s,
    )
    path = out_dir / "history.jsonl"
    with _new_file(path) as file:
        recorder = Recorder(file)
        async with AsyncExitStack() as stack:
            surroundings = Surroundings(out_dir, plan.faults, plan.seed, plan.store, plan.bug)
            await stack.enter_async_context(surroundings)
            system = surroundings.system(plan.environment, plan.arguments)
            await stack.enter_async_context(system)
            setting = Setting(
                system, recorder, plan.seed, plan.timeout_s, plan.concurrency, plan.batch
            )
            workload = make_workload(plan.workload, setting)
            nemesis = Nemesis(surroundings.faults(system), recorder)
            try:
                await workload.prepare()
                began_s = time.monotonic()
                await _work(plan, workload, nemesis, steps, recorder)
                seconds = time.monotonic() - began_s
                unready = await _calm(system, workload)
            finally:
                await workload.close()
    return _judge(plan, path, workload, nemesis, seconds, unready)


async def _calm(system: SystemUnderTest, workload: Workload) -> list[str]:
    """Wait until all is ready, and collect what is there; return what did not come back."""
    if not await system.all_ready(CALM_S):
        return [service.name for service in system.services().values() if service.state != "ready"]
    try:
        await workload.collect()
    except (RmiError, TimeoutError) as error:
        return [f"{workload.__class__.__name__}: {error}"]
    return []


def _new_file(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


async def _work(
    plan: Plan, workload: Workload, nemesis: Nemesis, steps: Sequence[Any], recorder: Recorder
) -> None:
    """Let clients and nemesis work until the time is over or there are enough operations."""
    stop = asyncio.Event()
    clients = [asyncio.create_task(run_client(step, stop)) for step in workload.clients()]
    trouble = asyncio.create_task(nemesis.run(steps, stop))
    deadline_s = time.monotonic() + plan.seconds
    try:
        while time.monotonic() < deadline_s and not any(client.done() for client in clients):
            if plan.requests and recorder.acknowledged() >= plan.requests:
                break
            await asyncio.sleep(POLL_S)
        stop.set()
        await trouble
        await asyncio.gather(*clients)
    finally:
        stop.set()
        for task in (*clients, trouble):
            task.cancel()
        await asyncio.gather(*clients, trouble, return_exceptions=True)


def _judge(
    plan: Plan,
    path: Path,
    workload: Workload,
    nemesis: Nemesis,
    seconds: float,
    unready: Sequence[str],
) -> Result:
    gc.disable()  # millions of objects that all stay: looking through them again and again is vain
    try:
        history = operations(read_history(path))
        verdicts = [] if unready else workload.check(history)
    finally:
        gc.enable()
    return Result(
        plan,
        path,
        history,
        verdicts,
        workload.needs,
        dict(nemesis.made),
        seconds,
        unready,
        workload.plots(),
    )

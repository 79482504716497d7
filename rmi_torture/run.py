"""One run: a system, a workload, faults by a seeded schedule; then calm, and a last look.

What it leaves are files (:mod:`rmi_torture.judgement`); the verdict is made of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import BinaryIO

from rmi_runtime.errors import RmiError
from rmi_torture.faults.nemesis import Nemesis
from rmi_torture.faults.setup import Surroundings
from rmi_torture.history import Recorder
from rmi_torture.judgement import HISTORY, KEPT, Report, write_report
from rmi_torture.kept import Kept, write_kept
from rmi_torture.plan import Plan
from rmi_torture.system_under_test import RunningSystem
from rmi_torture.workloads.base import Setting, Workload, run_client
from rmi_torture.workloads.table import make_workload

CALM_S = 60.0
POLL_S = 0.1

OVERTIME_S = 90.0
"""How much longer clients work at most, if a slow machine has not seen enough faults by then."""

AFTERMATH_S = 3.0
"""How long they go on after the last fault that was waited for."""


async def run(plan: Plan, out_dir: Path, stop: asyncio.Event | None = None) -> Report:
    """Carry out a plan, and leave its files.

    Args:
        plan: what to run.
        out_dir: gets the files and, below ``data``, the system's own directory.
        stop: once it is set, clients and faults end; what was recorded by then is a run too.

    Returns:
        What the run tells of itself.

    Raises:
        RmiError: the system could not be started.
        asyncio.CancelledError: it was told to end at once; nothing of it goes on.
    """
    stop = stop or asyncio.Event()
    with _new_file(out_dir / HISTORY) as file:
        recorder = Recorder(file)
        async with AsyncExitStack() as stack:
            surroundings = Surroundings(
                out_dir, plan.faults, plan.seed, plan.store, plan.bug, plan.backups, plan.hosts
            )
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
                cut_short = await _work(plan, workload, nemesis, recorder, stop)
                seconds = time.monotonic() - began_s
                kept, unready = await _calm(system, workload)
            finally:
                await workload.close()
    write_kept(kept, out_dir / KEPT)
    made = dict(nemesis.made)
    report = Report(plan, plan.steps(), seconds, made, unready, cut_short)
    write_report(report, out_dir)
    return report


async def _calm(system: RunningSystem, workload: Workload) -> tuple[Kept, list[str]]:
    """Wait until all is ready, and collect what is there; return also what did not come back."""
    if not await system.all_ready(CALM_S):
        services = system.services().values()
        return Kept(), [service.name for service in services if service.state != "ready"]
    try:
        return await workload.collect(), []
    except (RmiError, TimeoutError) as error:
        return Kept(), [f"{workload.__class__.__name__}: {error or 'it took too long'}"]


def _new_file(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


async def _work(
    plan: Plan, workload: Workload, nemesis: Nemesis, recorder: Recorder, stop: asyncio.Event
) -> bool:
    """Let clients and nemesis work until the time is over or there are enough operations.

    Returns:
        Whether *stop* came first.
    """
    over = asyncio.Event()
    clients = [asyncio.create_task(run_client(step, over)) for step in workload.clients()]
    trouble = asyncio.create_task(nemesis.run(plan.steps(), over))
    try:
        for _ in _until_due(plan, nemesis, recorder):
            if stop.is_set() or any(client.done() for client in clients):
                break
            # Not wait_for(): until Python 3.12 it forgets a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await stop.wait()
        cut_short = stop.is_set()
        over.set()
        await trouble
        await asyncio.gather(*clients)
    finally:
        over.set()
        for task in (*clients, trouble):
            task.cancel()
        await asyncio.gather(*clients, trouble, return_exceptions=True)
    return cut_short


def _until_due(plan: Plan, nemesis: Nemesis, recorder: Recorder) -> Iterator[None]:
    """Yield again and again, until it is time to end."""
    began_s = time.monotonic()
    due_s = began_s + plan.seconds
    while plan.requests == 0 or recorder.acknowledged() < plan.requests:
        now_s = time.monotonic()
        if nemesis.made.total() < plan.faults_min:
            due_s = max(due_s, now_s + AFTERMATH_S)
        if now_s >= min(due_s, began_s + plan.seconds + OVERTIME_S):
            return
        yield

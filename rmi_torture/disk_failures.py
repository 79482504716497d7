"""Every write and every sync of the books fails once: full disk, and input/output errors.

The real data object runs on a disk that fails at one chosen step, and works again afterwards. What
was acknowledged must be there, what was refused definitely must not, what ended in doubt may be
either but not half; and the data object must go on by itself.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rmi_bank import SqliteLedger, open_data
from rmi_runtime.errors import RmiError, Unavailable
from rmi_torture.checkers import Verdict
from rmi_torture.disks import FailingDisk
from rmi_torture.power import scratch
from rmi_torture.vfs import Vfs

COMMITS = 6
STEPS_MAX = 400
GO_ON_S = 10.0
PAUSE_S = 0.01


@dataclass
class _Run:
    """What was asked of one data object, and how it ended, by request id."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    in_doubt: set[str] = field(default_factory=set)


async def check_disk_failures(codes: tuple[Literal["full", "error"], ...]) -> Verdict:
    """Fail each step in turn, in each way.

    Args:
        codes: the ways.

    Returns:
        A verdict; its errors are ``lost``, ``refused but done``, ``unbalanced`` and ``stopped``
        (the data object did not go on when the disk was well again).
    """
    verdict = Verdict("disk failures").expect("lost", "refused but done", "unbalanced", "stopped")
    disk = FailingDisk()
    vfs = Vfs("rmi-failing", disk)
    try:
        for code in codes:
            for step in range(STEPS_MAX):
                with scratch("rmi-disk-") as name:
                    if not await _one(Path(name), disk, step, code, verdict):
                        break
    finally:
        vfs.unregister()
    return verdict


async def _one(
    directory: Path,
    disk: FailingDisk,
    step: int,
    code: Literal["full", "error"],
    verdict: Verdict,
) -> bool:
    """Let one step fail; return whether there was such a step."""
    uri = f"file:{directory / 'bank.sqlite'}?vfs=rmi-failing"
    ledger = SqliteLedger(uri, uri=True)
    run = _Run()
    where = f"{code} at step {step}"
    async with open_data(ledger) as data:
        for account in (1, 2):
            await data.open_account(account, 1000, None, f"open-{account}")
        disk.fail(step, 1, code)
        for number in range(COMMITS):
            await _commit(data, run, f"1:{number}")
        failed = disk.times == 0
        disk.fail(-1, 0, code)
        try:
            async with asyncio.timeout(GO_ON_S):
                await _until_done(data, run, "1:after")
        except TimeoutError:
            verdict.blame("stopped", where)
        _judge(ledger, run, where, verdict)
    again = SqliteLedger(directory / "bank.sqlite")
    async with open_data(again):
        _judge(again, run, f"{where}, opened again", verdict)
    verdict.checked += 1
    return failed


async def _commit(data: Any, run: _Run, request_id: str) -> None:
    try:
        found = data.lock(1, [1, 2], [request_id], 1.0)
        grant = await found if inspect.isawaitable(found) else found
        known = grant["outcomes"].get(request_id)
        if known is not None:
            run.acknowledged[request_id] = known.commit
            run.in_doubt.discard(request_id)
            data.unlock(grant["lease"])
            return
        outcome = [request_id, "transfer 1 2 1", "1"]
        done = data.commit(grant["lease"], [[1, 2, 1, 0]], [outcome])
        run.acknowledged[request_id] = await done if inspect.isawaitable(done) else done
        run.in_doubt.discard(request_id)
        run.refused.discard(request_id)
    except Unavailable:
        if request_id not in run.in_doubt:
            run.refused.add(request_id)
    except RmiError as error:
        if not error.definite:
            run.in_doubt.add(request_id)
        elif request_id not in run.in_doubt:
            run.refused.add(request_id)


async def _until_done(data: Any, run: _Run, request_id: str) -> None:
    while request_id not in run.acknowledged:
        await _commit(data, run, request_id)
        await asyncio.sleep(PAUSE_S)


def _judge(ledger: SqliteLedger, run: _Run, where: str, verdict: Verdict) -> None:
    for request_id, number in run.acknowledged.items():
        known = ledger.known([request_id]).get(request_id)
        if known is None or known.commit != number:
            verdict.blame("lost", f"{where}: {request_id}, commit {number}, is {known}")
    for request_id in run.refused - run.acknowledged.keys():
        if ledger.known([request_id]):
            verdict.blame("refused but done", f"{where}: {request_id}")
    held = ledger.balances([0, 1, 2])
    done = sum(bool(ledger.known([f"1:{n}"])) for n in [*range(COMMITS), "after"])
    if held != [-2000, 1000 - done, 1000 + done]:
        verdict.blame("unbalanced", f"{where}: {held} after {done} transfers of 1")

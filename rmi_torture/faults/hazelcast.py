"""Hazelcast members die: one, or two of three at once. What two backups must survive.

The third copy may only be lost when the first two are there again, so a fault waits until
``rmi map-stats`` says that the cluster is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from rmi_torture.faults.base import Value

SAFE_S = 40.0
LOOK_PAUSE_S = 0.3
MEMBERS = 3


class KillMembers:
    """SIGKILL to members; their loggers start them again.

    Args:
        data_dir: of the system.
        count: how many die at once.
        seed: of the choice.
        turn: shared by all that kill members: one at a time.
        backups: how many each entry has when all is well; 2, but for a planted bug.
    """

    def __init__(
        self, data_dir: Path, count: int, seed: int, turn: asyncio.Lock, backups: int = 2
    ) -> None:
        self._data_dir = data_dir
        self._count = count
        self._turn = turn
        self._backups = backups
        self._waiting = False
        self._rng = Random(f"members/{count}/{seed}")  # noqa: S311 (repeatable on purpose)

    async def begin(self, target: str) -> Value | None:
        """Kill, once the cluster is safe; not if another such order is still waiting."""
        if self._waiting:
            return None
        self._waiting = True
        try:
            async with self._turn:
                return await self._kill() if await self._safe() else None
        finally:
            self._waiting = False

    async def _kill(self) -> Value:
        pids = members(self._data_dir)
        struck = self._rng.sample(sorted(pids), min(self._count, len(pids)))
        for number in struck:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[number], signal.SIGKILL)
        return {"members": struck}

    async def end(self, target: str) -> Value | None:
        """Nothing: their loggers start them again."""
        return None

    async def heal(self) -> None:
        """Nothing."""

    async def _safe(self) -> bool:
        """Wait until all copies are there; return whether they were in time."""
        deadline_s = asyncio.get_running_loop().time() + SAFE_S
        while asyncio.get_running_loop().time() < deadline_s:
            process = await asyncio.create_subprocess_exec(
                *(str(Path(sys.executable).with_name("rmi")), "map-stats", "--json"),
                *("--data-dir", str(self._data_dir)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                told, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            with contextlib.suppress(ValueError, KeyError):
                if len(members(self._data_dir)) == MEMBERS and settled(
                    json.loads(told), self._backups
                ):
                    return True
            await asyncio.sleep(LOOK_PAUSE_S)
        return False


def settled(told: Mapping[str, Any], backups: int) -> bool:
    """Tell whether all members are there, and all copies that there ought to be.

    Args:
        told: what ``rmi map-stats --json`` says.
        backups: how many copies each entry ought to have, besides the first.
    """
    cluster, total = told["cluster"], told["total"]
    if cluster["members"] != MEMBERS or cluster["migrating"]:
        return False
    if backups == MEMBERS - 1:
        return bool(cluster["losses"] >= backups)
    # With fewer, the product never calls it safe; the map of the messages shows it too.
    return bool(0 < total["entries"] * backups <= total["backups"])


def members(data_dir: Path) -> dict[int, int]:
    """Return the processes of the members that live, by number."""
    found = {}
    for path in (data_dir / "hazelcast").glob("member-*.lock"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = int(json.loads(path.read_text())["member"])
            os.kill(pid, 0)
            found[int(path.stem.removeprefix("member-"))] = pid
    return found

"""Faults of processes: they die, or they stand still. By their ids, never by name."""

from __future__ import annotations

import contextlib
import os
import signal

from rmi_torture.faults.base import Value
from rmi_torture.system_under_test import RunningSystem


class Kill:
    """SIGKILL; the supervisor starts the service again.

    Args:
        system: whose services die.
    """

    def __init__(self, system: RunningSystem) -> None:
        self._system = system

    async def begin(self, target: str) -> Value | None:
        """Kill it."""
        pid = self._system.signal(target, signal.SIGKILL)
        return None if pid is None else {"pid": pid}

    async def end(self, target: str) -> Value | None:
        """Nothing: the dead are started by the supervisor."""
        return None

    async def heal(self) -> None:
        """Nothing."""


class Pause:
    """SIGSTOP, and SIGCONT when it is over: a service that takes nothing for what seems no time.

    Args:
        system: whose services stand still.
    """

    def __init__(self, system: RunningSystem) -> None:
        self._system = system
        self._stopped: dict[str, int] = {}

    async def begin(self, target: str) -> Value | None:
        """Stop it."""
        pid = self._system.signal(target, signal.SIGSTOP)
        if pid is None:
            return None
        self._stopped[target] = pid
        return {"pid": pid}

    async def end(self, target: str) -> Value | None:
        """Let it go on."""
        pid = self._stopped.pop(target, None)
        if pid is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        return {"pid": pid}

    async def heal(self) -> None:
        """Let all go on."""
        for target in list(self._stopped):
            await self.end(target)

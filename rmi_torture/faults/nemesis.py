"""Carries out a schedule of faults, and notes in the history what it did."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rmi_torture.faults.base import Fault
from rmi_torture.history import NEMESIS, Recorder
from rmi_torture.schedule import Step


class Nemesis:
    """Makes trouble.

    Args:
        faults: by kind.
        recorder: where it is noted.

    Attributes:
        made: how many faults of each kind were made; not those that found no target.
    """

    def __init__(self, faults: Mapping[str, Fault], recorder: Recorder) -> None:
        self.made: Counter[str] = Counter()
        self._faults = faults
        self._recorder = recorder
        self._endings: set[asyncio.Task[None]] = set()

    async def run(self, steps: Sequence[Step], stop: asyncio.Event) -> None:
        """Carry out *steps* until they are through, or *stop* is set; then heal everything."""
        began_s = time.monotonic()
        try:
            for step in steps:
                if await _waited(stop, began_s + step.at_s - time.monotonic()):
                    break
                await self._begin(step, stop)
            if self._endings:
                await asyncio.wait(self._endings)
        finally:
            for ending in self._endings:
                ending.cancel()
            for fault in self._faults.values():
                await fault.heal()

    async def _begin(self, step: Step, stop: asyncio.Event) -> None:
        done = await self._faults[step.kind].begin(step.target)
        if done is None:
            return
        self.made[step.kind] += 1
        note = {"target": step.target, "phase": "begin", "lasts_s": step.duration_s}
        self._recorder.info(NEMESIS, step.kind, {**note, **done})
        if step.duration_s:
            ending = asyncio.create_task(self._end(step, stop))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def _end(self, step: Step, stop: asyncio.Event) -> None:
        await _waited(stop, step.duration_s)
        done = await self._faults[step.kind].end(step.target)
        note = {"target": step.target, "phase": "end"}
        self._recorder.info(NEMESIS, step.kind, {**note, **(done or {})})


async def _waited(event: asyncio.Event, wait_s: float) -> bool:
    """Wait for *event*, at most *wait_s*; return whether it came."""
    if wait_s <= 0:
        return event.is_set()
    try:
        async with asyncio.timeout(wait_s):
            await event.wait()
    except TimeoutError:
        return False
    return True

"""Carries out a schedule of faults, and notes in the history what it did."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from rmi_torture.faults.base import Fault
from rmi_torture.history import NEMESIS, Recorder
from rmi_torture.schedule import Step
from rmi_torture.targets import MEMBERS

ENDINGS_S = 5.0


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
                if step.kind in MEMBERS:
                    # It waits until the cluster is safe; the other faults need not wait for it.
                    self._in_background(self._begin(step, stop))
                else:
                    await self._begin(step, stop)
            await self._endings_or(stop)
            if self._endings:
                await asyncio.wait(self._endings, timeout=ENDINGS_S)
        finally:
            for ending in list(self._endings):
                ending.cancel()
            await asyncio.gather(*self._endings, return_exceptions=True)
            for fault in self._faults.values():
                await fault.heal()

    async def _endings_or(self, stop: asyncio.Event) -> None:
        """Wait until all that was begun has ended, or for *stop*."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while self._endings and not stop.is_set():
                await asyncio.wait({*self._endings, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()

    async def _begin(self, step: Step, stop: asyncio.Event) -> None:
        done = await self._faults[step.kind].begin(step.target)
        if done is None:
            return
        self.made[step.kind] += 1
        note = {"target": step.target, "phase": "begin", "lasts_s": step.duration_s}
        self._recorder.info(NEMESIS, step.kind, {**note, **done})
        if step.duration_s:
            self._in_background(self._end(step, stop))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

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

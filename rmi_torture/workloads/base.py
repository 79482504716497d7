"""What all workloads share: processes that have one operation open at a time, and their ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from rmi_runtime.errors import RmiError
from rmi_torture.history import Recorder
from rmi_torture.kept import Kept
from rmi_torture.system_under_test import RunningSystem

PAUSE_S = 0.02
"""How long a client waits after a failure, so that it does not spin while all is down."""


@dataclass(frozen=True)
class Setting:
    """Under which circumstances a workload runs.

    Attributes:
        system: what it works on.
        recorder: where it notes what it asks and gets.
        seed: of its requests.
        timeout_s: how long its clients wait.
        concurrency: how many clients of each kind it has.
        batch: how many operations its batches have.
    """

    system: RunningSystem
    recorder: Recorder
    seed: int
    timeout_s: float = 5.0
    concurrency: int = 4
    batch: int = 32
    processes: Iterator[int] = field(default_factory=itertools.count)

    def rng(self, who: str) -> Random:
        """Return a source of choices that only the seed and the asker's name decide."""
        return Random(f"{self.seed}/{who}")  # noqa: S311 (repeatable on purpose)


class Workload(Protocol):
    """Something to do to a system. What must hold of it is in :mod:`rmi_torture.judgement`."""

    async def prepare(self) -> None:
        """Make what the workload needs, before any fault."""

    def clients(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Return one step of each client: it does an operation or a batch, and returns."""

    async def collect(self) -> Kept:
        """Read what is there when all has calmed down."""

    async def close(self) -> None:
        """Hang up."""


async def run_client(step: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Repeat a client's step until *stop*."""
    while not stop.is_set():
        await step()


class Process:
    """A client process of a history: at most one operation open, a new number after a lost one.

    Args:
        setting: where it runs.
        way: which way it asks, if there are several.
    """

    def __init__(self, setting: Setting, way: str = "") -> None:
        self._recorder = setting.recorder
        self._way = way
        self._numbers = setting.processes
        self.number = next(self._numbers)

    def invoke(self, f: str, asked: Mapping[str, Any]) -> None:
        """Note the beginning."""
        self._recorder.invoke(self.number, f, asked, self._way)

    def ok(self, f: str, asked: Mapping[str, Any], got: Mapping[str, Any]) -> None:
        """Note that it happened, and what it gave."""
        self._recorder.ok(self.number, f, {**asked, **got})

    def failed(
        self, f: str, asked: Mapping[str, Any], code: str, definite: bool, fields: Any, message: str
    ) -> bool:
        """Note that it did not happen, or that nobody knows.

        Returns:
            Whether it certainly did not happen.
        """
        error = {"code": code, "message": message, "fields": fields}
        if definite:
            self._recorder.fail(self.number, f, asked, error)
            return True
        self._recorder.info(self.number, f, asked, error)
        self.number = next(self._numbers)
        return False

    def raised(self, f: str, asked: Mapping[str, Any], error: BaseException) -> bool:
        """Note how it failed; what is not an error of ours tells nothing."""
        if isinstance(error, RmiError):
            fields = {k: v for k, v in error.fields.items() if isinstance(v, (int, str))}
            return self.failed(f, asked, error.code, error.definite, fields, error.message)
        return self.failed(f, asked, "unforeseen", False, {}, repr(error))

"""The stores that fail at random: a messages file, and a Hazelcast cluster that loses members."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.stores import HazelcastMessageQueue, stores_on
from rmi_msg.stores import Page, Stores
from rmi_msg.stores.sqlite import FILE_NAME
from rmi_runtime import Settings, errors
from tests.integration.msg.asked import Stored
from tests.integration.msg.faulty import Faults
from tests.unit.msg.hazelcast_fakes import HereLink, LossyMap

PERSIST_S = 0.4
"""How long an operation on the cluster goes on trying."""


class FaultyStore(Protocol):
    """What the services of a test keep messages in."""

    async def read(self) -> Stored:
        """Return what is stored."""

    def frozen(self) -> contextlib.AbstractContextManager[bool]:
        """Let nobody write; the context manager yields whether it does."""


class MessagesFile:
    """The services' own file; :class:`Faults` has its statements fail."""

    def __init__(self, faults: Faults, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self._path = path / FILE_NAME

    async def read(self) -> Stored:
        return Stored.read(self._path)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[bool]:
        """Stand still in the turn to write, as a process that is stopped does."""
        turn = os.open(f"{self._path}.turn", os.O_RDWR)
        try:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(turn)


class ModelCluster:
    """Maps in memory that lose what is not safe yet, are slow, and cannot be reached."""

    def __init__(self, faults: Faults, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.faults = faults
        self.moves = asyncio.Event()
        self.moves.set()
        self._rng = Random(faults.rng.random())
        self._maps: dict[str, _Map] = {}
        for service in ("logger", "messages"):
            monkeypatch.setattr(f"rmi_msg.{service}.open_stores", self.open_stores)

    @contextlib.asynccontextmanager
    async def open_stores(
        self, settings: Settings, logger_id: int | None = None
    ) -> AsyncIterator[Stores]:
        yield self._stores()

    async def read(self) -> Stored:
        stores = self._stores()
        messages = await _all_rows(stores.messages.page)
        consumed = await _all_rows(stores.consumed.page)
        assert isinstance(stores.queue, HazelcastMessageQueue)
        _, turns = await stores.queue._entry.read()
        return Stored(
            [(row.id, row.text) for row in messages],
            [(row.id, row.by) for row in consumed],
            len(turns.turns),
        )

    @contextlib.contextmanager
    def frozen(self) -> Iterator[bool]:
        self.moves.clear()
        try:
            yield True
        finally:
            self.moves.set()

    def _stores(self) -> Stores:
        return stores_on(Cluster(_Link(self.faults), PERSIST_S, open_table=self._table))

    def _table(self, name: str) -> _Map:
        return self._maps.setdefault(name, _Map(self._rng, self))


class _Link(HereLink):
    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    async def client(self, wait_s: float = 0.0) -> Any:
        if self._faults.happens("no member", self._faults.fails):
            raise errors.Unavailable("no member can be reached")


class _Map(LossyMap):
    def __init__(self, rng: Random, cluster: ModelCluster) -> None:
        super().__init__(rng)
        self._cluster = cluster

    async def _others(self) -> None:
        faults = self._cluster.faults
        self._loss = faults.fails
        if faults.happens("slow", faults.fails / 10):
            await asyncio.sleep(faults.rng.uniform(0, PERSIST_S / 2))
        await self._cluster.moves.wait()
        await super()._others()


async def _all_rows(fetch: Callable[[str | None, int], Awaitable[Page[Any]]]) -> list[Any]:
    page = await fetch(None, 1000)
    rows = list(page.rows)
    while page.next is not None:
        page = await fetch(page.next, 1000)
        rows += page.rows
    return rows

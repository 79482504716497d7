"""A map that behaves like Hazelcast's at its worst, in memory, one step at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link


class Entry(msgspec.Struct, frozen=True):
    """An entry of the least kind there can be."""

    text: str
    block: int


class LossyMap:
    """One map of a cluster that loses members.

    A write is seen by all at once, and becomes safe a moment later, when its writer is told. If the
    owner is lost in between, the key goes back to what was safe, and the writer tries again: as
    :class:`rmi_msg.hazelcast.table.HazelcastTable` does, whose promises this class keeps.

    Args:
        rng: decides when other writers come in between, and what is lost.
        loss: chance that a write is lost before it is safe.
    """

    def __init__(self, rng: random.Random, loss: float = 0.0) -> None:
        self._rng = rng
        self._loss = loss
        self._safe: dict[Any, str] = {}
        self._seen: dict[Any, str] = {}
        self.lost = 0

    def swap(self, key: Any, value: str | None) -> str | None:
        """Put what is at *key* away, for what was lost or was never there; None is nothing."""
        self._safe.pop(key, None)
        before = self._seen.pop(key, None)
        if value is not None:
            self._safe[key] = self._seen[key] = value
        return before

    async def get(self, key: Any) -> str | None:
        await self._others()
        return self._seen.get(key)

    async def get_all(self, keys: Iterable[Any]) -> dict[Any, str]:
        found = {}
        for key in keys:  # not all of one moment
            if (value := await self.get(key)) is not None:
                found[key] = value
        return found

    async def put_if_absent(self, key: Any, value: str) -> str | None:
        attempts = 0
        while True:
            await self._others()
            attempts += 1
            if (there := self._seen.get(key)) is not None:
                if there != value or attempts == 1:
                    return there
                if await self.replace(key, value, value):
                    return None
                continue
            self._seen[key] = value
            if await self._acknowledged(key, value):
                return None

    async def replace(self, key: Any, old: str, new: str) -> bool:
        while True:
            await self._others()
            if self._seen.get(key) != old:
                return False
            self._seen[key] = new
            if await self._acknowledged(key, new):
                return True

    async def _acknowledged(self, key: Any, value: str) -> bool:
        await self._others()
        if self._rng.random() < self._loss:
            # The owner is lost; whether a backup had the write is a matter of luck.
            self.lost += 1
            if key in self._seen and self._rng.random() < 0.5:
                self._safe[key] = self._seen[key]
            elif key in self._safe:
                self._seen[key] = self._safe[key]
            else:
                self._seen.pop(key, None)
            return False
        if self._seen.get(key) == value:
            self._safe[key] = value
            return True
        return False  # lost by somebody else's loss, or written over: the attempt ends unknown

    async def _others(self) -> None:
        for _ in range(self._rng.randrange(3)):
            await asyncio.sleep(0)


class HereLink(Link):
    """A way to a cluster that is always there; its maps are opened otherwise."""

    def __init__(self) -> None:
        super().__init__(["127.0.0.1:1"], "rmi")

    async def client(self, wait_s: float = 0.0) -> Any:
        return None


def lossy_cluster(rng: random.Random, loss: float = 0.0) -> Callable[[], Cluster]:
    """Return what makes one process's view of a cluster of :class:`LossyMap`."""
    maps: dict[str, LossyMap] = {}

    def table(name: str) -> LossyMap:
        return maps.setdefault(name, LossyMap(rng, loss))

    return lambda: Cluster(HereLink(), 60.0, open_table=table)

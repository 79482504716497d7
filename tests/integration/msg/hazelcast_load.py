"""Writers for the tests that break a cluster meanwhile, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator

from rmi_msg.stores import Stores
from rmi_runtime import errors
from tests.support import eventually

WRITERS = 16


class Load:
    """Writers that put one message after the other, and note what they were told.

    Args:
        stores: where to.
        name: the ids begin with it.
        writers: how many.
    """

    def __init__(self, stores: Stores, name: str, writers: int = WRITERS) -> None:
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.stall_s = 0.0
        self._stores = stores
        self._name = name
        self._count = writers
        self._stop = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        writers = [asyncio.create_task(self._write(n)) for n in range(self._count)]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(*writers)

    async def _write(self, writer: int) -> None:
        count = 0
        while not self._stop.is_set():
            id = f"{self._name}-{writer}-{count}"
            count += 1
            began = time.monotonic()
            self.sent.add(id)
            # As callers do: the same id again until there is an answer.
            for _ in range(20):
                try:
                    await self._stores.messages.put_many([(id, id)], "L")
                except errors.RmiError as error:
                    self.refused[error.code] += 1
                else:
                    self.acknowledged.add(id)
                    break
            self.stall_s = max(self.stall_s, time.monotonic() - began)


async def read_ids(stores: Stores) -> list[str]:
    ids, after = [], None
    while True:
        page = await stores.messages.page(after, 1000)
        ids += [row.id for row in page.rows]
        if (after := page.next) is None:
            return ids


async def check_nothing_lost(stores: Stores, *loads: Load) -> None:
    ids = await read_ids(stores)
    assert len(ids) == len(set(ids)), "doubled"
    lost = set().union(*(load.acknowledged for load in loads)) - set(ids)
    assert not lost, f"{len(lost)} acknowledged messages are lost: {sorted(lost)[:5]}"
    assert set(ids) <= set().union(*(load.sent for load in loads)), "invented"


async def enough(load: Load, count: int) -> None:
    more = len(load.acknowledged) + count
    await eventually(lambda: len(load.acknowledged) >= more, timeout_s=60)

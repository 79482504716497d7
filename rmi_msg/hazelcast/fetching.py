"""Entries of ids that are in the order, and so must be there.

What is not there is asked for again until it is found or lost (:mod:`~rmi_msg.hazelcast.missing`);
what is lost is reported, and left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import islice
from typing import Final, Protocol, TypeVar

from rmi_msg.hazelcast import missing
from rmi_msg.hazelcast.missing import Missing

log = logging.getLogger(__name__)

_READ_FIRST: Final = 64
READ_MAX: Final = 128
"""Most entries that are fetched at once, of which each may have the longest text there can be."""

READS_MAX: Final = 4
"""Most fetches under way: many may read pages at the same time."""


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


One = TypeVar("One", bound=_HasId)
Found = TypeVar("Found")


class Fetching:
    """Fetches what belongs to ids in the order, and remembers which ids have lost it."""

    def __init__(self) -> None:
        self._missing: Missing[str] = Missing()
        self._turns = asyncio.Semaphore(READS_MAX)

    async def fetched(
        self, listed: Sequence[One], fetch: Callable[[list[str]], Awaitable[dict[str, Found]]]
    ) -> AsyncIterator[tuple[One, Found]]:
        """Fetch what belongs to ids, in order, some at a time; leave out what is lost.

        Args:
            listed: from the order.
            fetch: returns what there is of some ids.
        """
        rest = iter(listed)
        count = _READ_FIRST
        while some := list(islice(rest, count)):
            found = await self._all([one.id for one in some], fetch)
            for one in some:
                if one.id in found:
                    yield one, found[one.id]
            count = min(2 * count, READ_MAX)

    async def _all(
        self, ids: list[str], fetch: Callable[[list[str]], Awaitable[dict[str, Found]]]
    ) -> dict[str, Found]:
        async with self._turns:
            found = await fetch(ids)
        self._missing.found(found)
        if len(found) == len(ids):
            return found
        now_s = asyncio.get_running_loop().time
        while absent := [id for id in ids if id not in found and not self._missing.given_up(id)]:
            if lost := self._missing.missed(absent, now_s()):
                log.error(
                    "%d entries are lost, %r among them: more members were lost at once than "
                    "there are backups",
                    len(lost),
                    lost[0],
                )
                continue
            await asyncio.sleep(missing.PAUSE_S)
            async with self._turns:
                again = await fetch(absent)
            self._missing.found(again)  # at once: this call may be cut short before its end
            found |= again
        return found

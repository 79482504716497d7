"""Entries of ids that are in the order, and so must be there.

A member that was frozen, and does not know yet that the others went on without it, answers for a
while as if it had none of what came since. So what is not there is asked for again, for as long as
such a member may live. If it is still not there, more members were lost at once than there are
backups: it is reported, and left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import islice
from typing import Final, Protocol, TypeVar

log = logging.getLogger(__name__)

ABSENT_S: Final = 5.0
"""How long what is not there is asked for, in seconds; once per id."""

PAUSE_S: Final = 0.2
"""Pause before it is asked for again, in seconds."""

LOST_MAX: Final = 10_000
"""How many lost ids are remembered; beyond, nothing is asked for again."""

_READ_FIRST: Final = 64
_READ_MAX: Final = 512


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


One = TypeVar("One", bound=_HasId)
Found = TypeVar("Found")


class Fetching:
    """Fetches what belongs to ids in the order, and remembers which ids have lost it."""

    def __init__(self) -> None:
        self._lost: set[str] = set()

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
            count = min(2 * count, _READ_MAX)

    async def _all(
        self, ids: list[str], fetch: Callable[[list[str]], Awaitable[dict[str, Found]]]
    ) -> dict[str, Found]:
        found = await fetch(ids)
        if len(found) == len(ids):
            return found
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ABSENT_S
        while absent := [id for id in ids if id not in found and id not in self._lost]:
            if len(self._lost) >= LOST_MAX:
                break
            if loop.time() > deadline:
                log.error(
                    "%d entries are lost, %r among them: more members were lost at once than "
                    "there are backups",
                    len(absent),
                    absent[0],
                )
                self._lost.update(absent)
                break
            await asyncio.sleep(PAUSE_S)
            found |= await fetch(absent)
        return found

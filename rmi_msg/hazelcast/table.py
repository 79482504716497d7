"""Single steps on one map: each is repeated until its outcome is known.

An attempt may fail with the effect there or not (a member died, a backup did not acknowledge). The
client repeats nothing by itself (``redo_operation`` is off): acknowledgements of a first attempt
would count for the second. Every repetition here is an attempt of its own, and its meaning for the
caller stays exact:

- ``put_if_absent`` returns None only if this very value is there, with its backups acknowledged;
- ``replace`` returns True only if the new value is there, with its backups acknowledged. False says
  that the value is not the old one, which a first attempt may have caused: look, and try again.

How long to go on is the caller's affair: put ``asyncio.timeout`` around.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol, TypeVar, cast

from hazelcast.asyncio import Map
from hazelcast.core import HazelcastJsonValue
from hazelcast.errors import HazelcastError

from rmi_msg.hazelcast.link import Link

log = logging.getLogger(__name__)

Key = TypeVar("Key", int, str)
Result = TypeVar("Result")

PAUSE_S: Final = 0.1
"""Pause before a step is repeated, in seconds."""


class Table(Protocol[Key]):
    """A map from keys to JSON texts. See this module's head for what its steps promise."""

    async def get(self, key: Key) -> str | None:
        """Return the value of *key*, or None."""
        ...

    async def get_all(self, keys: Iterable[Key]) -> dict[Key, str]:
        """Return the values of those *keys* that are there; not all of one moment."""
        ...

    async def put_if_absent(self, key: Key, value: str) -> str | None:
        """Put *value* if there is none; return the one that is there instead."""
        ...

    async def replace(self, key: Key, old: str, new: str) -> bool:
        """Replace *old* by *new*, if *old* is there."""
        ...


class HazelcastTable(Table[Key]):
    """A :class:`Table` on a map of the cluster.

    Args:
        link: the way to the cluster.
        name: name of the map.
    """

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name

    async def get(self, key: Key) -> str | None:
        return _text(await self._persist(lambda m: m.get(key)))

    async def get_all(self, keys: Iterable[Key]) -> dict[Key, str]:
        wanted = list(keys)
        # In a task of its own: it uses a TaskGroup, which, until Python 3.13, may leave a
        # cancellation behind when it fails; that would hit whatever we await next.
        values = await self._persist(lambda m: asyncio.ensure_future(m.get_all(wanted)))
        return {key: value.to_string() for key, value in values.items()}

    async def put_if_absent(self, key: Key, value: str) -> str | None:
        json = HazelcastJsonValue(value)
        step = _Step(lambda m: self._link.put_if_absent(m, key, json))
        while True:
            existing = _text(await self._persist(step))
            if existing != value or step.attempts == 1:
                return existing
            # Ours, from an attempt whose answer was lost.
            if await self.replace(key, value, value):
                return None  # and now its backups are sure
            # It was in a part of the cluster that gave way to the others: put it again.
            await asyncio.sleep(PAUSE_S)

    async def replace(self, key: Key, old: str, new: str) -> bool:
        before, after = HazelcastJsonValue(old), HazelcastJsonValue(new)
        return cast(bool, await self._persist(lambda m: self._link.replace(m, key, before, after)))

    async def _persist(self, step: Callable[[Map[Any, Any]], Awaitable[Result]]) -> Result:
        while True:
            try:
                return await step(await self._link.map(self._name))
            except (HazelcastError, OSError) as error:
                why: BaseException = error
            except asyncio.CancelledError as error:
                # The client lets several callers wait for one thing: if the one among them that
                # does it is cancelled, so are all. Only what was meant for us ends us.
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                why = error
            except BaseExceptionGroup as group:  # get_all asks many members at once
                why = group
                if group.split((HazelcastError, OSError))[1] is not None:
                    raise
            self._link.doubt(why)
            await asyncio.sleep(PAUSE_S)


class _Step:
    """A step that counts its attempts."""

    def __init__(
        self, attempt: Callable[[Map[Any, Any]], Awaitable[HazelcastJsonValue | None]]
    ) -> None:
        self._attempt = attempt
        self.attempts = 0

    def __call__(self, table: Map[Any, Any]) -> Awaitable[HazelcastJsonValue | None]:
        self.attempts += 1
        return self._attempt(table)


def _text(value: HazelcastJsonValue | None) -> str | None:
    return None if value is None else value.to_string()

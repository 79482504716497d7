"""An eye on the cluster: who joined, who was lost, when it is safe for the next loss.

What it sees goes to the log as it changes, and to whoever asks (``rmi status``, ``/readyz``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from rmi_msg.cluster_state import ClusterState, judge
from rmi_msg.hazelcast.cluster import MESSAGES
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.map_stats import BACKUPS, MapStatistics, gather_map_statistics
from rmi_msg.hazelcast.room import Room
from rmi_runtime import errors

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Pause between two looks at the members' statistics, in seconds."""

SETTLE_S: Final = 2.5
"""How long figures may be older than they look, in seconds: members collect them once a second, and
those from before a change of members say nothing about what came after it."""

_LOOKS: Final = 3
"""Members count at moments of their own, up to a second apart: what was written within so many
looks may be in one member's figures and not yet in another's."""


class ClusterWatch:
    """Keeps what one process knows of the cluster.

    Args:
        expected: ``host:port`` of all members that should be there.
        clock: returns seconds, monotonic.
        room: is told how full the members are.
    """

    def __init__(
        self,
        expected: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        room: Room | None = None,
    ) -> None:
        self._room = room or Room()
        self._expected = tuple(expected)
        self._clock = clock
        self._members: tuple[str, ...] = ()
        self._changed_s = clock()
        self._losses: int | None = None
        self._entries: deque[int] = deque(maxlen=_LOOKS)  # at the last looks
        self._silent = False
        self._was_whole = False
        self._said: tuple[object, ...] = ("unreachable",)

    def state(self) -> ClusterState:
        """Return what the cluster is doing, as far as it is known here."""
        return judge(
            self._members,
            self._expected,
            self._losses,
            silent=self._silent,
            was_whole=self._was_whole,
        )

    def on_members(self, members: tuple[str, ...]) -> None:
        """Take note of the members that are there now; none: there is no connection."""
        before = set(self._members)
        if members != self._members:
            self._changed_s = self._clock()
            self._losses, self._silent = None, False
            self._entries.clear()
        self._members = members
        count = f"{len(members)} of {max(len(self._expected), len(members))}"
        for member in sorted(set(members) - before):
            log.info("the cluster has member %s: %s", member, count)
        if members:
            for member in sorted(before - set(members)):
                log.warning("the cluster has lost member %s: %s are left", member, count)
        self._tell()
        self._was_whole = self._was_whole or len(members) >= len(self._expected)

    def on_statistics(self, found: MapStatistics, asked_s: float) -> None:
        """Take note of the members' figures.

        Args:
            found: the figures.
            asked_s: when they were asked for, by the clock.
        """
        self._room.on_figures(found.fill, found.heap_bytes, len(found.rows))
        self._silent = False
        if len(found.rows) != len(self._members) or asked_s - self._changed_s < SETTLE_S:
            return  # of other members, or from before they changed
        self._entries.append(found.entries)
        safety = found.safety
        if safety.migrating or safety.backups_missing > self._just_written():
            self._losses = None
        elif not safety.backups_missing:
            self._losses = safety.losses
        self._tell()

    def _just_written(self) -> int:
        """Return how many backups may seem to be missing, and are only not counted yet.

        None, until the same members were once seen to have all of them: then these do not vanish,
        and what seems to be missing is what is being written.
        """
        if self._losses is None:
            return 0
        return BACKUPS * (max(self._entries) - min(self._entries))

    def on_silence(self) -> None:
        """Take note that a member did not answer."""
        self._silent = bool(self._members)
        self._losses = None
        self._entries.clear()
        self._tell()

    @asynccontextmanager
    async def watching(self, link: Link) -> AsyncIterator[None]:
        """Watch in the background, by *link*."""
        task = asyncio.create_task(self._watch(link))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, link: Link) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                client = await link.client()
                asked_s = self._clock()
                found = await gather_map_statistics(client, MESSAGES, fresh_s=0)
            except errors.RmiError as error:
                log.debug("no statistics: %s", error)
                self.on_silence()
            except Exception:  # whatever it is: a watch that has silently ended says what was
                log.exception("the members' statistics cannot be read, trying on")
                self.on_silence()
            else:
                self.on_statistics(found, asked_s)

    def _tell(self) -> None:
        """Log what the cluster is doing, if that is another than what was said last."""
        now = self.state()
        said = (now.state, now.members, now.losses)
        if said != self._said:
            usual = now.safe or now.state in ("alone", "joining") or not self._was_whole
            log.log(logging.INFO if usual else logging.WARNING, "Hazelcast: %s", now.says)
        self._said = said

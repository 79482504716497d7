"""When a member may leave of its own free will: not while another is only just coming.

Of three members, one that leaves hands its data over, and hardly anybody notices. If a second one
leaves before the first is back, the third is alone, and the one that is coming listens already, but
has not joined: until it has, and has its backups, nothing may be acknowledged
(:mod:`~rmi_msg.hazelcast.others`). So a member that is told to leave stays, and its logger goes on
taking messages, while no more than half of the members would be left and another is on its way; but
for a bounded time. If all of them are told at once, nobody waits, since nobody is coming.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from rmi_msg.hazelcast.locks import try_lock
from rmi_msg.hazelcast.others import enough

log = logging.getLogger(__name__)

RETURN_S: Final = 2.0
"""How long after its end a member may be about to be started again, in seconds."""

LOOK_S: Final = 0.1
"""Pause between two looks, in seconds."""


class Leaving:
    """Looks whether the own member may leave.

    Args:
        address: ``host:port`` of the own member.
        expected: ``host:port`` of all members that there should be.
        running: tells the members whose processes run, in the cluster or not.
        turn_file: of those that waited for the same one, who has the lock on it leaves first.
        wait_s_max: longest wait, in seconds.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self,
        address: str,
        expected: Sequence[str],
        running: Callable[[], Collection[str]],
        turn_file: Path,
        wait_s_max: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._expected = tuple(expected)
        self._running = running
        self._turn_file = turn_file
        self._wait_s_max = wait_s_max
        self._clock = clock
        self._present: tuple[str, ...] = ()
        self._lost_at_s: dict[str, float] = {}
        self._turn_fd: int | None = None
        self._may = False

    def on_members(self, present: tuple[str, ...]) -> None:
        """Take note of the members that are in the cluster now; none: there is no connection."""
        if present:
            now = self._clock()
            self._lost_at_s |= dict.fromkeys(set(self._present) - set(present), now)
        self._present = present

    def awaited(self) -> list[str]:
        """Return the members that are to be waited for; none: the own one may leave."""
        present = self._present
        if self._address not in present or enough(len(present) - 1, len(self._expected)):
            return []
        running = self._running()
        since_s = self._clock() - RETURN_S
        return [
            address
            for address in self._expected
            if address not in present
            and (address in running or self._lost_at_s.get(address, since_s) > since_s)
        ]

    async def wait(self) -> None:
        """Return when the own member may leave, or has waited for as long as it should."""
        try:
            if not self._may and (awaited := self.awaited()):
                log.info("member %s stays until %s has joined", self._address, ", ".join(awaited))
                await self._wait_for_others()
        except OSError as error:  # such as no descriptors left: it has calls to finish all the same
            log.warning("member %s cannot look for others: %s", self._address, error)
        self._may = True

    async def _wait_for_others(self) -> None:
        deadline = self._clock() + self._wait_s_max
        while self.awaited() or not self._has_turn():
            if self._clock() > deadline:
                log.warning("member %s waits no longer", self._address)
                break
            await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        """Let the next one leave: this one has left."""
        fd, self._turn_fd = self._turn_fd, None
        if fd is not None:
            os.close(fd)

    def _has_turn(self) -> bool:
        if self._turn_fd is None:
            fd = os.open(self._turn_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not try_lock(fd):
                os.close(fd)
                return False
            self._turn_fd = fd
        return True

"""Parcels that need what somebody holds for long, kept apart so that the others go on.

A round locks all that its operations touch, or nothing: with one account in it that is not to be
had for seconds, hundreds of operations on others would wait as long, and keep everybody else from
theirs. So a lock that is tried with patience names what is held up. Each such set of keys has a
*lane* here, where the parcels that need one of them wait, until locking these keys by themselves,
which keeps nobody from anything else, shows that they are free. If only some of them are still
held, the lane lets go of the others: its tries would keep everybody from these.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from rmi_bank.errors import LockTimeout
from rmi_bank.locks import Key
from rmi_bank.operations import Refused
from rmi_bank.parcels import Parcel
from rmi_runtime.errors import RmiError

LANES_MAX = 256
"""Most sets of keys that are waited for at once."""

PROBE_S = 2.0
"""How long one try to lock the keys of a lane waits, in seconds."""

PAUSE_S = 0.01
"""Pause between two tries, in seconds."""

Probe = Callable[[list[Key], float], Awaitable[None]]
"""Locks keys and frees them again, waiting at most so many seconds."""


@dataclass(eq=False, slots=True)
class _Lane:
    keys: list[Key]
    parcels: dict[Parcel, asyncio.TimerHandle] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class HeldUp:
    """The lanes.

    Args:
        probe: tries to lock what a lane waits for. Raises ``LockTimeout`` while it is held, with
            the names of what is, if they are known.
        back: takes the parcels of a lane that has ended, in their order.
        refuse: takes a parcel whose time is up, and what to refuse it with.
        size_max: most operations that have come here and are not over yet; for more there is no
            waiting, unless a single parcel has more.
    """

    def __init__(
        self,
        probe: Probe,
        back: Callable[[Iterable[Parcel]], None],
        refuse: Callable[[Parcel, LockTimeout], None],
        size_max: int,
    ) -> None:
        self._probe = probe
        self._back = back
        self._refuse = refuse
        self._size_max = size_max
        self._size = 0
        self._lanes: set[_Lane] = set()
        self._by_key: dict[Key, _Lane] = {}
        self._closed = False

    def __bool__(self) -> bool:
        """Whether anything is held up."""
        return bool(self._lanes)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What goes on here."""
        return {lane.task for lane in self._lanes if lane.task is not None}

    def learn(self, error: LockTimeout) -> bool:
        """Take note of what *error* says is held.

        Returns:
            Whether it says so, and somebody can still wait here.
        """
        named = [] if self._closed else _named(error)
        new = [key for key in named if key not in self._by_key]
        if new and len(self._lanes) < LANES_MAX:
            lane = _Lane(new)
            self._lanes.add(lane)
            self._by_key.update(dict.fromkeys(new, lane))
            lane.task = asyncio.get_running_loop().create_task(self._wait(lane))
        return bool(named)

    def refuses(self, parcel: Parcel, error: LockTimeout) -> bool:
        """Say whether *parcel* was refused, as it needs what *error* names and no lane waits for.

        A loose one goes on without that.
        """
        crowded = set(_named(error)).difference(self._by_key)
        if crowded.isdisjoint(parcel.needed()):
            return False
        if parcel.loose:
            parcel.leave_out(crowded, Refused.from_error(refusal()))
            return False
        self._refuse(parcel, refusal())
        return True

    def keeps(self, parcel: Parcel) -> bool:
        """Say whether *parcel* waits here now, or was refused as too many do.

        A loose one goes on without what is held.
        """
        lane = next((self._by_key[key] for key in parcel.needed() if key in self._by_key), None)
        if lane is None:
            return False
        if parcel.loose:
            parcel.leave_out(self._by_key.keys(), Refused.from_error(refusal()))
            return False
        if not self._admits(parcel):
            self._refuse(parcel, refusal())
            return True
        delay_s = max(0.0, parcel.deadline_s - time.monotonic())
        loop = asyncio.get_running_loop()
        lane.parcels[parcel] = loop.call_later(delay_s, self._too_late, lane, parcel)
        return True

    def _admits(self, parcel: Parcel) -> bool:
        if not parcel.held_up:
            if self._size and self._size + parcel.size > self._size_max:
                return False
            parcel.held_up = True
            self._size += parcel.size
        return True

    def forget(self, parcel: Parcel) -> None:
        """Take note that *parcel* is over."""
        if parcel.held_up:
            self._size -= parcel.size

    async def aclose(self) -> None:
        """Give up; the parcels go back, and nothing new is taken note of."""
        self._closed = True
        tasks = self.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in list(self._lanes):  # cancelled before its first step
            self._end(lane)

    async def _wait(self, lane: _Lane) -> None:
        try:
            while True:
                try:
                    await self._probe(lane.keys, PROBE_S)
                except LockTimeout as error:
                    self._narrow(lane, set(_named(error)))
                    await asyncio.sleep(PAUSE_S)
                    continue
                except RmiError:
                    pass  # whoever needs the keys will meet the same, and knows what to do
                break
        finally:
            self._end(lane)

    def _end(self, lane: _Lane) -> None:
        self._lanes.discard(lane)
        for key in lane.keys:
            del self._by_key[key]
        for timer in lane.parcels.values():
            timer.cancel()
        self._back(lane.parcels)

    def _narrow(self, lane: _Lane, named: set[Key]) -> None:
        """Let go of the keys of *lane* that are not *named*, and of the parcels that need no other.

        What another has taken meanwhile is not free as a whole, perhaps for long.
        """
        held = named.intersection(lane.keys)
        if not held:
            return  # nobody knows
        for key in held.symmetric_difference(lane.keys):
            del self._by_key[key]
        lane.keys = [key for key in lane.keys if key in held]
        back = [parcel for parcel in lane.parcels if held.isdisjoint(parcel.needed())]
        for parcel in back:
            lane.parcels.pop(parcel).cancel()
        self._back(back)

    def _too_late(self, lane: _Lane, parcel: Parcel) -> None:
        del lane.parcels[parcel]
        self._refuse(parcel, refusal())


def _named(error: LockTimeout) -> list[Key]:
    return [*error.fields.get("accounts", ()), *error.fields.get("request_ids", ())]


def refusal() -> LockTimeout:
    """Return what clients are told; what others hold is not for them to know."""
    return LockTimeout("another has held an account or request id of it for long; try again")

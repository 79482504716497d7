"""Gathers operations of many callers into rounds.

Each caller hands in a *parcel*: its operations, and until when it waits. While rounds are under way
parcels gather, and go together as the next one; a parcel is never split, so its operations keep
their order. Like :class:`rmi_runtime.Coalescer`, but bounded by operations instead of calls.

What a round cannot lock, because somebody holds it for long, is put aside
(:mod:`rmi_bank.held_up`), and the round goes on without.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TypeVar

from rmi_bank.errors import LockTimeout
from rmi_bank.execution import Unfinished
from rmi_bank.held_up import HeldUp, Probe, refusal
from rmi_bank.operations import Outcome, Refused, Request
from rmi_bank.parcels import Parcel
from rmi_runtime.errors import (
    Definite,
    Draining,
    Interrupted,
    InvalidRequest,
    Overloaded,
    RmiError,
)

CONCURRENCY = 2
"""Rounds under way at once: while one is being written the next one already waits for its lock."""

RETURNS_MAX = 2
"""How often a parcel comes back to find that others were faster, before it waits in turn."""

TURN_S_MIN = 0.1
"""Least time that is worth another turn, in seconds: so callers that came together do not leave the
data object with one last, vain call each."""

T = TypeVar("T")

Run = Callable[[list[Request], float], Awaitable[list[Outcome]]]
"""Carries out a round: requests, and when to give up."""


class Rounds:
    """A bounded queue of parcels in front of something that carries out rounds.

    Args:
        run: carries out one round.
        round_max: most operations in a round, unless a single parcel has more.
        queue_max: most operations waiting or under way, unless a single parcel has more. Those that
            somebody has held up may be half of them.
        probe: locks keys and frees them again. With it, a round whose *run* raises a
            ``LockTimeout`` that names what is held goes on without that.
        patiently: as *run*, but for parcels that others have overtaken again and again: it waits
            in turn for what they need. None: *run*.
    """

    def __init__(
        self,
        run: Run,
        *,
        round_max: int,
        queue_max: int,
        probe: Probe | None = None,
        patiently: Run | None = None,
    ) -> None:
        self._run = run
        self._patiently = patiently or run
        self._round_max = round_max
        self._queue_max = queue_max
        self._count = 0  # operations waiting or under way
        self._queue: deque[Parcel] = deque()
        # Those that wait in turn, and what ends their waiting.
        self._overtaken: OrderedDict[Parcel, asyncio.TimerHandle] = OrderedDict()
        self._pumps: set[asyncio.Task[None]] = set()
        self._patient_pump: asyncio.Task[None] | None = None
        self._starting = False  # a pump was made in this turn, and has taken nothing yet
        self._closed = False
        self._stopped = False  # no round is begun any more
        self._held_up: HeldUp | None = None
        if probe is not None:
            self._held_up = HeldUp(probe, self._take_back, self._fail, queue_max // 2)

    def submit(
        self,
        requests: list[Request],
        deadline_s: float,
        form: Callable[[list[Outcome]], T] = list,  # type: ignore[assignment]
        *,
        loose: bool = False,
    ) -> asyncio.Future[T]:
        """Have *requests* carried out in some round.

        Args:
            requests: in order.
            deadline_s: by the monotonic clock; until when the caller waits.
            form: makes what the caller wants of the outcomes, one per request.
            loose: they have nothing to do with each other: if somebody holds for long what one of
                them needs, that one is refused (``LockTimeout``), and the others go on.

        Returns:
            A future of what *form* returns, or of what carrying out the round raised.

        Raises:
            Overloaded: too many operations are waiting.
            Draining: closed.
        """
        if self._closed:
            raise Draining("this business object is leaving; ask another one")
        if self._count and self._count + len(requests) > self._queue_max:
            raise Overloaded(
                f"{self._count} operations are waiting here, which is the bound; try again "
                "shortly, or elsewhere",
                retry_after_s=1,
            )
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not requests:
            answer.set_result(form([]))
            return answer
        self._queue.append(Parcel(requests, deadline_s, answer, form, loose))
        self._count += len(requests)
        self._start()
        return answer

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """Take nothing new, and finish what waits.

        Args:
            timeout_s: how long that may last; then what waits fails, and what is under way ends as
                ``Interrupted``.
        """
        self._closed = True
        end_s = time.monotonic() + timeout_s
        while (busy := self._busy()) and (left_s := end_s - time.monotonic()) > 0:
            await asyncio.wait(busy, timeout=left_s)
        self._stopped = True
        if self._held_up is not None:
            await self._held_up.aclose()
        for parcel in (*self._queue, *self._overtaken):
            self._fail(parcel, Draining("closed before this was begun"))
        for timer in self._overtaken.values():
            timer.cancel()
        self._queue.clear()
        self._overtaken.clear()
        pumps = self._busy()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    def _busy(self) -> set[asyncio.Task[None]]:
        busy = set(self._pumps)
        if self._patient_pump is not None:
            busy.add(self._patient_pump)
        return busy if self._held_up is None else busy | self._held_up.tasks

    def _start(self) -> None:
        if self._stopped:
            return
        if self._queue and not self._starting and len(self._pumps) < CONCURRENCY:
            self._starting = True
            pump = asyncio.get_running_loop().create_task(self._pump())
            self._pumps.add(pump)
            pump.add_done_callback(self._ended)
        if self._overtaken and self._patient_pump is None:
            self._patient_pump = asyncio.get_running_loop().create_task(self._wait_in_turn())
            self._patient_pump.add_done_callback(self._waited_in_turn)

    def _ended(self, pump: asyncio.Task[None]) -> None:
        self._pumps.discard(pump)
        self._starting = False  # also if it was cancelled before its first step
        self._start()

    async def _pump(self) -> None:
        """Carry out rounds until nothing waits."""
        self._starting = False
        while parcels := self._take(self._queue, self._queue.popleft):
            self._start()
            await self._round(parcels)

    async def _wait_in_turn(self) -> None:
        """Do the same for those that others have overtaken; they take no pump from the rest."""
        while parcels := self._take(self._overtaken, self._next_in_turn):
            await self._round(parcels, in_turn=True)

    def _waited_in_turn(self, pump: asyncio.Task[None]) -> None:
        self._patient_pump = None
        self._start()

    def _next_in_turn(self) -> Parcel:
        parcel, timer = self._overtaken.popitem(last=False)
        timer.cancel()
        return parcel

    def _take(self, queue: Collection[Parcel], pop: Callable[[], Parcel]) -> list[Parcel]:
        """Take parcels for a round off a queue, without those nobody waits for any more."""
        parcels: list[Parcel] = []
        size = 0
        while queue and not self._stopped:
            parcel = next(iter(queue))
            size += len(parcel.requests)
            if parcels and size > self._round_max:
                break
            pop()
            if parcel.answer.done():
                size -= len(parcel.requests)
                self._forget(parcel)
            elif not self._held_up or self._may_go(parcel):
                parcels.append(parcel)
        return parcels

    def _may_go(self, parcel: Parcel) -> bool:
        """Say whether there is something of *parcel* to be done now; if not, see to it."""
        if self._held_up is not None and self._held_up.keeps(parcel):
            return False
        if not parcel.requests:
            self._settle(parcel, [])
            return False
        return True

    def _take_back(self, parcels: Iterable[Parcel]) -> None:
        """Let parcels that were put aside be the next ones."""
        for parcel in reversed(list(parcels)):
            parcel.returns += 1
            if parcel.returns >= RETURNS_MAX:
                self._line_up(parcel)
            else:
                self._queue.appendleft(parcel)
        self._start()

    def _line_up(self, parcel: Parcel) -> None:
        """Let *parcel* be the next to wait in turn, but no longer than its caller waits."""
        delay_s = max(0.0, parcel.deadline_s - time.monotonic())
        loop = asyncio.get_running_loop()
        self._overtaken[parcel] = loop.call_later(delay_s, self._too_late, parcel)
        self._overtaken.move_to_end(parcel, last=False)

    def _too_late(self, parcel: Parcel) -> None:
        del self._overtaken[parcel]
        self._fail(parcel, refusal())

    async def _round(self, parcels: list[Parcel], *, in_turn: bool = False) -> None:
        try:
            await self._carry_out(parcels, in_turn)
        except BaseException:
            error = Interrupted("stopped half-way; ask again with the same request ids")
            self._fail_all([parcel for parcel in parcels if not parcel.over], error)
            raise

    async def _carry_out(self, parcels: list[Parcel], in_turn: bool) -> None:
        """Answer *parcels*; those that together are refused as a request are tried in halves."""
        requests = [request for parcel in parcels for request in parcel.requests]
        # A round that waits in turn may wait for long: nobody in it is kept beyond its own time.
        last, run = (min, self._patiently) if in_turn else (max, self._run)
        deadline_s = last(parcel.deadline_s for parcel in parcels)
        try:
            outcomes = await run(requests, deadline_s)
        except InvalidRequest as error:  # such as more bytes than a message may have
            if len(parcels) > 1:
                half = len(parcels) // 2
                await self._carry_out(parcels[:half], in_turn)
                await self._carry_out(parcels[half:], in_turn)
            else:
                self._fail_all(parcels, error)
        except LockTimeout as error:
            if rest := self._without_held(parcels, error, deadline_s):
                await self._carry_out(rest, in_turn)
        except Unfinished as failed:
            rest = self._settle_known(parcels, failed.on_record, failed.error, deadline_s)
            self._give_up(rest, failed.error, deadline_s)
        except Exception as error:
            self._give_up(parcels, error, deadline_s)
        else:
            start = 0
            for parcel in parcels:
                end = start + len(parcel.requests)
                self._settle(parcel, outcomes[start:end])
                start = end

    def _without_held(
        self, parcels: list[Parcel], error: LockTimeout, deadline_s: float
    ) -> list[Parcel]:
        """Return what can go on without what *error* names; see to the others."""
        held_up = self._held_up
        if held_up is None or not held_up.learn(error):
            named = "accounts" in error.fields
            self._give_up(parcels, refusal() if named else error, deadline_s)
            return []
        left = [parcel for parcel in parcels if not held_up.refuses(parcel, error)]
        return [parcel for parcel in left if self._may_go(parcel)]

    def _settle_known(
        self,
        parcels: list[Parcel],
        on_record: Mapping[int, Outcome],
        error: RmiError,
        deadline_s: float,
    ) -> list[Parcel]:
        """Answer those of *parcels* with operations whose outcomes are *on_record*, by place.

        Their other operations have come to *error*. Returns the parcels that were not answered:
        without any such operation, or with more time.
        """
        rest = []
        start = 0
        for parcel in parcels:
            end = start + len(parcel.requests)
            known = [on_record.get(place) for place in range(start, end)]
            start = end
            if not any(known) or (None in known and self._has_more_time(parcel, error, deadline_s)):
                rest.append(parcel)
            else:
                refused = Refused.from_error(error)
                self._settle(parcel, [outcome or refused for outcome in known])
        return rest

    def _give_up(self, parcels: list[Parcel], error: Exception, deadline_s: float) -> None:
        """Fail those of *parcels* that a round has ended for; who has more time lines up again."""
        for parcel in reversed(parcels):
            if self._has_more_time(parcel, error, deadline_s):
                self._line_up(parcel)
            else:
                self._fail(parcel, error)

    def _has_more_time(self, parcel: Parcel, error: Exception, deadline_s: float) -> bool:
        """Say whether *parcel* can be tried again after a round that ended at *deadline_s*."""
        again = isinstance(error, Definite) and not self._stopped
        return again and parcel.deadline_s - deadline_s > TURN_S_MIN

    def _settle(self, parcel: Parcel, outcomes: list[Outcome]) -> None:
        parcel.settle(outcomes)
        self._forget(parcel)

    def _fail(self, parcel: Parcel, error: Exception) -> None:
        parcel.fail(error)
        self._forget(parcel)

    def _fail_all(self, parcels: Iterable[Parcel], error: Exception) -> None:
        for parcel in parcels:
            self._fail(parcel, error)

    def _forget(self, parcel: Parcel) -> None:
        self._count -= parcel.size
        if self._held_up is not None:
            self._held_up.forget(parcel)

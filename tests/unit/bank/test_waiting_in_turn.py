"""Operations that others have overtaken wait in turn, but no longer than their callers."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest

from rmi_bank.errors import LockTimeout, StoreFull
from rmi_bank.execution import Unfinished
from rmi_bank.operations import Deposit, Done, Outcome, Principal, Request
from rmi_bank.rounds import Rounds
from rmi_runtime.errors import Definite, Interrupted, Unavailable
from tests.support import eventually

HELD = (5, 6)


def deposit(account: int) -> list[Request]:
    return [(Principal(1, "teller"), Deposit(account, 1, f"r{account}"))]


class Crowd:
    """A bank in which others are always faster at :data:`HELD`, but for those in turn."""

    def __init__(self) -> None:
        self.in_turn: list[tuple[list[int], float]] = []
        self.turn = asyncio.Event()
        self.errors: list[Exception] = []
        self.rounds = Rounds(
            self.run, round_max=100, queue_max=100, probe=self.probe, patiently=self.patiently
        )

    async def run(self, requests: list[Request], deadline_s: float) -> list[Outcome]:
        accounts = [operation.account for _, operation in requests]  # type: ignore[union-attr]
        if held := sorted({account for account in accounts if account in HELD}):
            raise LockTimeout("another was faster", accounts=held)
        return [Done(account, 0) for account in accounts]

    async def probe(self, keys: object, wait_s: float) -> None:
        pass

    async def patiently(self, requests: list[Request], deadline_s: float) -> list[Outcome]:
        accounts = [operation.account for _, operation in requests]  # type: ignore[union-attr]
        self.in_turn.append((accounts, deadline_s))
        if self.errors:
            raise self.errors.pop(0)
        await self.turn.wait()
        return [Done(account, 0) for account in accounts]

    def submit(self, account: int, wait_s: float) -> tuple[float, asyncio.Future[list[Outcome]]]:
        deadline_s = time.monotonic() + wait_s
        return deadline_s, self.rounds.submit(deposit(account), deadline_s)


async def test_who_waits_for_its_turn_is_refused_when_its_caller_stops_waiting() -> None:
    crowd = Crowd()
    _, first = crowd.submit(5, 60)
    await eventually(lambda: crowd.in_turn != [])
    _, hurried = crowd.submit(6, 0.05)
    done, _ = await asyncio.wait([hurried], timeout=10)
    assert done, "it waits behind one that may take a minute"
    with pytest.raises(LockTimeout):
        hurried.result()
    assert not first.done()
    crowd.turn.set()
    assert await first == [Done(5, 0)]
    assert [accounts for accounts, _ in crowd.in_turn] == [[5]]
    assert crowd.rounds._count == 0


@pytest.mark.parametrize("error", [LockTimeout("in use"), Unavailable("away")])
async def test_a_turn_ends_with_the_first_of_its_callers_and_the_others_have_another(
    error: Definite,
) -> None:
    crowd = Crowd()
    crowd.errors = [error]
    crowd.turn.set()
    ends_s, patient = crowd.submit(5, 60)
    hurried_ends_s, hurried = crowd.submit(6, 30)
    _, last = crowd.submit(6, 90)
    with pytest.raises(type(error)):
        await hurried
    assert await patient == [Done(5, 0)]
    assert await last == [Done(6, 0)]
    assert crowd.in_turn == [([5, 6, 6], hurried_ends_s), ([5, 6], ends_s)]
    assert crowd.rounds._count == 0


async def test_in_a_turn_that_fails_who_has_more_time_tries_again_unless_all_is_on_record() -> None:
    crowd = Crowd()
    crowd.turn.set()
    full = StoreFull("no room")
    crowd.errors = [Unfinished(full, {1: Done(60, 1), 2: Done(51, 2)})]
    hurried_ends_s, hurried = crowd.submit(5, 30)
    _, known = crowd.submit(6, 60)
    both_end_s = time.monotonic() + 90
    both = crowd.rounds.submit([*deposit(5), *deposit(6)], both_end_s)
    with pytest.raises(StoreFull):
        await hurried
    assert await known == [Done(60, 1)]
    assert await both == [Done(5, 0), Done(6, 0)], "its own time was not over"
    assert crowd.in_turn == [([5, 6, 5, 6], hurried_ends_s), ([5, 6], both_end_s)]
    assert crowd.rounds._count == 0


async def test_those_whose_time_is_all_but_over_too_have_no_other_turn() -> None:
    crowd = Crowd()
    crowd.errors = [LockTimeout("in use")]
    crowd.turn.set()
    waiting = [crowd.submit(account, 30 + account / 1000)[1] for account in HELD]
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ended] == [LockTimeout, LockTimeout]
    assert len(crowd.in_turn) == 1
    assert crowd.rounds._count == 0


async def test_what_may_have_happened_in_a_turn_is_told_to_all_of_it() -> None:
    crowd = Crowd()
    crowd.errors = [Interrupted("nobody knows")]
    waiting = [crowd.submit(account, 30 * account)[1] for account in HELD]
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ended] == [Interrupted, Interrupted]
    assert len(crowd.in_turn) == 1
    assert crowd.rounds._count == 0


async def test_nothing_is_kept_of_those_whose_turn_came() -> None:
    crowd = Crowd()
    crowd.turn.set()
    waiting = [crowd.submit(account, 600)[1] for account in HELD]
    await asyncio.gather(*waiting)
    assert len(crowd.in_turn) == 1
    answers = [weakref.ref(one) for one in waiting]
    del waiting

    def is_gone() -> bool:
        gc.collect()
        return not any(answer() for answer in answers)

    await eventually(is_gone)  # else a timer keeps them for ten minutes

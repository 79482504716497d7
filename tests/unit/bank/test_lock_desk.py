"""The lock table with its timer."""

from __future__ import annotations

import asyncio
import time

import pytest

from rmi_bank.errors import LockTimeout
from rmi_bank.lock_desk import LockDesk
from rmi_bank.locks import State


async def test_a_lease_that_was_waited_for_ends_at_its_time_and_lets_the_next_one_in() -> None:
    desk = LockDesk(lease_s=10.0, tickets_max=9, clock=time.monotonic)
    desk.open(1)
    first, _ = desk.acquire("first", [1], wait_s=0.0)
    second, turn = desk.acquire("second", [1], wait_s=60.0, lease_s=0.02)
    assert turn is not None
    desk.release(first)
    await turn
    third, turn = desk.acquire("third", [1], wait_s=60.0)
    assert turn is not None
    async with asyncio.timeout(5):  # all others end later than that
        await turn
    assert (second.state, third.state) == (State.OVER, State.HELD)
    assert desk.expired == 1


async def test_nothing_is_kept_of_who_stops_waiting() -> None:
    desk = LockDesk(lease_s=10.0, tickets_max=9, clock=time.monotonic)
    desk.open(1)
    desk.acquire("first", [1], wait_s=0.0)
    second, _ = desk.acquire("second", [1], wait_s=60.0)
    desk.release(second)
    assert (len(desk), len(desk._waiting)) == (1, 0)


async def test_who_gives_up_as_the_time_is_over_keeps_nobody_else_from_hearing_of_it() -> None:
    now_s = 0.0
    desk = LockDesk(lease_s=0.1, tickets_max=9, clock=lambda: now_s)
    desk.open(1)
    desk.acquire("holder", [1], wait_s=0.0)
    _, given_up = desk.acquire("gives up", [1], wait_s=0.01)
    _, waiting = desk.acquire("waits", [1], wait_s=0.01)
    assert given_up is not None
    assert waiting is not None
    given_up.cancel()  # its callbacks, which release the ticket, have not run yet
    now_s = 0.05
    with pytest.raises(LockTimeout):
        async with asyncio.timeout(5):
            await waiting
    next_ticket, turn = desk.acquire("next", [1], wait_s=60.0)
    assert turn is not None
    now_s = 0.1
    async with asyncio.timeout(5):
        await turn
    assert next_ticket.state is State.HELD

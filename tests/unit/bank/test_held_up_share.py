"""However many operations somebody holds up, others have room."""

from __future__ import annotations

import asyncio
import time

import pytest

from rmi_bank.errors import LockTimeout
from rmi_bank.operations import Deposit, Done, Outcome, Principal, Request
from rmi_bank.rounds import Rounds
from tests.support import eventually

HELD, QUEUE_MAX = 5, 100


class Bank:
    """One account of it is held, until it is let go."""

    def __init__(self) -> None:
        self.others_are_faster = self.in_turn = False
        self.free = asyncio.Event()
        self.probed = asyncio.Event()
        self.rounds = Rounds(
            self.run, round_max=10, queue_max=QUEUE_MAX, probe=self.probe, patiently=self.patiently
        )

    async def run(self, requests: list[Request], deadline_s: float) -> list[Outcome]:
        accounts = [operation.account for _, operation in requests]  # type: ignore[union-attr]
        if HELD in accounts and not self.free.is_set():
            raise LockTimeout("held", accounts=[HELD])
        return [Done(account, 0) for account in accounts]

    async def probe(self, keys: object, wait_s: float) -> None:
        self.probed.set()
        if not self.others_are_faster:
            await self.free.wait()

    async def patiently(self, requests: list[Request], deadline_s: float) -> list[Outcome]:
        self.in_turn = True
        await self.free.wait()
        return await self.run(requests, deadline_s)

    def submit(self, account: int, size: int) -> asyncio.Future[list[Outcome]]:
        requests: list[Request] = [
            (Principal(1, "teller"), Deposit(account, 1, f"r{account}-{n}")) for n in range(size)
        ]
        return self.rounds.submit(requests, time.monotonic() + 60)


async def test_operations_on_a_held_account_leave_half_of_the_room_to_others() -> None:
    bank = Bank()
    waiting = [bank.submit(HELD, 10)]
    await bank.probed.wait()
    waiting += [bank.submit(HELD, 10) for _ in range(QUEUE_MAX // 10 - 1)]
    await eventually(lambda: sum(one.done() for one in waiting) == 5)
    for one in waiting[5:]:
        with pytest.raises(LockTimeout) as caught:
            one.result()
        assert not caught.value.fields
    assert await bank.submit(7, QUEUE_MAX // 2) == [Done(7, 0)] * (QUEUE_MAX // 2)
    bank.free.set()
    assert await asyncio.gather(*waiting[:5]) == [[Done(HELD, 0)] * 10] * 5
    assert bank.rounds._count == 0


async def test_the_room_of_those_that_are_over_is_free_again() -> None:
    bank = Bank()
    for _ in range(3):
        bank.free.clear()
        bank.probed.clear()
        waiting = [bank.submit(HELD, 25) for _ in range(2)]
        await bank.probed.wait()
        bank.free.set()
        assert [len(each) for each in await asyncio.gather(*waiting)] == [25, 25]


async def test_those_that_wait_in_turn_count_too() -> None:
    bank = Bank()
    bank.others_are_faster = True
    waiting = bank.submit(HELD, 50)
    await eventually(lambda: bank.in_turn)
    more = bank.submit(HELD, 10)
    await eventually(more.done)
    with pytest.raises(LockTimeout):
        more.result()
    bank.free.set()
    assert len(await waiting) == 50


async def test_a_single_large_parcel_may_wait() -> None:
    bank = Bank()
    waiting = bank.submit(HELD, QUEUE_MAX)
    await bank.probed.wait()
    bank.free.set()
    assert len(await waiting) == QUEUE_MAX

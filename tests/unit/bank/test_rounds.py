"""Gathering operations into rounds."""

from __future__ import annotations

import asyncio

import pytest

from rmi_bank.errors import StoreFull
from rmi_bank.execution import Unfinished
from rmi_bank.operations import BalanceQuery, Done, Outcome, Principal, Refused, Request
from rmi_bank.rounds import CONCURRENCY, Rounds
from rmi_runtime.errors import Draining, Interrupted, InvalidRequest, Overloaded, RmiError
from tests.support import turns

PRINCIPAL = Principal(1, "teller")


def parcel(*accounts: int) -> list[Request]:
    return [(PRINCIPAL, BalanceQuery(account)) for account in accounts]


class Bench:
    """Carries out rounds when the test says so."""

    def __init__(self) -> None:
        self.rounds: list[tuple[list[int], float]] = []
        self.gate = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def run(self, requests: list[Request], deadline_s: float) -> list[Outcome]:
        accounts = [operation.account for _, operation in requests]  # type: ignore[union-attr]
        self.rounds.append((accounts, deadline_s))
        await self.gate.acquire()
        if self.error is not None:
            raise self.error
        return [Done(account, 0) for account in accounts]

    def open(self) -> None:
        for _ in range(1000):
            self.gate.release()


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_comes_in_one_turn_goes_in_one_round(bench: Bench) -> None:
    rounds = Rounds(bench.run, round_max=10, queue_max=100)
    bench.open()
    found = await asyncio.gather(
        rounds.submit(parcel(1, 2), 5.0), rounds.submit(parcel(3), 9.0), rounds.submit([], 1.0)
    )
    assert found == [[Done(1, 0), Done(2, 0)], [Done(3, 0)], []]
    assert bench.rounds == [([1, 2, 3], 9.0)]


async def test_what_comes_while_rounds_are_under_way_gathers(bench: Bench) -> None:
    rounds = Rounds(bench.run, round_max=10, queue_max=100)
    tasks = []
    for account in range(1, 8):
        tasks.append(asyncio.ensure_future(rounds.submit(parcel(account), 1.0)))
        await turns()
    assert [accounts for accounts, _ in bench.rounds] == [[1], [2]]
    assert len(bench.rounds) == CONCURRENCY
    bench.gate.release()
    await turns()
    assert [accounts for accounts, _ in bench.rounds] == [[1], [2], [3, 4, 5, 6, 7]]
    bench.open()
    await asyncio.gather(*tasks)


async def test_a_parcel_is_never_split_and_a_round_is_bounded(bench: Bench) -> None:
    rounds = Rounds(bench.run, round_max=3, queue_max=100)
    bench.open()
    parcels = [parcel(1, 2), parcel(3, 4), parcel(5, 6, 7, 8, 9), parcel(10)]
    found = await asyncio.gather(*(rounds.submit(one, 1.0) for one in parcels))
    assert [len(one) for one in found] == [2, 2, 5, 1]
    assert [accounts for accounts, _ in bench.rounds] == [[1, 2], [3, 4], [5, 6, 7, 8, 9], [10]]


async def test_too_many_operations_are_refused_until_there_is_room(bench: Bench) -> None:
    rounds = Rounds(bench.run, round_max=2, queue_max=4)
    first = asyncio.ensure_future(rounds.submit(parcel(1, 2, 3), 1.0))
    await turns()
    with pytest.raises(Overloaded):
        await rounds.submit(parcel(4, 5), 1.0)
    bench.open()
    await first
    assert await rounds.submit(parcel(4, 5), 1.0)
    assert len(await rounds.submit(parcel(*range(10)), 1.0)) == 10, "alone, even a big one goes"


async def test_an_error_is_everybodys_in_the_round_and_nobody_elses(bench: Bench) -> None:
    rounds = Rounds(bench.run, round_max=10, queue_max=100)
    bench.error = ValueError("no")
    bench.open()
    ended = await asyncio.gather(
        rounds.submit(parcel(1), 1.0), rounds.submit(parcel(2), 1.0), return_exceptions=True
    )
    assert [type(end) for end in ended] == [ValueError, ValueError]
    bench.error = None
    assert await rounds.submit(parcel(3), 1.0) == [Done(3, 0)]


@pytest.mark.parametrize("error", [StoreFull("no room"), Interrupted("nobody knows")])
async def test_who_asks_again_for_what_is_on_record_is_told_though_the_round_has_failed(
    bench: Bench, error: RmiError
) -> None:
    rounds = Rounds(bench.run, round_max=10, queue_max=100)
    bench.error = Unfinished(error, {1: Done(2, 7), 3: Done(4, 8)})
    bench.open()
    new, again, both = await asyncio.gather(
        rounds.submit(parcel(1), 1.0),
        rounds.submit(parcel(2), 1.0),
        rounds.submit(parcel(3, 4), 1.0),
        return_exceptions=True,
    )
    assert new is error, "nothing of it is on record"
    assert again == [Done(2, 7)]
    assert both == [Refused.from_error(error), Done(4, 8)]
    assert rounds._count == 0


async def test_what_is_refused_together_is_tried_in_halves(bench: Bench) -> None:
    carried: list[int] = []

    async def run(requests: list[Request], deadline_s: float) -> list[Outcome]:
        if len(requests) > 2:
            raise InvalidRequest("too much at once")
        outcomes = await bench.run(requests, deadline_s)
        carried.extend(bench.rounds[-1][0])
        return outcomes

    rounds = Rounds(run, round_max=100, queue_max=10)
    bench.open()
    parcels = [parcel(1), parcel(2), parcel(3, 4), parcel(5, 6, 7), parcel(8)]
    ended = await asyncio.gather(
        *(rounds.submit(one, 1.0) for one in parcels), return_exceptions=True
    )
    assert [type(end) for end in ended] == [list, list, list, InvalidRequest, list]
    assert ended[2] == [Done(3, 0), Done(4, 0)]
    assert carried == [1, 2, 3, 4, 8]
    assert await rounds.submit(parcel(9), 1.0), "and the room of all of them is free again"
    assert rounds._count == 0


async def test_whoever_stopped_waiting_before_the_round_began_is_left_out(bench: Bench) -> None:
    rounds = Rounds(bench.run, round_max=10, queue_max=2)
    busy = [asyncio.ensure_future(rounds.submit(parcel(a), 1.0)) for a in (1,)]
    await turns()
    gone = rounds.submit(parcel(2), 1.0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    bench.open()
    await asyncio.gather(*busy)
    assert [2] not in [accounts for accounts, _ in bench.rounds]
    assert await rounds.submit(parcel(3, 4), 1.0), "its room in the queue is free again"


async def test_closing_finishes_what_waits_and_takes_nothing_new(bench: Bench) -> None:
    rounds = Rounds(bench.run, round_max=1, queue_max=100)
    tasks = [asyncio.ensure_future(rounds.submit(parcel(a), 1.0)) for a in range(5)]
    await turns()
    closing = asyncio.ensure_future(rounds.aclose())
    await turns()
    with pytest.raises(Draining):
        await rounds.submit(parcel(9), 1.0)
    bench.open()
    await closing
    assert [await task for task in tasks] == [[Done(a, 0)] for a in range(5)]


async def test_closing_in_a_hurry_tells_what_never_began_from_what_may_have_happened(
    bench: Bench,
) -> None:
    rounds = Rounds(bench.run, round_max=1, queue_max=100)
    tasks = [asyncio.ensure_future(rounds.submit(parcel(a), 1.0)) for a in range(4)]
    await turns()
    await rounds.aclose(timeout_s=0)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ended] == [Interrupted, Interrupted, Draining, Draining]


async def test_each_caller_gets_the_outcomes_in_the_form_it_wants(bench: Bench) -> None:
    rounds = Rounds(bench.run, round_max=10, queue_max=100)
    bench.open()

    def fail(outcomes: list[Outcome]) -> None:
        raise KeyError(len(outcomes))

    ended = await asyncio.gather(
        rounds.submit(parcel(1, 2), 1.0, len),
        rounds.submit(parcel(3), 1.0, fail),
        rounds.submit(parcel(4), 1.0),
        return_exceptions=True,
    )
    assert ended[0] == 2
    assert isinstance(ended[1], KeyError), "and what fails for one is nobody else's"
    assert ended[2] == [Done(4, 0)]

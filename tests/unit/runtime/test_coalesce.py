"""The coalescer: batches by themselves, bounds, errors per item, cancellation, closing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_runtime import errors
from rmi_runtime.coalesce import Coalescer
from tests.support import turns


class Sends:
    """A send that notes its batches and ends each one when the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gates: list[asyncio.Event] = []
        self.open = False

    async def __call__(self, items: list[int]) -> list[int | BaseException]:
        gate = asyncio.Event()
        self.batches.append(list(items))
        self.gates.append(gate)
        if not self.open:
            await gate.wait()
        return [item * 10 for item in items]


async def test_first_item_leaves_in_the_next_turn_of_the_loop() -> None:
    sends = Sends()
    coalescer = Coalescer(sends)
    future = coalescer.submit_nowait(1)
    await turns(1)
    assert sends.batches == [[1]]
    sends.gates[0].set()
    assert await future == 10


async def test_items_of_one_turn_go_together_in_order() -> None:
    sends = Sends()
    sends.open = True
    coalescer = Coalescer(sends, concurrency=3)
    futures = [coalescer.submit_nowait(n) for n in range(5)]
    assert coalescer.sends_under_way == 1
    assert await asyncio.gather(*futures) == [0, 10, 20, 30, 40]
    assert sends.batches == [[0, 1, 2, 3, 4]]


async def test_what_arrives_during_a_send_goes_as_the_next_one() -> None:
    sends = Sends()
    coalescer = Coalescer(sends)
    first = coalescer.submit_nowait(1)
    await turns()
    rest = []
    for n in (2, 3, 4):
        rest.append(coalescer.submit_nowait(n))
        await turns()
    assert sends.batches == [[1]]
    sends.gates[0].set()
    assert await first == 10
    await turns()
    assert sends.batches == [[1], [2, 3, 4]]
    sends.gates[1].set()
    assert await asyncio.gather(*rest) == [20, 30, 40]


async def test_no_batch_is_larger_than_its_bound() -> None:
    sends = Sends()
    sends.open = True
    coalescer = Coalescer(sends, batch_max=4)
    results = await asyncio.gather(*(coalescer.submit(n) for n in range(10)))
    assert results == [n * 10 for n in range(10)]
    assert [len(batch) for batch in sends.batches] == [4, 4, 2]


async def test_full_queue_refuses_with_a_definite_error_and_keeps_what_it_has() -> None:
    sends = Sends()
    coalescer = Coalescer(sends, queue_max=2)
    under_way = coalescer.submit_nowait(0)
    await turns()
    queued = [coalescer.submit_nowait(n) for n in (1, 2)]
    with pytest.raises(errors.Overloaded) as caught:
        coalescer.submit_nowait(3)
    assert caught.value.definite
    sends.open = True
    sends.gates[0].set()
    assert await asyncio.gather(under_way, *queued) == [0, 10, 20]
    assert await coalescer.submit(4) == 40


async def test_an_error_among_the_results_is_raised_to_its_own_waiter_only() -> None:
    async def send(items: list[int]) -> list[int | BaseException]:
        return [ValueError(f"bad {item}") if item == 2 else item for item in items]

    coalescer = Coalescer(send)
    results = await asyncio.gather(
        *(coalescer.submit(n) for n in (1, 2, 3)), return_exceptions=True
    )
    assert results[0] == 1
    assert isinstance(results[1], ValueError)
    assert str(results[1]) == "bad 2"
    assert results[2] == 3


async def test_a_failing_send_fails_its_own_items_and_not_the_next_batch() -> None:
    failing = True

    async def send(items: list[int]) -> list[int]:
        nonlocal failing
        if failing:
            failing = False
            raise errors.ConnectionLost("gone")
        return items

    coalescer = Coalescer(send, batch_max=2)
    results = await asyncio.gather(*(coalescer.submit(n) for n in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [errors.ConnectionLost] * 2 + [int] * 2


@pytest.mark.parametrize("answer", [[1, 2], None, 3, iter([1, 2, 3])])
async def test_a_wrong_number_of_results_is_an_indefinite_error_for_all(answer: Any) -> None:
    async def send(items: list[int]) -> Any:
        return answer

    coalescer = Coalescer(send)
    futures = [coalescer.submit_nowait(n) for n in range(3)]
    _, hanging = await asyncio.wait(futures, timeout=10.0)
    assert not hanging
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [errors.InternalError] * 3


@pytest.mark.parametrize("answer", [StopIteration(), asyncio.CancelledError()])
async def test_answers_that_no_future_can_hold_become_internal_errors(
    answer: BaseException,
) -> None:
    async def send(items: list[int]) -> list[int | BaseException]:
        return [answer, 2]

    coalescer = Coalescer(send)
    results = await asyncio.gather(*(coalescer.submit(n) for n in (1, 2)), return_exceptions=True)
    assert isinstance(results[0], errors.InternalError)
    assert results[1] == 2


async def test_concurrency_allows_that_many_sends_at_once_and_no_more() -> None:
    sends = Sends()
    coalescer = Coalescer(sends, batch_max=2, concurrency=3)
    futures = [coalescer.submit_nowait(n) for n in range(10)]
    await turns(10)
    assert sends.batches == [[0, 1], [2, 3], [4, 5]]
    sends.gates[1].set()
    await turns()
    assert sends.batches[3:] == [[6, 7]]
    sends.open = True
    for gate in sends.gates:
        gate.set()
    assert await asyncio.gather(*futures) == [n * 10 for n in range(10)]


async def test_a_batch_that_is_small_beside_what_is_under_way_grows_while_more_comes() -> None:
    sends = Sends()
    coalescer = Coalescer(sends, concurrency=2)
    futures = [coalescer.submit_nowait(n) for n in range(6)]
    await turns(1)
    for n in range(6, 10):
        futures.append(coalescer.submit_nowait(n))
        await turns(2)
    assert sends.batches == [[0, 1, 2, 3, 4, 5]], "it came piece by piece, and goes as one"
    await turns()
    assert sends.batches == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]], "as soon as nothing more comes"
    for gate in sends.gates:
        gate.set()
    assert await asyncio.gather(*futures) == [n * 10 for n in range(10)]


async def test_a_batch_as_large_as_what_is_under_way_or_as_any_may_be_does_not_wait() -> None:
    for options, under_way, new in (({}, 2, 2), ({"batch_max": 3}, 3, 3), ({}, 0, 1)):
        sends = Sends()
        coalescer = Coalescer(sends, concurrency=2, **options)
        futures = [coalescer.submit_nowait(n) for n in range(under_way)]
        await turns(1)
        futures += [coalescer.submit_nowait(n) for n in range(new)]
        await turns(1)
        assert [len(batch) for batch in sends.batches] == [n for n in (under_way, new) if n]
        for gate in sends.gates:
            gate.set()
        await asyncio.gather(*futures)


async def test_with_concurrency_a_new_item_does_not_wait_for_the_send_under_way() -> None:
    sends = Sends()
    coalescer = Coalescer(sends, concurrency=2)
    coalescer.submit_nowait(1)
    await turns()
    second = coalescer.submit_nowait(2)
    await turns()
    assert sends.batches == [[1], [2]]
    sends.gates[1].set()
    assert await second == 20
    sends.gates[0].set()
    await coalescer.aclose()


async def test_a_cancelled_waiter_harms_no_other() -> None:
    sends = Sends()
    coalescer = Coalescer(sends)
    waiters = [asyncio.create_task(coalescer.submit(n)) for n in (1, 2, 3)]
    await turns()
    assert sends.batches == [[1, 2, 3]]
    waiters[1].cancel()
    await turns()
    sends.gates[0].set()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert results[0] == 10
    assert isinstance(results[1], asyncio.CancelledError)
    assert results[2] == 30


async def test_an_item_cancelled_before_it_left_is_not_sent() -> None:
    sends = Sends()
    coalescer = Coalescer(sends)
    coalescer.submit_nowait(1)
    await turns()
    withdrawn, kept = coalescer.submit_nowait(2), coalescer.submit_nowait(3)
    alone = coalescer.submit_nowait(4)
    withdrawn.cancel()
    alone.cancel()
    sends.open = True
    sends.gates[0].set()
    assert await kept == 30
    assert sends.batches == [[1], [3]]


async def test_close_sends_what_waits_and_refuses_what_comes_later() -> None:
    sends = Sends()
    coalescer = Coalescer(sends)
    first = coalescer.submit_nowait(1)
    await turns()
    second = coalescer.submit_nowait(2)
    closing = asyncio.create_task(coalescer.aclose())
    await turns()
    with pytest.raises(errors.Draining):
        coalescer.submit_nowait(3)
    sends.open = True
    sends.gates[0].set()
    await closing
    assert (first.result(), second.result()) == (10, 20)


async def test_close_out_of_time_says_which_items_never_left() -> None:
    sends = Sends()
    coalescer = Coalescer(sends)
    left = coalescer.submit_nowait(1)
    await turns()
    waiting = coalescer.submit_nowait(2)
    await coalescer.aclose(timeout_s=0)
    with pytest.raises(errors.Interrupted):
        await left
    with pytest.raises(errors.Draining):
        await waiting
    assert coalescer.sends_under_way == 0


async def test_a_send_that_is_cancelled_from_inside_does_not_stop_the_next() -> None:
    sends = Sends()
    cancel_next = True

    async def send(items: list[int]) -> list[int | BaseException]:
        nonlocal cancel_next
        if cancel_next:
            cancel_next = False
            raise asyncio.CancelledError
        sends.open = True
        return await sends(items)

    coalescer = Coalescer(send, batch_max=1)
    results = await asyncio.gather(coalescer.submit(1), coalescer.submit(2), return_exceptions=True)
    assert isinstance(results[0], errors.Interrupted)
    assert results[1] == 20


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(st.integers(0, 7), min_size=1, max_size=20),
    batch_max=st.integers(1, 5),
    concurrency=st.integers(1, 3),
    send_turns=st.integers(0, 4),
)
def test_every_item_is_sent_once_in_order_and_answered_with_its_own_result(
    arrivals: list[int], batch_max: int, concurrency: int, send_turns: int
) -> None:
    async def run() -> None:
        sent: list[int] = []
        under_way = most = 0

        async def send(items: list[int]) -> list[int]:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            assert 0 < len(items) <= batch_max
            sent.extend(items)
            await turns(send_turns)
            under_way -= 1
            return [-item for item in items]

        coalescer = Coalescer(send, batch_max=batch_max, concurrency=concurrency)
        futures = []
        for count in arrivals:
            futures += [coalescer.submit_nowait(len(futures) + n) for n in range(count)]
            await turns(1)
        results = await asyncio.gather(*futures)
        assert results == [-n for n in range(len(futures))]
        assert sent == list(range(len(futures)))
        assert most <= concurrency
        assert coalescer.waiting == 0

    asyncio.run(run())


@pytest.mark.parametrize("bounds", [{"batch_max": 0}, {"queue_max": 0}, {"concurrency": 0}])
def test_bounds_below_one_are_refused(bounds: dict[str, int]) -> None:
    async def send(items: list[int]) -> list[int]:
        return items

    with pytest.raises(ValueError, match="at least 1"):
        Coalescer(send, **bounds)

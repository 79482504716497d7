"""How long items wait in a coalescer before they are sent, or refused."""

from __future__ import annotations

import asyncio
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from rmi_runtime import errors
from rmi_runtime.coalesce import Coalescer
from tests.support import Clock, turns
from tests.unit.runtime.test_coalesce import Sends


async def test_items_that_waited_too_long_are_refused_when_the_next_batch_leaves(
    clock: Clock,
) -> None:
    sends = Sends()
    coalescer = Coalescer(sends, batch_max=2, wait_s_max=10.0, clock=clock)
    futures = [coalescer.submit_nowait(n) for n in range(8)]
    await turns()
    clock.now_s += 9.0
    in_time = coalescer.submit_nowait(8)
    sends.gates[0].set()
    await turns()
    assert sends.batches == [[0, 1], [2, 3]]
    clock.now_s += 1.0
    sends.gates[1].set()
    await turns()
    assert sends.batches == [[0, 1], [2, 3], [8]]
    ended = await asyncio.gather(*futures, return_exceptions=True)
    assert ended[:4] == [0, 10, 20, 30]
    assert [type(end) for end in ended[4:]] == [errors.Unavailable] * 4
    assert "10 s" in str(ended[4])
    sends.gates[2].set()
    assert await in_time == 80
    assert coalescer.waiting == 0


async def test_what_waits_behind_batches_that_take_all_their_time_waits_twice_that_at_most(
    clock: Clock,
) -> None:
    sends = Sends()
    coalescer = Coalescer(sends, batch_max=1, concurrency=2, wait_s_max=10.0, clock=clock)
    came: dict[asyncio.Future[int], float] = {}
    waited_s: list[float] = []
    for _ in range(100):
        for _ in range(3):
            future = coalescer.submit_nowait(1)
            came[future] = clock.now_s
            future.add_done_callback(lambda f: waited_s.append(clock.now_s - came[f]))
        await turns()
        clock.now_s += 5.0
        if len(sends.gates) > 1:  # the older of the two under way has had its 10 s
            next(gate for gate in sends.gates if not gate.is_set()).set()
            await turns()
    assert len(waited_s) > 200
    assert max(waited_s) <= 2 * 10.0 + 10.0 / 8
    for future in came:
        if future.done():
            future.exception()
    await coalescer.aclose(timeout_s=0)
    await asyncio.gather(*came, return_exceptions=True)


async def test_what_came_just_after_a_batch_had_left_waits_no_longer_than_others(
    clock: Clock,
) -> None:
    sends = Sends()
    coalescer = Coalescer(sends, batch_max=1, wait_s_max=10.0, clock=clock)
    futures = [coalescer.submit_nowait(0)]
    await turns()
    clock.now_s += 0.1
    futures += [coalescer.submit_nowait(n) for n in (1, 2)]
    for gate in range(2):  # each send takes nearly all the time that there is
        clock.now_s += 9.8
        sends.gates[gate].set()
        await turns()
    assert sends.batches == [[0], [1]]
    assert isinstance(futures[2].exception(), errors.Unavailable)
    assert await asyncio.gather(*futures[:2]) == [0, 10]


@given(seed=st.integers(0, 2**32))
async def test_every_item_is_sent_or_refused_once_whatever_the_times(seed: int) -> None:
    rng, clock, sends = Random(seed), Clock(), Sends()
    coalescer = Coalescer(sends, batch_max=3, concurrency=2, wait_s_max=4.0, clock=clock)
    futures: list[asyncio.Future[int]] = []
    for _ in range(30):
        futures += [coalescer.submit_nowait(len(futures) + n) for n in range(rng.randrange(5))]
        if futures and rng.random() < 0.1:
            rng.choice(futures).cancel()
        await turns()
        clock.now_s += rng.choice((0.0, 0.1, 1.0, 5.0))
        if sends.gates and rng.random() < 0.7:
            rng.choice(sends.gates).set()
    sends.open = True
    for gate in sends.gates:
        gate.set()
    ended = await asyncio.gather(*futures, return_exceptions=True)
    sent = [item for batch in sends.batches for item in batch]
    assert sent == sorted(set(sent))
    for item, end in enumerate(ended):
        if isinstance(end, errors.Unavailable):
            assert item not in sent
        elif not isinstance(end, asyncio.CancelledError):
            assert end == item * 10

"""Leases that come when nobody waits for them any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from rmi_bank.execution import Execution
from rmi_runtime.errors import CallTimeout, Unavailable
from tests.support import eventually
from tests.unit.bank.scripted_data import DEPOSIT, Data


class SlowData(Data):
    """Its locks are granted when the test lets them be."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()
        self.unlocked = asyncio.Event()

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        if method == "lock":
            return await self.lock_late(args, options["timeout_s"], options["late"])
        result = await super().call(method, *args, **options)
        if method == "unlock":
            self.unlocked.set()
        return result

    async def lock_late(
        self, args: tuple[Any, ...], timeout_s: float, late: Callable[[Any], None]
    ) -> Any:
        """Grant when the test lets it, and say so to *late* if nobody waits for it any more."""

        async def granted() -> Any:
            await self.let.wait()
            return self.lock(*args)

        asked = asyncio.ensure_future(granted())
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(asked)
        except TimeoutError:
            raise CallTimeout("too late") from None
        finally:
            if not asked.done():
                asked.add_done_callback(lambda asked: late(asked.result()))


async def test_a_lease_that_comes_after_the_deadline_is_given_back() -> None:
    data = SlowData()
    execution = Execution(data, 1)
    with pytest.raises(Unavailable):
        await execution.change(DEPOSIT, time.monotonic() + 0.02)
    data.let.set()
    async with asyncio.timeout(5):
        await data.unlocked.wait()
    assert data.leases == set()
    assert data.balance == 100
    await eventually(lambda: not execution._giving_back)


@pytest.mark.parametrize("probes", [False, True])
async def test_a_lease_that_comes_to_a_cancelled_round_is_given_back(probes: bool) -> None:
    data = SlowData()
    one = data.execution()
    task: asyncio.Future[object]
    task = asyncio.ensure_future(one.probe([1], 2.0) if probes else one.change(DEPOSIT, 10.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    data.let.set()
    async with asyncio.timeout(5):
        await data.unlocked.wait()
    assert data.leases == set()

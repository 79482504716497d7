"""Locks whose turn comes, or will not come, just as nobody waits for it any more."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest

from rmi_runtime import Proxy
from rmi_runtime.errors import RmiError, Unavailable
from tests.integration.bank.cluster import BankCluster
from tests.support import eventually


async def test_a_lock_whose_turn_comes_after_its_caller_has_left_is_nobodys(
    bank: BankCluster, two: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = bank.data._desk
    held, _ = desk.acquire("another", [1], wait_s=1.0)
    acquire = desk.acquire

    def acquire_as_time_passes(*args: Any, **options: Any) -> Any:
        got = acquire(*args, **options)
        time.sleep(0.02)  # the loop has other things to do
        desk.release(held)
        return got

    monkeypatch.setattr(desk, "acquire", acquire_as_time_passes)
    with pytest.raises(RmiError):
        await two._call("lock", (2, [1]), timeout_s=0.01)
    await eventually(lambda: bank.data.figures()["tickets"] == 0)


async def test_one_that_fails_as_its_caller_gives_up_is_no_error_of_the_loop(
    bank: BankCluster,
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    bank.data._desk.acquire("another", [1], wait_s=1.0)
    waiting: Any = bank.data.lock(2, [1])
    await bank.has_tickets(2)
    waiting.cancel()
    bank.data._desk.shut(Unavailable("the store failed"))  # in the same turn of the loop
    await asyncio.wait([waiting])
    await asyncio.sleep(0)
    del waiting
    gc.collect()
    assert complaints == []

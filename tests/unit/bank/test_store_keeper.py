"""Opening a store that has failed, for as long as it takes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from rmi_bank.lock_desk import LockDesk
from rmi_bank.store_keeper import PAUSE_S_MAX, PAUSE_S_MIN, StoreKeeper
from rmi_runtime import StoreGone, StoreLost
from rmi_runtime.errors import Unavailable


class Ledger:
    """Opens after some errors."""

    epoch = 7
    commit_no = 0

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.gone: str | None = None

    def missing(self) -> str | None:
        return self.gone

    async def start(self) -> None:
        pass

    async def reopen(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


async def test_tries_to_open_it_come_less_often_but_never_seldom_and_callers_hear_why_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = [OSError("no such device"), StoreLost("another file"), *[OSError("again")] * 20]
    desk = LockDesk(lease_s=10.0, tickets_max=9, clock=time.monotonic)
    ledger: Any = Ledger(*failures)
    keeper = StoreKeeper(ledger, desk)
    await keeper.start()
    pauses: list[float] = []
    told: list[Exception] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        with pytest.raises((Unavailable, StoreGone)) as caught:
            keeper.check_open()
        told.append(caught.value)
        assert keeper.trouble() == str(caught.value)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        keeper.reopen_soon()
        assert keeper._reopening is not None
        await keeper._reopening
    assert pauses[:3] == [PAUSE_S_MIN, 2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN]
    assert pauses[-1] == max(pauses) == PAUSE_S_MAX
    assert [type(error) for error in told[:3]] == [Unavailable, StoreGone, Unavailable]
    assert "another file" in str(told[1])
    keeper.check_open()
    assert keeper.trouble() is None
    ledger.gone = "the file is gone"  # and nobody has written since
    assert keeper.trouble() == "the file is gone"
    ticket, _ = desk.acquire("one", [1], wait_s=0.0)
    assert ticket.lease >> 32 == ledger.epoch

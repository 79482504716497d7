"""How long a consumer lets messages gather before it looks for the next."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rmi_msg.lines import LineLog
from rmi_msg.messages import RUSH_MESSAGES, TROUBLE_S_MAX, Consumer
from rmi_msg.stores import Claim
from rmi_runtime import errors

NEVER_S = 3600.0
LIMIT = 2 * RUSH_MESSAGES


class Shelf:
    """Stands in for the queue and the consumed store: first one claim, then word of the next look.

    Args:
        size: messages in the claim.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.looks = 0
        self.looked_again = asyncio.Event()

    async def claim(self, by: str, limit: int, lease_s: float) -> Claim | None:
        await asyncio.sleep(0)  # as a real one lets others run
        self.looks += 1
        if self.looks > 1:
            self.looked_again.set()
            return None
        return Claim([(str(number), "text") for number in range(self.size)], by, None)

    async def add(self, claim: Claim) -> list[bool]:
        return [True] * len(claim.messages)

    async def done(self, claim: Claim) -> bool:
        return True

    async def give_back(self, by: str) -> int:
        return 0

    async def sweep(self) -> int:
        return 0


def make(shelf: Shelf, log: LineLog, **options: Any) -> Consumer:
    return Consumer("msg.messages.1", shelf, shelf, log, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "poll_s", "rush_poll_s"),
    [
        (1, 0.0, NEVER_S),
        (RUSH_MESSAGES - 1, 0.0, NEVER_S),
        (RUSH_MESSAGES, NEVER_S, 0.0),
        (LIMIT - 1, NEVER_S, 0.0),
        (LIMIT, NEVER_S, NEVER_S),
    ],
    ids=["one", "few", "rush", "nearly full", "full"],
)
async def test_a_rush_gathers_for_longer_and_a_full_claim_not_at_all(
    size: int, poll_s: float, rush_poll_s: float, tmp_path: Path
) -> None:
    shelf = Shelf(size)
    with LineLog(tmp_path / "log") as log:
        consumer = make(shelf, log, poll_s=poll_s, rush_poll_s=rush_poll_s, limit=LIMIT)
        running = asyncio.create_task(consumer.run())
        async with asyncio.timeout(10):
            await shelf.looked_again.wait()
            consumer.stop()
            await running
    assert len((tmp_path / "log").read_text().splitlines()) == size


async def test_who_found_nothing_looks_again_only_after_its_pause(tmp_path: Path) -> None:
    shelf = Shelf(0)
    shelf.looks = 1  # what it had is taken
    with LineLog(tmp_path / "log") as log:
        consumer = make(shelf, log, poll_s=NEVER_S, rush_poll_s=NEVER_S)
        running = asyncio.create_task(consumer.run())
        async with asyncio.timeout(10):
            await shelf.looked_again.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            assert shelf.looks == 2
            consumer.stop()  # does not wait for the pause to end
            await running


async def test_a_store_that_fails_is_asked_ever_less_often_and_at_once_as_ever_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Shelf):
        async def claim(self, by: str, limit: int, lease_s: float) -> Claim | None:
            self.looks += 1
            if self.looks <= 12:
                raise errors.Unavailable("down")
            return None

    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 13:
            consumer.stop()

    with LineLog(tmp_path / "log") as log:
        consumer = make(Failing(0), log, poll_s=0.25, rush_poll_s=0.5)
        monkeypatch.setattr(consumer, "_pause", pause)
        async with asyncio.timeout(10):
            await consumer.run()
    assert pauses[:4] == [0.25, 0.5, 1.0, min(2.0, TROUBLE_S_MAX)]
    assert pauses[11:] == [TROUBLE_S_MAX, 0.25]

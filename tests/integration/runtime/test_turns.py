"""No connection keeps the loop to itself, however many calls it sends at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rmi_runtime import Daemon, Proxy, expose
from rmi_runtime.daemon import connection, turns
from tests.support import eventually


@expose
class Diary:
    """Notes in which order it is called."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.looks: list[int] = []
        self.look: Callable[[], int] = lambda: 0

    def note(self, word: str) -> None:
        self.notes.append(word)
        self.looks.append(self.look())

    async def note_later(self, word: str) -> None:
        await asyncio.sleep(0)
        self.notes.append(word)


@pytest.mark.parametrize(("burst", "burst_s"), [(64, 0.0), (1, 60.0)])
async def test_the_calls_of_two_connections_take_turns(
    monkeypatch: pytest.MonkeyPatch, burst: int, burst_s: float
) -> None:
    monkeypatch.setattr(connection, "BURST", burst)
    monkeypatch.setattr(turns, "ALONE_S", burst_s)
    monkeypatch.setattr(turns, "SHARED_S", burst_s)
    diary = Diary()
    async with Daemon() as daemon:
        uri = daemon.register(diary)
        async with Proxy(uri) as left, Proxy(uri) as right:
            calls = [(left, "left"), (right, "right")] * 50
            await asyncio.gather(*[proxy.note(word) for proxy, word in calls])
    assert diary.notes.count("left") == diary.notes.count("right") == 50
    assert 10 <= diary.notes[:50].count("left") <= 40


def send_batches(proxy: Proxy, count: int, calls: int) -> list[asyncio.Future[Any]]:
    """Send so many batches of so many calls each."""
    sent = []
    for _ in range(count):
        batch = proxy._batch()
        for _ in range(calls):
            batch.note("batch")
        sent.append(asyncio.ensure_future(batch()))
    return sent


@pytest.mark.parametrize(
    ("calls_max", "turn_s", "meanwhile_max"), [(64, 60.0, 3_000), (10**9, 0.0, 300)]
)
async def test_many_batches_of_one_connection_have_one_turn_between_them(
    monkeypatch: pytest.MonkeyPatch, calls_max: int, turn_s: float, meanwhile_max: int
) -> None:
    monkeypatch.setattr(turns, "BATCH_CALLS", calls_max)
    monkeypatch.setattr(turns, "ALONE_S", turn_s)
    monkeypatch.setattr(turns, "SHARED_S", turn_s)
    diary = Diary()
    async with Daemon() as daemon:
        uri = daemon.register(diary)
        async with Proxy(uri) as many, Proxy(uri) as other:
            sent = send_batches(many, 100, 100)
            await eventually(lambda: diary.notes, every_s=0)
            for _ in range(5):  # each takes a few turns of the loop, there and back
                await other.note("other")
            meanwhile = diary.notes.count("batch")
            await asyncio.gather(*sent)
    assert diary.notes.count("batch") == 10_000
    assert meanwhile < meanwhile_max


async def test_batches_are_not_even_read_while_those_before_them_wait_for_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ALONE_S", "SHARED_S"):
        monkeypatch.setattr(turns, name, 60.0)
    diary = Diary()
    async with Daemon() as daemon:
        diary.look = lambda: daemon.stats()["inflight"]
        uri = daemon.register(diary)
        async with Proxy(uri, timeout_s=60) as many:
            await asyncio.gather(*send_batches(many, 200, 1_000))
    assert len(diary.notes) == 200_000
    assert max(diary.looks) <= turns.BURST


def test_a_turn_is_shorter_while_connections_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(turns.time, "monotonic", lambda: now[0])
    shared = turns.Turns()

    def length(connection: int) -> float:
        return shared.begin(connection) - now[0]

    assert length(1) == pytest.approx(turns.SHARED_S)  # it may not be alone: nobody knows yet
    now[0] += turns.SHARING_S
    assert length(1) == pytest.approx(turns.ALONE_S)
    shared.note(2)
    assert length(1) == length(2) == pytest.approx(turns.SHARED_S)
    now[0] += turns.SHARING_S
    assert length(2) == pytest.approx(turns.ALONE_S)


def test_less_is_read_at_once_while_connections_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(turns.time, "monotonic", lambda: now[0])
    shared = turns.Turns()
    shared.note(1)
    assert shared.burst(1) == turns.SHARED_BURST
    now[0] += turns.SHARING_S
    assert shared.burst(1) == turns.BURST
    assert shared.burst(2) == turns.SHARED_BURST < turns.BURST

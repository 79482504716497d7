"""No connection keeps the loop to itself, however many calls it sends at once."""

from __future__ import annotations

import asyncio

import pytest

from rmi_runtime import Daemon, Proxy, connection, expose, turns


@expose
class Diary:
    """Notes in which order it is called."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, word: str) -> None:
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

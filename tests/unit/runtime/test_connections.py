"""Connections that take a place by saying nothing, or half of something: who goes, who stays."""

from __future__ import annotations

from typing import Any

import pytest

from rmi_runtime import DaemonLimits
from rmi_runtime.daemon.connections import Connections
from tests.support import Clock

LIMITS = DaemonLimits(connections_max=2, handshake_s=30.0, message_s=60.0)


class Fake:
    """A connection that tells whether it was cut off."""

    id, peer, unread_bytes = 1, None, 0
    aborted = 0

    def __init__(self) -> None:
        self.identity = self.parser = type("Nothing", (), {"kind": "anonymous", "kept": b""})

    def abort(self) -> None:
        """Count how often it was cut off."""
        self.aborted += 1


@pytest.fixture
def connections(clock: Clock) -> Any:
    return Connections(LIMITS, clock)


def test_each_newcomer_takes_the_place_of_another_silent_one(connections: Any) -> None:
    silent = [Fake(), Fake()]
    newcomers = [Fake(), Fake()]  # before the loop has told of any end
    assert all(connections.admit(one) for one in (*silent, *newcomers))
    assert [one.aborted for one in silent] == [1, 1]
    assert set(connections) == set(newcomers)
    for one in newcomers:
        connections.greeted(one)
    assert not connections.admit(Fake())
    assert connections.refusals == 3


def test_nobody_comes_in_once_it_is_closed_not_even_for_a_silent_one(connections: Any) -> None:
    first = Fake()
    assert connections.admit(first)
    connections.close()
    assert not connections.admit(Fake())
    assert not first.aborted


def test_who_says_nothing_is_cut_off_once_and_who_greeted_or_left_never(
    connections: Any, clock: Clock
) -> None:
    greeted, left, silent = Fake(), Fake(), Fake()
    for one in greeted, left:
        connections.admit(one)
    connections.greeted(greeted)
    connections.dismiss(left)
    connections.admit(silent)
    clock.now_s += 30.1
    connections.tidy()
    connections.tidy()
    assert [one.aborted for one in (greeted, left, silent)] == [0, 0, 1]


def test_half_a_message_has_its_time_from_its_own_beginning(connections: Any, clock: Clock) -> None:
    dripping, busy, stuck, whole, left = [Fake() for _ in range(5)]
    for one in dripping, busy, stuck, whole, left:
        connections.note_partial(one)
    clock.now_s += 40.0
    connections.note_partial(dripping)
    connections.note_partial_anew(busy)
    connections.note_whole(whole)
    connections.dismiss(left)
    clock.now_s += 21.0
    connections.tidy()
    assert [one.aborted for one in (dripping, busy, stuck, whole, left)] == [1, 0, 1, 0, 0]
    clock.now_s += 40.0
    connections.tidy()
    assert busy.aborted == 1

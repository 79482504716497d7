"""What is missed for long enough is lost, also if no single call could wait for so long."""

from __future__ import annotations

import pytest

from rmi_msg.hazelcast import missing
from rmi_msg.hazelcast.missing import ABSENT_S, APART_S_MAX, Missing


def test_what_is_missed_for_long_enough_is_lost() -> None:
    found = Missing[str]()
    assert found.missed(["a"], 0.0) == []
    assert found.missed(["a"], ABSENT_S) == []
    assert not found.given_up("a")
    assert found.missed(["a"], ABSENT_S + 0.1) == ["a"]
    assert found.given_up("a")
    assert not found.given_up("b")


def test_what_is_missed_later_in_the_same_trouble_is_lost_at_once() -> None:
    found = Missing[str]()
    assert found.missed(["a"], 0.0) == []
    assert found.missed(["a", "b"], ABSENT_S + 0.1) == ["a", "b"]
    assert found.missed(["c"], ABSENT_S + 0.2) == ["c"]


def test_a_trouble_is_over_as_soon_as_anything_is_found_that_was_missed() -> None:
    found = Missing[str]()
    assert found.missed(["a", "b"], 0.0) == []
    found.found(["c"])  # it was never missed, and says nothing
    found.found(["b"])
    assert found.missed(["a"], ABSENT_S + 0.1) == []
    assert found.missed(["a"], 2 * ABSENT_S + 0.2) == ["a"]


def test_two_misses_far_apart_are_no_long_one() -> None:
    found = Missing[int]()
    assert found.missed([1], 0.0) == []
    later_s = APART_S_MAX + 1
    assert found.missed([1], later_s) == []
    assert found.missed([1], later_s + ABSENT_S + 0.1) == [1]


def test_no_more_than_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing, "LOST_MAX", 3)
    found = Missing[int]()
    assert found.missed(range(100), 0.0) == []
    assert len(found._missed) <= 4
    assert found.missed([1, 2], ABSENT_S + 1) == [1, 2]
    assert not found.given_up(4)
    assert found.missed([3], ABSENT_S + 1) == [3]
    assert found.given_up(4)  # so much is lost that nothing more is waited for

"""Who has to make way: whoever has most, and in few steps, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rmi_runtime.daemon.making_way import who_makes_way


class Size(int):
    """A number of bytes that counts how often it is compared with others."""

    compared = 0

    def __add__(self, other: int) -> Size:
        return Size(int(self) + other)

    __radd__ = __add__

    def __sub__(self, other: int) -> Size:
        return Size(int(self) - other)

    def __neg__(self) -> Size:
        return Size(-int(self))

    def __lt__(self, other: int) -> bool:
        Size.compared += 1
        return int(self) < other

    def __gt__(self, other: int) -> bool:
        Size.compared += 1
        return int(self) > other


def holding(kind: str, who: int, size: int) -> Any:
    """Return a connection of a client, stranger or service that so many bytes are kept for."""
    identity = SimpleNamespace(kind=kind, client=who)
    return SimpleNamespace(identity=identity, peer=(f"10.0.0.{who}", 1), size=Size(size))


def leaving(connections: Sequence[Any], bound: int) -> list[Any]:
    """Return who makes way."""
    return who_makes_way(connections, lambda one: one.size, bound)


def test_whoever_has_most_loses_what_has_waited_for_longest() -> None:
    little, first, second = (holding("client", who, 10) for who in (1, 2, 2))
    assert leaving([little, first, second], 25) == [first]
    assert leaving([little, first, second], 15) == [first, little]
    assert leaving([little, first, second], 30) == []


def test_services_do_not_make_way_and_do_not_count() -> None:
    service, stranger = holding("service", 1, 100), holding("anonymous", 1, 10)
    assert leaving([service, stranger], 10) == []
    assert leaving([service, stranger], 9) == [stranger]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), max_size=30),
    st.integers(0, 100),
)
def test_what_stays_is_within_the_bound_and_nobody_left_who_had_less_than_another(
    made: list[tuple[int, int]], bound: int
) -> None:
    connections = [holding("client", who, size) for who, size in made]
    left = leaving(connections, bound)
    held = dict.fromkeys(range(1, 6), 0)
    for who, size in made:
        held[who] += size
    for one in left:
        assert sum(held.values()) > bound, "no more leave than have to"
        assert held[one.identity.client] == max(held.values())
        held[one.identity.client] -= one.size
    assert sum(held.values()) <= bound
    for who in held:
        mine = [one for one in connections if one.identity.client == who]
        gone = [one for one in left if one.identity.client == who]
        assert gone == mine[: len(gone)]


def test_a_crowd_of_callers_is_compared_in_few_steps() -> None:
    crowd = [holding("client", who, 10 + who % 7) for who in range(1_000)]
    Size.compared = 0
    assert len(leaving(crowd, 0)) == 1_000
    assert Size.compared < 50 * 1_000, "not each with all others, over and over"

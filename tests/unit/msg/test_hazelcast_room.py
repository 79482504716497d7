"""What is on its way to members counts before they tell of it."""

from __future__ import annotations

from random import Random

import pytest

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.room import COPIES, FILL_MAX, Room
from rmi_msg.hazelcast.stores import HazelcastMessageStore
from rmi_runtime import errors
from tests.unit.msg.hazelcast_fakes import HereLink, LossyMap

HEAP_BYTES = 1000
LOOKS = 4
"""So many looks after it was put, something is in the figures for sure."""


def told(loggers: int = 1, fill: float = 0.0, members: int = 3) -> Room:
    room = Room(loggers)
    room.on_figures(fill, HEAP_BYTES, members)
    return room


def left(room: Room) -> int:
    """Return how much more the room has, in bytes."""
    for size_bytes in range(HEAP_BYTES + 1):
        try:
            room.take(size_bytes)
        except errors.StoreFull:
            return size_bytes - 1
        room._put_bytes[-1] -= size_bytes
    return HEAP_BYTES


def test_what_was_put_since_the_figures_counts() -> None:
    room = told(fill=0.2)
    assert left(room) == 500
    room.take(400)
    assert left(room) == 100
    with pytest.raises(errors.StoreFull, match=r"20% of .*70% nothing new .*--hazelcast-heap-mib"):
        room.take(101)
    assert left(room) == 100, "what was refused does not count"


def test_a_logger_leaves_as_much_to_each_of_the_others() -> None:
    assert left(told(loggers=3, fill=0.1)) == 200


def test_among_many_members_each_gets_a_part_of_what_is_put() -> None:
    assert left(told(members=2 * COPIES, fill=FILL_MAX - 0.1)) == 200


def test_what_is_in_the_figures_for_sure_does_not_count_twice_for_long() -> None:
    room = told()
    room.take(300)
    for _ in range(LOOKS - 1):
        room.on_figures(0.3, HEAP_BYTES, 3)
        assert left(room) == 100, "the figures may be from before it"
    room.on_figures(0.3, HEAP_BYTES, 3)
    assert left(room) == 400


def test_figures_that_not_all_members_told_change_nothing() -> None:
    room = told(fill=0.5)
    room.take(100)
    for _ in range(2 * LOOKS):
        room.on_figures(0.0, 0, 3)
    assert left(room) == 100


def test_members_that_never_tell_do_not_close_the_room_for_good() -> None:
    room = Room(heap_mib=1)
    room.take(700_000)
    for _ in range(LOOKS):
        room.on_figures(0.0, 0, 3)
    room.take(700_000)


async def test_long_texts_that_come_faster_than_members_tell_are_refused_in_time() -> None:
    room = Room(loggers=3, heap_mib=1)
    cluster = Cluster(HereLink(), 8.0, room, lambda name: LossyMap(Random(1)))
    store = HazelcastMessageStore(cluster)
    text = "\n" * 10_000  # two characters each where it is kept
    for number in range(12):
        assert await store.put_many([(str(number), text)], "L") == ["new"]
    with pytest.raises(errors.StoreFull):
        await store.put_many([("a", text)], "L")
    assert [row.id for row in (await store.page(None, 20)).rows] == [str(n) for n in range(12)]
    assert await store.put_many([("b", "short")], "L") == ["new"]
    asked = [("a", text), ("0", text), ("b", "long"), ("a", text)]
    assert await store.known(asked) == ["full", "same", "other", "full"]

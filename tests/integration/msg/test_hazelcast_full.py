"""Members that get more than they can hold refuse the rest, and lose nothing: on real members."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.map_stats import gather_map_statistics
from rmi_msg.hazelcast.room import FILL_MAX, Room
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.hazelcast.watch import ClusterWatch
from rmi_runtime import errors
from tests.hazelcast import Members
from tests.integration.msg.hazelcast_load import read_ids
from tests.support import eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(240)]

LOGGERS = 3
TEXT = "x" * 200_000
BATCH = 20
REFUSALS = 3


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    """Three members of this test's own, with the heap that is usual."""
    members = Members(tmp_path_factory.mktemp("full"))
    try:
        yield members.start()
    finally:
        members.stop()


async def post(own: Members, logger: int) -> set[str]:
    """Put long texts as fast as they are taken; return the ids that were acknowledged."""
    room = Room(LOGGERS)
    watch = ClusterWatch(own.addresses, room=room)
    acknowledged: set[str] = set()
    async with Link(own.addresses, "rmi", watch.on_members) as link, watch.watching(link):
        await eventually(lambda: watch.state().safe, timeout_s=60)
        store = stores_on(Cluster(link, 8.0, room)).messages
        for number in range(10_000 // BATCH):
            batch = [(f"{logger}-{number}-{n}", TEXT) for n in range(BATCH)]
            for _ in range(REFUSALS):
                try:
                    await store.put_many(batch, "L")
                except errors.StoreFull:
                    await eventually(lambda: has_room(room), timeout_s=30)
                else:
                    acknowledged |= {id for id, _ in batch}
                    break
            else:
                return acknowledged
    raise AssertionError("there is no end to what they take")


def has_room(room: Room) -> bool:
    """Say whether there is some for a batch, or the figures say that there is none for good."""
    if room._fill > 0.6:
        return True
    try:
        room.take(0)
    except errors.StoreFull:
        return False
    return True


async def test_long_texts_as_fast_as_they_are_taken_do_not_end_the_members(own: Members) -> None:
    acknowledged = set().union(*await asyncio.gather(*(post(own, n) for n in range(LOGGERS))))
    async with Link(own.addresses, "rmi") as link:
        fill = (await gather_map_statistics(await link.client(30), "messages")).fill
        found = await read_ids(stores_on(Cluster(link, 30.0)))
    assert acknowledged <= set(found)
    assert 0.5 < fill <= FILL_MAX
    assert "OutOfMemory" not in "".join(
        path.read_text() for path in (own.data_dir / "log").glob("hazelcast-*.log")
    )

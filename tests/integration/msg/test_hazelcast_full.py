"""Members that get more than they can hold refuse the rest, and lose nothing: on real members."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.map_stats import gather_map_statistics
from rmi_msg.hazelcast.room import FILL_MAX, Room
from rmi_msg.hazelcast.stores import HazelcastMessageStore, stores_on
from rmi_msg.hazelcast.watch import ClusterWatch
from rmi_runtime import errors
from tests.hazelcast import Members
from tests.integration.msg.hazelcast_load import read_ids
from tests.support import eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(240)]

LOGGERS = 3
TEXT = "x" * 200_000
BATCH = 20
HALF = 0.5


class Told(Room):
    """Room that says when there are new figures."""

    def __init__(self) -> None:
        super().__init__(LOGGERS)
        self.told = asyncio.Event()

    def on_figures(self, fill: float, heap_bytes: int, members: int) -> None:
        super().on_figures(fill, heap_bytes, members)
        self.told.set()


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    """Three members of this test's own, with the heap that is usual."""
    members = Members(tmp_path_factory.mktemp("full"))
    try:
        yield members.start()
    finally:
        members.stop()


async def post(own: Members, logger: int) -> set[str]:
    """Put long texts as fast as they are taken until half is full and more refused.

    Returns:
        The ids that were acknowledged.
    """
    room = Told()
    watch = ClusterWatch(own.addresses, room=room)
    acknowledged: set[str] = set()
    async with Link(own.addresses, "rmi", watch.on_members) as link, watch.watching(link):
        await eventually(lambda: watch.state().safe, timeout_s=60)
        store = stores_on(Cluster(link, 8.0, room)).messages
        for number in range(10_000 // BATCH):
            batch = [(f"{logger}-{number}-{n}", TEXT) for n in range(BATCH)]
            while not await taken(store, batch):
                if room._fill > HALF:
                    return acknowledged
                # What was put since the last figures counts for all loggers: they may leave more.
                room.told.clear()
                await asyncio.wait_for(room.told.wait(), 30)
            acknowledged |= {id for id, _ in batch}
    raise AssertionError("there is no end to what they take")


async def taken(store: HazelcastMessageStore, batch: list[tuple[str, str]]) -> bool:
    try:
        await store.put_many(batch, "L")
    except errors.StoreFull:
        return False
    return True


async def test_long_texts_as_fast_as_they_are_taken_do_not_end_the_members(own: Members) -> None:
    acknowledged = set().union(*await asyncio.gather(*(post(own, n) for n in range(LOGGERS))))
    async with Link(own.addresses, "rmi") as link:
        fill = (await gather_map_statistics(await link.client(30), "messages")).fill
        store = stores_on(Cluster(link, 30.0))
        found = await read_ids(store)
        some = sorted(acknowledged)[:100]
        known = await store.messages.known([(id, TEXT) for id in [*some, "never sent"]])
    assert acknowledged <= set(found)
    assert known == ["same"] * len(some) + ["full"]
    assert HALF < fill <= FILL_MAX
    assert "OutOfMemory" not in "".join(
        path.read_text() for path in (own.data_dir / "log").glob("hazelcast-*.log")
    )

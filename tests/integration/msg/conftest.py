"""The event loops of these tests, and fixtures of the Hazelcast tests: one cluster for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.map_stats import gather_map_statistics
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.stores import Stores
from rmi_runtime import errors
from tests.hazelcast import Members
from tests.support import eventually

MAPS = ("messages", "messages.order", "consumed.order", "queue")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on asyncio's loop what does not name its loops."""
    marker = item.get_closest_marker("asyncio")
    if marker is not None and "loop_factories" in marker.kwargs:
        return LOOPS
    return {"asyncio": LOOPS["asyncio"]}


@pytest.fixture(scope="session")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    """Three members, for all tests of the session."""
    cluster = Members(tmp_path_factory.mktemp("members"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


async def whole(link: Link) -> bool:
    """Say whether all three members are there and every entry has its backups."""
    try:
        client = await link.client()
        safety = (await gather_map_statistics(client, "messages", fresh_s=0)).safety
    except errors.Unavailable:
        return False
    return safety.losses == 2 and len(link.members) == 3


@pytest.fixture
async def link(members: Members) -> AsyncIterator[Link]:
    """A way to the cluster, which is whole and empty."""
    async with Link(members.addresses, "rmi") as opened:
        await eventually(lambda: whole(opened), timeout_s=60)
        for name in MAPS:
            await (await opened.map(name)).clear()
        yield opened


@pytest.fixture
def stores(link: Link) -> Stores:
    """The interfaces to an empty cluster; an operation is given up after 8 s."""
    return stores_on(Cluster(link, 8.0))

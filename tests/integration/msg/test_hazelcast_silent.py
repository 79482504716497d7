"""A member's port that takes connections and says nothing, as that of a frozen process does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rmi_msg.hazelcast.addresses import among_members
from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.stores import stores_on
from rmi_runtime import split_address
from tests.hazelcast import Members
from tests.integration.msg.hazelcast_load import Load, check_nothing_lost, enough
from tests.support import eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(180)]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Members]:
    """Two members of three; the third is not there."""
    members = Members(tmp_path)
    try:
        for number in (1, 2):
            members.start_owner(number)
        for number in (1, 2):
            members.wait_ready(number)
        yield members
    finally:
        members.stop()


@pytest.fixture
async def heard(two: Members) -> AsyncIterator[list[bytes]]:
    """Whatever reaches both ports of the third, which answers nothing."""
    found: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        found.append(await reader.read(3))
        await reader.read()  # until they hang up

    outer = two.addresses[2]
    servers = [
        await asyncio.start_server(listen, *split_address(address), family=socket.AF_INET)
        for address in (outer, among_members(outer))
    ]
    yield found
    for server in servers:
        server.close()


async def test_members_go_on_beside_one_that_takes_connections_and_says_nothing(
    two: Members, heard: list[bytes]
) -> None:
    async with Link(two.addresses[:2], "rmi") as link:
        await link.client(wait_s=30)
        stores = stores_on(Cluster(link, 8.0))
        load = Load(stores, "beside")
        async with load.running():
            await enough(load, 20)
            await eventually(lambda: heard, timeout_s=60)  # one looks for it every 5 s
            assert heard[0] == b"HZC"
            await enough(load, 200)
        await check_nothing_lost(stores, load)

"""Members that are told to leave one shortly after the other: on real members."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.member import running_members
from rmi_msg.hazelcast.stores import stores_on
from tests.hazelcast import Members
from tests.integration.msg.conftest import whole
from tests.integration.msg.hazelcast_load import Load, check_nothing_lost, enough
from tests.support import eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(240)]


@pytest.fixture
def own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Members]:
    """Three members of this test's own, which wait for each other for long enough."""
    monkeypatch.setenv("RMI_STOP_WAIT_S", "80")
    members = Members(tmp_path_factory.mktemp("leaving"))
    try:
        yield members.start()
    finally:
        members.stop()


async def test_the_second_to_leave_stays_until_the_first_is_back(own: Members) -> None:
    counts: list[int] = []

    def count(present: tuple[str, ...]) -> None:
        if present:  # the connection stands
            counts.append(len(present))

    async with Link(own.addresses, "rmi", count) as link:
        await eventually(lambda: whole(link), timeout_s=60)
        stores = stores_on(Cluster(link, 8.0))
        load = Load(stores, "leaving")
        counts.clear()
        async with load.running():
            await enough(load, 100)
            own.signal_owner(signal.SIGTERM, 2)
            await asyncio.to_thread(own.wait_ended, 2)
            own.start_owner(2)
            await eventually(
                lambda: own.addresses[1] in running_members(own.data_dir), timeout_s=60
            )
            assert len(link.members) == 2
            own.signal_owner(signal.SIGTERM, 3)
            await asyncio.to_thread(own.wait_ended, 3)
            assert own.addresses[1] in link.members
            await enough(load, 100)
            own.start_owner(3)
            for number in (2, 3):
                await asyncio.to_thread(own.wait_ready, number)
        await eventually(lambda: whole(link), timeout_s=60)
        # Never had there been one alone, which must not acknowledge while another is coming.
        assert min(counts) == 2, counts
        await check_nothing_lost(stores, load)
        print(
            f"\n{len(load.acknowledged)} acknowledged, 0 lost, 0 doubled; longest stall "
            f"{load.stall_s:.2f} s; callers saw {dict(load.refused) or 'no error'}"
        )

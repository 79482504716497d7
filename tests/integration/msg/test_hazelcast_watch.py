"""What a person is told while members join, are lost, and come back: on real members."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator

import pytest

from rmi_msg.cluster_state import State
from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.hazelcast.watch import ClusterWatch
from tests.hazelcast import Members
from tests.support import eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(240)]


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    """Three members of this test's own, not started yet."""
    members = Members(tmp_path_factory.mktemp("watched"))
    try:
        yield members
    finally:
        members.stop()


async def start(own: Members, *numbers: int) -> None:
    for number in numbers:
        own.start_owner(number)
    for number in numbers:
        await asyncio.to_thread(own.wait_ready, number)


async def test_the_watch_tells_of_joining_safety_a_loss_and_safety_again(
    own: Members, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watch = ClusterWatch(own.addresses)
    seen: list[State] = []

    async def reached(state: State, members: int, losses: int | None) -> None:
        def there() -> bool:
            now = watch.state()
            if not seen or seen[-1] != now.state:
                seen.append(now.state)
            return (now.state, now.members, now.losses) == (state, members, losses)

        await eventually(there, timeout_s=60)

    assert watch.state().state == "unreachable"
    await start(own, 1)
    async with Link(own.addresses, "rmi", watch.on_members) as link, watch.watching(link):
        await reached("joining", 1, 0)
        assert watch.state().absent == own.addresses[1:]
        await start(own, 2, 3)
        await reached("safe", 3, 2)
        messages = [(f"id{n}", "x") for n in range(500)]
        await stores_on(Cluster(link, 8.0)).messages.put_many(messages, "L")
        await reached("safe", 3, 2)

        seen.clear()
        own.kill_owner(3)  # so that nobody starts it again
        own.signal(signal.SIGKILL, 3)
        await reached("lost", 2, 1)
        assert seen[-2:] == ["migrating", "lost"]
        assert watch.state().safe
        assert watch.state().absent == own.addresses[2:]

        seen.clear()
        await start(own, 3)
        await reached("safe", 3, 2)
        assert seen[-2:] == ["migrating", "safe"]

        for number in own.numbers:
            own.kill_owner(number)
        own.signal(signal.SIGKILL, *own.numbers)
        await reached("unreachable", 0, None)

    told = "\n".join(record.getMessage() for record in caplog.records)
    for words in (
        "joining",
        "3 of 3 members, safe for the next loss: any 2 may be lost at once",
        f"the cluster has lost member {own.addresses[2]}: 2 of 3 are left",
        "lost a member, safe for the next loss",
        "data is being moved",
        "none of 3 members can be reached",
    ):
        assert words in told

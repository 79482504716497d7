"""Members killed under load: what was acknowledged is there, once.

``HAZELCAST_ROUNDS`` says how often two of three members are killed (2 unless set); the figures are
printed (``pytest -s``).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter

import pytest

from rmi_msg.errors import LogBegunAnew
from rmi_msg.hazelcast.link import Link
from rmi_msg.stores import Stores
from rmi_runtime import errors
from tests.hazelcast import Members
from tests.integration.msg.conftest import whole
from tests.integration.msg.hazelcast_load import Load, enough, read_ids
from tests.support import eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(300)]

ROUNDS = int(os.environ.get("HAZELCAST_ROUNDS", "2"))


async def test_two_of_three_members_killed_at_once_lose_nothing(
    members: Members, link: Link, stores: Stores
) -> None:
    # The client of this test is not one of the processes that owned the dead members.
    loads = []
    for number in range(ROUNDS):
        await eventually(lambda: whole(link), timeout_s=90)
        load = Load(stores, f"kill{number}")
        loads.append(load)
        first, second = [n for n in members.numbers if n != number % 3 + 1]
        async with load.running():
            await enough(load, 300)
            members.signal(signal.SIGKILL, first, second)
            await enough(load, 300)
        ids = await read_ids(stores)
        assert len(ids) == len(set(ids)), "doubled"
        lost = set().union(*(one.acknowledged for one in loads)) - set(ids)
        assert not lost, f"{len(lost)} acknowledged messages are lost"
        print(
            f"\nround {number + 1}: members {first} and {second} killed; "
            f"{len(load.acknowledged)} acknowledged, 0 lost, 0 doubled; longest stall "
            f"{load.stall_s:.2f} s; callers saw {dict(load.refused) or 'no error'}"
        )
    await eventually(lambda: whole(link), timeout_s=90)


async def test_every_member_down_is_refused_in_time_and_heals_by_itself(
    members: Members, link: Link, stores: Stores
) -> None:
    await stores.messages.put_many([("before", "x"), ("too", "x")], "L")
    followed = (await stores.messages.page(None, 1)).next
    assert followed is not None
    members.signal(signal.SIGKILL, *members.numbers)
    codes: Counter[str] = Counter()
    acknowledged = []
    longest_s = 0.0

    async def heals() -> bool:
        nonlocal longest_s
        id = f"id{sum(codes.values())}"
        began = time.monotonic()
        try:
            await stores.messages.put_many([(id, "x")], "L")
        except errors.RmiError as error:
            codes[error.code] += 1
            return False
        finally:
            longest_s = max(longest_s, time.monotonic() - began)
        acknowledged.append(id)
        return True

    await eventually(heals, timeout_s=90)
    assert set(codes) <= {"unavailable", "interrupted"}
    assert codes
    assert longest_s < 8.0 + 2.5
    # All data is gone with the last member; what was acknowledged since is there.
    assert set(acknowledged) <= set(await read_ids(stores))
    assert "before" not in await read_ids(stores)
    with pytest.raises(LogBegunAnew):  # nobody who follows the messages takes this for the same log
        await stores.messages.page(followed, 10)
    print(f"\nevery member down: callers saw {dict(codes)}, none waited over {longest_s:.1f} s")
    await eventually(lambda: whole(link), timeout_s=90)


async def test_a_member_outlives_its_owner_and_is_taken_over(
    members: Members, link: Link, stores: Stores
) -> None:
    before = members.note(3)
    members.kill_owner(3)
    await stores.messages.put_many([("a", "x")], "L")
    members.start_owner(3)
    await asyncio.to_thread(members.wait_ready, 3)
    assert members.note(3) == before
    assert await read_ids(stores) == ["a"]

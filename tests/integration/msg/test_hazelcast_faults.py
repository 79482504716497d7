"""Members killed and frozen under load: what was acknowledged is there, once.

``HAZELCAST_ROUNDS`` says how often two of three members are killed (2 unless set); the figures are
printed (``pytest -s``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from rmi_msg.hazelcast.cluster import QUEUE, Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.stores import Claim, Stores
from rmi_runtime import errors
from tests.hazelcast import Members
from tests.integration.msg.conftest import whole
from tests.support import eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(300)]

ROUNDS = int(os.environ.get("HAZELCAST_ROUNDS", "2"))
WRITERS = 16
FREEZE_S = 15.0
CLAIM = 50


class Load:
    """Writers that put one message after the other, and note what they were told."""

    def __init__(self, stores: Stores, name: str) -> None:
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.stall_s = 0.0
        self._stores = stores
        self._name = name
        self._stop = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        writers = [asyncio.create_task(self._write(n)) for n in range(WRITERS)]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(*writers)

    async def _write(self, writer: int) -> None:
        count = 0
        while not self._stop.is_set():
            id = f"{self._name}-{writer}-{count}"
            count += 1
            began = time.monotonic()
            self.sent.add(id)
            # As callers do: the same id again until there is an answer.
            for _ in range(20):
                try:
                    await self._stores.messages.put_many([(id, id)], "L")
                except errors.RmiError as error:
                    self.refused[error.code] += 1
                else:
                    self.acknowledged.add(id)
                    break
            self.stall_s = max(self.stall_s, time.monotonic() - began)


async def read_ids(stores: Stores) -> list[str]:
    ids, after = [], None
    while True:
        page = await stores.messages.page(after, 1000)
        ids += [row.id for row in page.rows]
        if (after := page.next) is None:
            return ids


async def check_nothing_lost(stores: Stores, load: Load) -> None:
    ids = await read_ids(stores)
    assert len(ids) == len(set(ids)), "doubled"
    assert load.acknowledged <= set(ids), "lost"
    assert set(ids) <= load.sent, "invented"


async def enough(load: Load, count: int) -> None:
    more = len(load.acknowledged) + count
    await eventually(lambda: len(load.acknowledged) >= more, timeout_s=60)


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


async def test_a_member_frozen_for_15_s_loses_nothing(
    members: Members, link: Link, stores: Stores
) -> None:
    load = Load(stores, "frozen")
    async with load.running():
        await enough(load, 100)
        # The oldest is the master: the others have to find a new one, and it does not know.
        master = members.addresses.index(link.members[0]) + 1
        members.signal(signal.SIGSTOP, master)
        try:
            await asyncio.sleep(FREEZE_S)
        finally:
            members.signal(signal.SIGCONT, master)
        await enough(load, 100)
    await check_nothing_lost(stores, load)
    print(
        f"\na member frozen for {FREEZE_S:g} s: {len(load.acknowledged)} acknowledged, 0 lost, "
        f"longest stall {load.stall_s:.2f} s, callers saw {dict(load.refused) or 'no error'}"
    )
    await eventually(lambda: whole(link), timeout_s=90)
    await check_nothing_lost(stores, load)


async def test_a_queue_survives_its_owner_and_a_service_killed_half_way(
    members: Members, link: Link, stores: Stores
) -> None:
    ids = [f"id{n}" for n in range(1000)]
    await stores.messages.put_many([(id, id) for id in ids], "L")
    await eventually(lambda: whole(link), timeout_s=60)
    owner = await owner_of(link, QUEUE, "turns")
    members.signal(signal.SIGKILL, members.addresses.index(owner) + 1)
    new: Counter[str] = Counter()
    again = 0
    died = asyncio.Event()

    async def consume(one: Stores, by: str, claims: int) -> None:
        """Consume until all is done, or, after so many claims, die before the last is done."""
        nonlocal again
        while sum(new.values()) < 1000 or again < CLAIM:
            if sum(new.values()) >= 500 and by == "M1":
                await died.wait()  # half-way: the other one has had its turns
            await one.queue.sweep()
            claim: Claim | None = await one.queue.claim(by, CLAIM, 2.0)
            if claim is None:
                await asyncio.sleep(0.05)
                continue
            entered = await one.consumed.add(claim)
            new.update(id for (id, _), first in zip(claim.messages, entered, strict=True) if first)
            again += entered.count(False)
            claims -= 1
            if not claims:
                died.set()
                return
            await one.queue.done(claim)

    async with Link(members.addresses, "rmi") as other_link:
        other = stores_on(Cluster(other_link, 8.0))
        async with asyncio.timeout(90):
            await asyncio.gather(consume(stores, "M1", 10_000), consume(other, "M2", 5))
    assert set(new) == set(ids)
    assert set(new.values()) == {1}
    assert again == CLAIM
    page = await stores.consumed.page(None, 1000)
    assert sorted(row.id for row in page.rows) == sorted(ids)
    print(f"\n1,000 consumed once each; {again} were delivered again and recognized")


async def owner_of(link: Link, name: str, key: str) -> str:
    """Return the address of the member that owns a key."""
    client = await link.client()
    await link.map(name)
    partition = await client.partition_service.get_partition_id(key)
    uuid = client.partition_service.get_partition_owner(partition)
    member = client.cluster_service.get_members(lambda one: one.uuid == uuid)[0]
    return f"{member.address.host}:{member.address.port}"


async def test_every_member_down_is_refused_in_time_and_heals_by_itself(
    members: Members, link: Link, stores: Stores
) -> None:
    await stores.messages.put_many([("before", "x")], "L")
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

"""Members frozen under load and continued: what was acknowledged is there, once.

A frozen member is taken to be dead after 10 s. It does not know: for some seconds after it was
continued it is alone, and goes on without the others, as they did without it. Then it gives way.

``HAZELCAST_FREEZES`` says how often a member of three is frozen (1 unless set); the figures are
printed (``pytest -s``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.stores import Stores
from tests.hazelcast import Members
from tests.integration.msg.conftest import whole
from tests.integration.msg.hazelcast_load import Load, check_nothing_lost, enough
from tests.support import eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(900)]

FREEZES = int(os.environ.get("HAZELCAST_FREEZES", "1"))
FREEZE_S = 15.0
NEWCOMERS = 6
NEWCOMER_S = 12.0


@contextlib.contextmanager
def frozen(send: Callable[[signal.Signals, int], None], member: int) -> Iterator[None]:
    """Freeze the member's JVM, or its owner, as *send* has it, and let it go on in the end."""
    send(signal.SIGSTOP, member)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # its owner may have ended it just now
            send(signal.SIGCONT, member)


@contextlib.asynccontextmanager
async def newcomers(members: Members, name: str) -> AsyncIterator[list[Load]]:
    """Processes that connect and write just now, whichever part of the cluster they come upon."""
    loads: list[Load] = []

    async def come(number: int) -> None:
        async with Link(members.addresses, "rmi") as link:
            load = Load(stores_on(Cluster(link, 8.0)), f"{name}-{number}", writers=2)
            loads.append(load)
            async with load.running():
                await asyncio.sleep(NEWCOMER_S)

    tasks = [asyncio.create_task(come(number)) for number in range(NEWCOMERS)]
    try:
        yield loads
    finally:
        await asyncio.gather(*tasks)


async def test_a_member_frozen_for_15_s_loses_nothing(
    members: Members, link: Link, stores: Stores
) -> None:
    loads: list[Load] = []
    for number in range(FREEZES):
        await eventually(lambda: whole(link), timeout_s=90)
        load = Load(stores, f"frozen{number}")
        # The oldest is the master: the others have to find a new one, and it does not know.
        place = number % 2
        member = members.addresses.index(link.members[place]) + 1
        async with load.running():
            await enough(load, 100)
            # Its owner would end it once the others go on without it.
            with frozen(members.signal_owner, member):
                with frozen(members.signal, member):
                    await asyncio.sleep(FREEZE_S)
                async with newcomers(members, f"new{number}") as others:
                    await enough(load, 100)
        loads += [load, *others]
        await check_nothing_lost(stores, *loads)
        await eventually(lambda: whole(link), timeout_s=90)
        await check_nothing_lost(stores, *loads)
        came = sum(len(one.acknowledged) for one in others)
        refused: Counter[str] = sum((one.refused for one in others), Counter())
        print(
            f"\nfreeze {number + 1}: {'another member' if place else 'the master'}, "
            f"{FREEZE_S:g} s: {len(load.acknowledged)} acknowledged, 0 lost, 0 doubled; longest "
            f"stall {load.stall_s:.1f} s, callers saw {dict(load.refused) or 'no error'}; "
            f"newcomers: {came} acknowledged, saw {dict(refused) or 'no error'}"
        )


async def test_a_frozen_member_is_ended_by_its_owner_once_the_others_went_on_without_it(
    members: Members, link: Link, stores: Stores
) -> None:
    before = members.note(2)["member"]
    load = Load(stores, "ended")
    async with load.running():
        await enough(load, 100)
        members.signal(signal.SIGSTOP, 2)  # and never continued
        await eventually(lambda: members.note(2)["member"] != before, timeout_s=60)
        await enough(load, 100)
    assert not Path(f"/proc/{before}").exists()
    await eventually(lambda: whole(link), timeout_s=90)
    await check_nothing_lost(stores, load)
    print(
        f"\na member frozen for good was ended and started again: {len(load.acknowledged)} "
        f"acknowledged, 0 lost; longest stall {load.stall_s:.1f} s, callers saw "
        f"{dict(load.refused) or 'no error'}"
    )


async def test_a_member_frozen_and_then_another_killed_lose_nothing(
    members: Members, link: Link, stores: Stores
) -> None:
    # What the two acknowledged while the first was frozen, one alone has in the end. The first must
    # not come back with its old data, as an equal: of equals the one with the lower port stays.
    load = Load(stores, "both")
    try:
        async with load.running():
            await enough(load, 100)
            with frozen(members.signal, 1):
                await eventually(lambda: members.addresses[0] not in link.members, timeout_s=30)
                await enough(load, 200)
                members.kill_owner(3)  # so that nobody starts it again
                members.signal(signal.SIGKILL, 3)
                await eventually(lambda: members.addresses[2] not in link.members, timeout_s=30)
            await eventually(lambda: len(link.members) == 2, timeout_s=60)
            await enough(load, 100)
        await check_nothing_lost(stores, load)
        print(
            f"\none frozen, then another killed: {len(load.acknowledged)} acknowledged, 0 lost; "
            f"longest stall {load.stall_s:.1f} s, callers saw {dict(load.refused) or 'no error'}"
        )
    finally:
        members.start_owner(3)
        await asyncio.to_thread(members.wait_ready, 3)
    await eventually(lambda: whole(link), timeout_s=90)


async def test_of_two_members_one_frozen_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # Both parts are one member: neither knows which of them will give way.
    members = Members(tmp_path_factory.mktemp("two"), count=2)
    try:
        members.start()
        async with Link(members.addresses, "rmi") as link:
            stores = stores_on(Cluster(link, 8.0))
            await eventually(lambda: len(link.members) == 2, timeout_s=60)
            load = Load(stores, "two")
            async with load.running():
                await enough(load, 100)
                with frozen(members.signal, members.addresses.index(link.members[0]) + 1):
                    await asyncio.sleep(FREEZE_S)
                await eventually(lambda: len(link.members) == 2, timeout_s=60)
                await enough(load, 100)
            await check_nothing_lost(stores, load)
            print(
                f"\nof two members one frozen for {FREEZE_S:g} s: {len(load.acknowledged)} "
                f"acknowledged, 0 lost; longest stall {load.stall_s:.1f} s, callers saw "
                f"{dict(load.refused) or 'no error'}"
            )
    finally:
        members.stop()

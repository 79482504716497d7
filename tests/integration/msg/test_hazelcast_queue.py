"""The queue, with messages services that are real processes, killed at the worst moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from Pyro5.core import DAEMON_NAME

from rmi_msg.hazelcast.blocks import START
from rmi_msg.hazelcast.cluster import QUEUE, Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.portions import Portion, unpack
from rmi_msg.stores import Consumed, Stores
from rmi_runtime import URI, NameServers, Proxy, load_or_create_cluster_key
from tests.hazelcast import BIN, Members
from tests.integration.msg.conftest import whole
from tests.ports import free_ports
from tests.support import eventually

pytestmark = [pytest.mark.hazelcast, pytest.mark.timeout(240)]

WAITING = 1000
TEXT = "x" * 20_000
"""So long that one claim takes some 200 messages, and not all."""


class Processes:
    """A name server and messages services, as somebody starts them by hand.

    Args:
        data_dir: their data directory.
        members: what they keep their messages on.
    """

    def __init__(self, data_dir: Path, members: Members) -> None:
        self.name_server = f"127.0.0.1:{free_ports()}"
        self.handshake = {"cluster_key": load_or_create_cluster_key(data_dir)}
        self._data_dir = data_dir
        self._members = members
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start_name_server(self) -> None:
        self._start("nameserver")

    def start_messages(self, number: int) -> None:
        self._start(
            *("messages", "--id", str(number), "--store", "hazelcast"),
            *("--hazelcast-members", ",".join(self._members.addresses)),
        )

    def kill(self, name: str) -> None:
        """Kill -9 the messages service of that Pyro name."""
        process = self._started[f"messages --id {name.rpartition('.')[2]}"]
        process.kill()
        process.wait()

    async def stats(self, name: str) -> Mapping[str, Any]:
        async with NameServers([self.name_server], handshake=self.handshake) as names:
            location = URI(await names.lookup(name)).location
        place = f"PYRO:{DAEMON_NAME}@{location}"
        async with Proxy(place, handshake=self.handshake) as daemon:
            stats: Mapping[str, Any] = await daemon._call("stats")
            return stats

    def stop(self) -> None:
        for process in self._started.values():
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
        for process in self._started.values():
            process.wait(30)

    def _start(self, *arguments: str) -> None:
        command = [str(BIN / "rmi"), *arguments, "--ns", self.name_server]
        command += ["--data-dir", str(self._data_dir)]
        output = self._data_dir / f"{'-'.join(arguments[:3])}.out"
        with output.open("wb") as file:
            self._started[" ".join(arguments[:3])] = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=self._data_dir
            )


@pytest.fixture
def processes(members: Members, tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path, members)
    try:
        yield started
    finally:
        started.stop()


async def owner_of(link: Link, name: str, key: str) -> str:
    """Return the address of the member that owns a key."""
    client = await link.client()
    await link.map(name)
    partition = await client.partition_service.get_partition_id(key)
    uuid = client.partition_service.get_partition_owner(partition)
    member = client.cluster_service.get_members(lambda one: one.uuid == uuid)[0]
    return f"{member.address.host}:{member.address.port}"


async def claims(link: Link) -> list[dict[str, Any]]:
    """Return the claims that have holders and are not done, straight from the map."""
    value = await (await link.map(QUEUE)).get("turns")
    turns = json.loads(value.to_string())["turns"] if value is not None else []
    return [turn for turn in turns if turn["by"] is not None]


async def portions(link: Link) -> list[Portion]:
    """Return what has been entered as consumed, straight from the map."""
    listed = await Cluster(link, 8.0).consumed_order.read(START, 1000)
    return [unpack(one.id) for one in listed]


async def count(link: Link) -> int:
    """Return how many messages have been entered as consumed."""
    order = Cluster(link, 8.0).message_order
    parts = [await order.between(one.first, one.end) for one in await portions(link)]
    return sum(len(ids or ()) for ids in parts)


async def all_consumed(stores: Stores) -> list[Consumed]:
    rows: list[Consumed] = []
    after = None
    while True:
        page = await stores.consumed.page(after, 1000)
        rows += page.rows
        if (after := page.next) is None:
            return rows


async def test_a_queue_survives_its_owner_and_a_service_killed_half_way(
    members: Members, link: Link, stores: Stores, processes: Processes
) -> None:
    ids = [f"id{n:04}" for n in range(WAITING)]
    for start in range(0, WAITING, 100):
        await stores.messages.put_many([(id, TEXT) for id in ids[start : start + 100]], "L")
    await eventually(lambda: whole(link), timeout_s=60)
    owner = await owner_of(link, QUEUE, "turns")
    members.signal(signal.SIGKILL, members.addresses.index(owner) + 1)

    processes.start_name_server()
    for number in (1, 2):
        processes.start_messages(number)
    killed = ""

    async def half_way() -> bool:
        """Kill a service in the middle of a claim."""
        nonlocal killed
        for claim in await claims(link):
            if claim.get("mark") is None:
                killed = claim["by"]
                processes.kill(killed)
                break
        return bool(killed)

    await eventually(half_way, timeout_s=60, every_s=0.001)

    async def done() -> bool:
        return await count(link) == WAITING and not await claims(link)

    await eventually(done, timeout_s=60)
    rows = await all_consumed(stores)
    assert sorted(row.id for row in rows) == ids  # each once
    by = Counter(row.by for row in rows)
    (other,) = {"msg.messages.1", "msg.messages.2"} - {killed}
    stats = await processes.stats(other)
    assert by[killed] < WAITING, "it was killed too late to matter"
    assert stats["consumed"] == by[other]
    print(
        f"\n{WAITING:,} waiting, the queue's owner {owner} killed, {killed} killed half-way: "
        f"each consumed once ({dict(by)})"
    )

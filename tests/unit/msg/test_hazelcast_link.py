"""The way to the cluster is made anew whatever its users do."""

from __future__ import annotations

import asyncio
import errno
import gc
import time
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from hazelcast.errors import TargetDisconnectedError

from rmi_msg.hazelcast import link as link_module
from rmi_msg.hazelcast.link import Link

CLUSTER_ID = uuid.uuid4()


class Client:
    """Stands in for a client that is connected to one member."""

    def __init__(self, cluster_id: uuid.UUID = CLUSTER_ID) -> None:
        self._connection_manager = SimpleNamespace(_cluster_id=cluster_id)
        self.cluster_service = SimpleNamespace(
            get_members=lambda: [SimpleNamespace(address=SimpleNamespace(host="h", port=1))]
        )

    async def shutdown(self) -> None:
        """Nothing has to be ended."""


@pytest.mark.parametrize("trouble", [(), ("h:1",)], ids=["lost", "connected"])
async def test_a_user_who_fails_as_members_change_does_not_end_the_way_to_the_cluster(
    trouble: tuple[str, ...],
) -> None:
    told: list[tuple[str, ...]] = []

    def on_members(members: tuple[str, ...]) -> None:
        told.append(members)
        if members == trouble:
            raise OSError(errno.EMFILE, "Too many open files")

    clients = [Client(), Client()]
    link: Any = Link(["h:1"], "rmi", on_members)
    made = iter(clients)

    async def connect() -> Client:
        return next(made)

    link._connect = connect
    async with link:
        assert await link.client() is clients[0]
        link._connected.clear()  # as the connection breaks
        link._ended.set()
        assert await link.client() is clients[1]
        assert told == [("h:1",), (), ("h:1",)]


async def test_a_cluster_that_was_begun_anew_is_told_of_as_what_was_kept_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients = [Client(), Client(), Client(uuid.uuid4())]
    link: Any = Link(["h:1"], "rmi")
    made = iter(clients)

    async def connect() -> Client:
        return next(made)

    def told() -> list[str]:
        return [text for text in caplog.messages if "begun anew" in text]

    link._connect = connect
    async with link:
        assert await link.client() is clients[0]
        for client, lines in ((clients[1], 0), (clients[2], 1)):
            link._connected.clear()  # as the connection breaks
            link._ended.set()
            assert await link.client() is client
            assert len(told()) == lines
    assert "are lost" in told()[0]


async def test_a_ping_that_a_frozen_member_does_not_answer_leaves_no_traceback_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))

    async def not_started(step: Any) -> None:
        step.close()

    monkeypatch.setattr(link_module, "_apart", not_started)
    link: Any = Link(["127.0.0.1:1"], "rmi")
    client = await link._connect()
    pings = []

    def unanswered(invocation: Any) -> None:
        pings.append(invocation)
        invocation.future.set_exception(TargetDisconnectedError("Heartbeat timed out"))

    monkeypatch.setattr(client._invocation_service, "invoke", unanswered)
    heartbeats = client._connection_manager._heartbeat_manager
    now_s = time.time()
    silent = SimpleNamespace(live=True, last_read_time=now_s, last_write_time=0.0)
    await heartbeats._check_connection(now_s, silent)
    await asyncio.wait(set(heartbeats._tasks))
    pings_made = len(pings)
    pings.clear()
    gc.collect()  # asyncio complains of a failure that nobody saw when its task is forgotten
    assert pings_made == 1
    assert complaints == []

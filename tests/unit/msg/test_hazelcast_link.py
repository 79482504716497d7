"""The way to the cluster is made anew whatever its users do."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from rmi_msg.hazelcast.link import Link


class Client:
    """Stands in for a client that is connected to one member."""

    def __init__(self) -> None:
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

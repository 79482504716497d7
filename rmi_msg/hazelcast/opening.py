"""Opens the stores of one process: its member, if it has one, its client, and an eye on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from rmi_msg.hazelcast.addresses import member_addresses
from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.expulsion import Expulsion
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.member import Member, until
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.hazelcast.watch import ClusterWatch
from rmi_msg.stores import Stores
from rmi_runtime import Settings

PERSIST_SHARE: Final = 0.8
"""Share of a caller's patience after which an operation is given up, so that the caller hears."""

START_SHARE: Final = 0.9
"""Share of the time for starting after which a member's failure is told."""


@asynccontextmanager
async def open_stores(settings: Settings, number: int | None = None) -> AsyncIterator[Stores]:
    """Open the stores on a cluster.

    Args:
        settings: where the members are, and how long to persist.
        number: of the logger whose own member is to run meanwhile; None: no member is started, nor
            if ``settings.hazelcast_members`` names others.

    Yields:
        The three interfaces.

    Raises:
        MemberFailed: the member did not start.
        Unavailable: no member could be reached.
    """
    watch = ClusterWatch(member_addresses(settings, number or 1))
    async with AsyncExitStack() as stack:
        if number is not None and not settings.hazelcast_members:
            member = open_member(settings, number, watch=watch)
            link = await stack.enter_async_context(member)
        else:
            link = await stack.enter_async_context(_watched(settings, watch, 1))
            await link.client(settings.start_wait_s * START_SHARE)
        persist_s = settings.call_timeout_s * PERSIST_SHARE
        yield stores_on(Cluster(link, persist_s, lambda: watch.fill), watch.state)


@asynccontextmanager
async def _watched(
    settings: Settings, watch: ClusterWatch, number: int, own: Expulsion | None = None
) -> AsyncIterator[Link]:
    def on_members(present: tuple[str, ...]) -> None:
        watch.on_members(present)
        if own is not None:
            own.on_members(present)

    members = member_addresses(settings, number)
    async with (
        Link(members, settings.hazelcast_cluster, on_members) as link,
        watch.watching(link),
    ):
        yield link


@asynccontextmanager
async def open_member(
    settings: Settings,
    number: int,
    address: str | None = None,
    watch: ClusterWatch | None = None,
) -> AsyncIterator[Link]:
    """Run a member, and wait until it has joined.

    Args:
        settings: where the members are.
        number: of the logger it belongs to; its files have it in their names.
        address: ``host:port`` that it listens on; None: that of the logger's own.
        watch: keeps an eye on the cluster; None: a new one.

    Yields:
        The way to the cluster that it is part of.

    Raises:
        MemberFailed: it did not start.
    """
    expected = member_addresses(settings, number)
    watch = watch or ClusterWatch(expected)
    async with (
        Member(settings, number, address) as member,
        _watched(settings, watch, number, Expulsion(member, len(expected))) as link,
    ):
        wait_s = settings.start_wait_s * START_SHARE
        await until(lambda: member.address in link.members, member, wait_s)
        yield link

"""Opens the stores of one process: its member, if it has one, its client, and an eye on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Final, NamedTuple

from rmi_msg.hazelcast.addresses import member_addresses
from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.expulsion import Expulsion
from rmi_msg.hazelcast.install import hazelcast_dir
from rmi_msg.hazelcast.leaving import Leaving
from rmi_msg.hazelcast.link import Link, Listener
from rmi_msg.hazelcast.member import Member, running_members, until
from rmi_msg.hazelcast.room import Room
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.hazelcast.watch import ClusterWatch
from rmi_msg.stores import Stores, at_once
from rmi_runtime import Settings

PERSIST_SHARE: Final = 0.8
"""Share of a caller's patience after which an operation is given up, so that the caller hears."""

START_SHARE: Final = 0.9
"""Share of the time for starting after which a member's failure is told."""

LEAVE_SHARE: Final = 0.6
"""Share of the time for stopping that a member may wait before it leaves."""


class Joined(NamedTuple):
    """A member that has joined.

    Attributes:
        link: the way to the cluster that it is part of.
        leaving: tells when it may leave.
    """

    link: Link
    leaving: Leaving


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
    room = Room(max(settings.loggers, number or 1), settings.hazelcast_heap_mib)
    watch = ClusterWatch(member_addresses(settings, number or 1), room=room)
    async with AsyncExitStack() as stack:
        if number is not None and not settings.hazelcast_members:
            member = open_member(settings, number, watch=watch)
            link, leaving = await stack.enter_async_context(member)
            may_stop = leaving.wait
        else:
            link = await stack.enter_async_context(_watched(settings, watch, 1))
            await link.client(settings.start_wait_s * START_SHARE)
            may_stop = at_once
        persist_s = settings.call_timeout_s * PERSIST_SHARE
        yield stores_on(Cluster(link, persist_s, room), watch.state, may_stop)


@asynccontextmanager
async def _watched(
    settings: Settings, watch: ClusterWatch, number: int, *listeners: Listener
) -> AsyncIterator[Link]:
    def on_members(present: tuple[str, ...]) -> None:
        for listener in (watch.on_members, *listeners):
            listener(present)

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
) -> AsyncIterator[Joined]:
    """Run a member, and wait until it has joined; at the end, until it may leave.

    Args:
        settings: where the members are.
        number: of the logger it belongs to; its files have it in their names.
        address: ``host:port`` that it listens on; None: that of the logger's own.
        watch: keeps an eye on the cluster; None: a new one.

    Yields:
        The way to the cluster that it is part of, and when it may leave that.

    Raises:
        MemberFailed: it did not start.
    """
    expected = member_addresses(settings, number)
    watch = watch or ClusterWatch(expected)
    own = Member(settings, number, address)
    leaving = Leaving(
        own.address,
        expected,
        lambda: running_members(settings.data_dir),
        hazelcast_dir(settings.data_dir) / "leaving.lock",
        settings.stop_wait_s * LEAVE_SHARE,
    )
    expulsion = Expulsion(own, len(expected))
    listeners = (leaving.on_members, expulsion.on_members)
    with closing(leaving):
        async with own as member, _watched(settings, watch, number, *listeners) as link:
            wait_s = settings.start_wait_s * START_SHARE
            await until(lambda: member.address in link.members, member, wait_s)
            yield Joined(link, leaving)
            await leaving.wait()

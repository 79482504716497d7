"""Opens the stores of one process: its member, if it has one, its client, and an eye on both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from rmi_msg.hazelcast.addresses import member_addresses
from rmi_msg.hazelcast.cluster import MESSAGES, Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.map_stats import Safety, gather_map_statistics
from rmi_msg.hazelcast.member import Member, until
from rmi_msg.hazelcast.stores import stores_on
from rmi_msg.stores import Stores
from rmi_runtime import Settings, errors

log = logging.getLogger(__name__)

PERSIST_SHARE: Final = 0.8
"""Share of a caller's patience after which an operation is given up, so that the caller hears."""

START_SHARE: Final = 0.9
"""Share of the time for starting after which a member's failure is told."""

LOOK_S: Final = 1.0
"""Pause between two looks at the members' statistics, in seconds."""


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
    watch = ClusterWatch()
    async with AsyncExitStack() as stack:
        if number is not None and not settings.hazelcast_members:
            member = open_member(settings, number, watch=watch)
            link = await stack.enter_async_context(member)
        else:
            link = await stack.enter_async_context(_watched(settings, watch, 1))
            await link.client(settings.start_wait_s * START_SHARE)
        persist_s = settings.call_timeout_s * PERSIST_SHARE
        yield stores_on(Cluster(link, persist_s, lambda: watch.fill))


@asynccontextmanager
async def _watched(settings: Settings, watch: ClusterWatch, number: int) -> AsyncIterator[Link]:
    members = member_addresses(settings, number)
    async with (
        Link(members, settings.hazelcast_cluster, watch.on_members) as link,
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
    async with (
        Member(settings, number, address) as member,
        _watched(settings, watch or ClusterWatch(), number) as link,
    ):
        wait_s = settings.start_wait_s * START_SHARE
        await until(lambda: member.address in link.members, member, wait_s)
        yield link


class ClusterWatch:
    """Tells in the log what becomes of the cluster: who joined, who was lost, when it is safe.

    Attributes:
        fill: how full the fullest member was found last, from 0 to 1.
    """

    def __init__(self) -> None:
        self.fill = 0.0
        self._members: tuple[str, ...] = ()
        self._untold = False
        self._said = ""

    def on_members(self, members: tuple[str, ...]) -> None:
        """Take note of the members that are there now; none: there is no connection."""
        before, self._members = set(self._members), members
        if not members:
            return
        count = len(members)
        for member in sorted(set(members) - before):
            log.info("the cluster has member %s; %d in all", member, count)
        for member in sorted(before - set(members)):
            log.warning("the cluster has lost member %s; %d left", member, count)
        self._untold = True

    @asynccontextmanager
    async def watching(self, link: Link) -> AsyncIterator[None]:
        """Watch in the background, by *link*."""
        task = asyncio.create_task(self._watch(link))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, link: Link) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                client = await link.client()
                found = await gather_map_statistics(client, MESSAGES, fresh_s=0)
            except errors.RmiError as error:
                log.debug("no statistics: %s", error)
                continue
            self.fill = found.fill
            if self._untold:
                self._tell(found.safety)

    def _tell(self, safety: Safety) -> None:
        """Tell how safe the cluster is since its members changed, until that is settled."""
        settled = not safety.migrating and not safety.backups_missing
        # Told once while data is being moved, though the figures change all the time.
        said = str(safety) if settled else "moving"
        if said != self._said:
            log.log(logging.INFO if safety.safe else logging.WARNING, "%s", safety)
        self._said = said
        self._untold = not settled

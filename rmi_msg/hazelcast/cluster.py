"""The maps that the messages are kept in, and the bounds of every operation on them.

Four maps, each with two backups:

    messages          id to {text, received_at, logger, block}: one entry per message
    messages.order    number to block: the order of arrival
    consumed.order    number to block: the order of consumption, of whole claims
    queue             one entry: who may consume what
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.marks import Marks
from rmi_msg.hazelcast.order import Order
from rmi_msg.hazelcast.records import Records
from rmi_msg.hazelcast.room import Room
from rmi_msg.hazelcast.table import HazelcastTable, Table
from rmi_runtime import errors

MESSAGES: Final = "messages"
CONSUMED: Final = "consumed"
QUEUE: Final = "queue"
ORDER_SUFFIX: Final = ".order"


class MessageEntry(msgspec.Struct, frozen=True):
    """A message, as JSON in its map."""

    text: str
    received_at: str
    logger: str
    block: int


class Cluster:
    """The maps of one cluster, and how long to persist.

    Args:
        link: the way to the cluster.
        persist_s: how long one operation goes on trying, in seconds.
        room: how much more may be put; None: what there is of a default member.
        open_table: makes a table by its map's name; None: on *link*.
    """

    def __init__(
        self,
        link: Link,
        persist_s: float,
        room: Room | None = None,
        open_table: Callable[[str], Any] | None = None,
    ) -> None:
        self._link = link
        self._persist_s = persist_s
        self.room = room or Room()

        def on_link(name: str) -> Any:
            return HazelcastTable(link, name)

        tables = open_table or on_link
        self.message_order = Order(tables(MESSAGES + ORDER_SUFFIX))
        self.consumed_order = Order(tables(CONSUMED + ORDER_SUFFIX))
        self.message_marks = Marks(tables(MESSAGES + ORDER_SUFFIX))
        self.consumed_marks = Marks(tables(CONSUMED + ORDER_SUFFIX))
        self.messages = Records(tables(MESSAGES), self.message_order, MessageEntry)
        self.queue: Table[str] = tables(QUEUE)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Bound a block that writes.

        Raises:
            Unavailable: no member can be reached; nothing was written.
            Interrupted: the cluster did not confirm in time; any part may have been written.
        """
        await self._link.client()
        try:
            async with asyncio.timeout(self._persist_s):
                yield
        except (TimeoutError, errors.Unavailable) as error:
            raise errors.Interrupted(
                f"the Hazelcast cluster did not confirm within {self._persist_s:g} s; "
                "it may have been written: send the same ids again"
            ) from error

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Bound a block that only reads.

        Raises:
            Unavailable: the cluster cannot be read now.
        """
        try:
            async with asyncio.timeout(self._persist_s):
                yield
        except TimeoutError as error:
            raise errors.Unavailable(
                f"the Hazelcast cluster did not answer within {self._persist_s:g} s; try again"
            ) from error

"""Where messages live, behind three small interfaces.

- :class:`MessageStore`: the messages themselves, one per id, in their order of arrival (loggers);
- :class:`MessageQueue`: hands every message to exactly one messages service;
- :class:`ConsumedStore`: what the messages services have consumed, one entry per id.

The promises hold for every implementation; :mod:`rmi_msg.stores.opening` opens the one that the
settings name.

One message's way, and what a death in between costs::

    put_many ──▶ [stored, will be offered] ──▶ claim ──▶ add (consumed) ──▶ done
                                                 │                  │
                           a death here: the claim's lease ends, the message is offered again;
                           if it was added already, adding it again changes nothing
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from rmi_msg.cluster_state import STORE, ClusterState
from rmi_runtime import TROUBLE, ServiceContext

Word = Literal["new", "same", "other", "full"]
"""What putting a message came to: it is new; it was there already; its id has another text; it was
not there, and the store has no room for it."""


class Message(NamedTuple):
    """A stored message: its id and text, when it arrived (ISO 8601, UTC), at which logger."""

    id: str
    text: str
    received_at: str
    logger: str


class Consumed(NamedTuple):
    """A consumed message: its id and text, when it was consumed (ISO 8601, UTC), and by whom."""

    id: str
    text: str
    consumed_at: str
    by: str


Row = TypeVar("Row", Message, Consumed)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows in order.

    Attributes:
        rows: at most as many as asked for, and at most some megabytes of text.
        next: the cursor of the page that follows, or None if this was the last at that moment.
    """

    rows: list[Row]
    next: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """Messages that one messages service, and no other, may consume for a while.

    Attributes:
        messages: (id, text) pairs in order of arrival, at least one.
        by: the service that holds the claim.
        token: what the store needs to know the claim again; of no meaning to anyone else.
    """

    messages: Sequence[tuple[str, str]]
    by: str
    token: Any


class MessageStore(Protocol):
    """The messages, one per id; shared by all loggers."""

    async def put_many(self, messages: Sequence[tuple[str, str]], logger: str) -> list[Word]:
        """Store messages that are not there yet, and see that they are offered to the queue.

        When this returns, every message of the batch is as safe as the store can make it, and will
        be claimed sooner or later. If it raises, any part of the batch may have been stored: ids
        make it safe to put the same batch again.

        Args:
            messages: (id, text) pairs. The first of two with the same id counts.
            logger: Pyro name of the logger that got them.

        Returns:
            One word per message, in order, none of them ``full``. ``other``: the text that was
            there first stays.

        Raises:
            StoreFull: there is no room for what is new; none was stored.
        """
        ...

    async def known(self, messages: Sequence[tuple[str, str]]) -> list[Word]:
        """Tell what is there already, also when there is no room for more.

        Args:
            messages: (id, text) pairs.

        Returns:
            One word per message, in order: ``same``, ``other``, or ``full`` if it is not there.
        """
        ...

    async def page(self, after: str | None, limit: int) -> Page[Message]:
        """Read messages in their order of arrival.

        No message ever appears before a place that a reader has passed: following ``next`` from
        None to None reads all that was stored when the reading began, each once.

        Args:
            after: None to begin, or the ``next`` of a page, of whichever logger.
            limit: most messages to return, from 1 to 1,000.

        Raises:
            InvalidRequest: *after* is no cursor of this store.
            LogBegunAnew: it is of a log that was lost, or of what an older copy has not.
        """
        ...


class MessageQueue(Protocol):
    """Hands messages out; shared by all messages services."""

    async def claim(self, by: str, limit: int, lease_s: float) -> Claim | None:
        """Take the next messages that nobody has, at once or not at all.

        Args:
            by: Pyro name of the messages service.
            limit: most messages to take.
            lease_s: seconds after which others may have them, unless :meth:`done` came first.

        Returns:
            The claim, or None if nothing waits.
        """
        ...

    async def done(self, claim: Claim) -> bool:
        """Forget a claim whose messages are all in the consumed store.

        Returns:
            False if the claim had run out and its messages were given to another.
        """
        ...

    async def give_back(self, by: str) -> int:
        """Offer again, at once, whatever *by* holds: for a service that starts anew or stops.

        Returns:
            How many claims that were.
        """
        ...

    async def sweep(self) -> int:
        """Offer again what was claimed and not done in time.

        Returns:
            How many claims that were.
        """
        ...


class ConsumedStore(Protocol):
    """What was consumed, one entry per id; shared by all messages services."""

    async def add(self, claim: Claim) -> list[bool]:
        """Enter a claim's messages as consumed by its holder, unless they are entered already.

        Returns:
            Per message, in order, whether it was entered for this claim: False for one that another
            has entered, or will, since the claim had run out.
        """
        ...

    async def page(self, after: str | None, limit: int) -> Page[Consumed]:
        """Read consumed messages in the order of consumption; see :meth:`MessageStore.page`."""
        ...


async def at_once() -> None:
    """Return at once: nothing has to be waited for."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The three interfaces to one store, as one process uses them.

    Attributes:
        state: tells what the store's cluster is doing; None: it is none that has to be told of.
        trouble: says in a sentence why the store cannot be used; None if nothing is known against
            it.
        may_stop: returns when the store can do without what this process keeps of it.
    """

    messages: MessageStore
    queue: MessageQueue
    consumed: ConsumedStore
    state: Callable[[], ClusterState] | None = None
    trouble: Callable[[], str | None] = lambda: None
    may_stop: Callable[[], Awaitable[None]] = at_once

    def tell_state(self, context: ServiceContext) -> None:
        """Have the service's daemon tell :attr:`state` and :attr:`trouble` in its ``stats()``."""
        context.tell(TROUBLE, self.trouble)
        if (state := self.state) is not None:
            context.tell(STORE, lambda: msgspec.to_builtins(state()))

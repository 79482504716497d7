"""The messages service: consumes the messages that the loggers stored, each once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from rmi_msg.checks import PAGE_LIMIT_DEFAULT, check_after, check_limit
from rmi_msg.lines import LineLog, message_lines
from rmi_msg.stores import ConsumedStore, MessageQueue
from rmi_msg.stores.opening import open_stores
from rmi_runtime import ServiceContext, Settings, allow, errors, expose, run_service

log = logging.getLogger(__name__)

POLL_S: Final = 0.05
"""Pause between two looks at an empty queue, in seconds."""

RUSH_MESSAGES: Final = 100
"""Messages in one claim from which on there is a rush."""

RUSH_POLL_S: Final = 0.2
"""Pause between two looks in a rush, in seconds: few large claims leave the loggers more turns to
write than many small ones."""

CLAIM_MESSAGES_MAX: Final = 1000
"""Most messages in one claim."""

LEASE_S: Final = 10.0
"""Life of a claim, in seconds: thousands of times what consuming one takes."""

SWEEP_S: Final = 1.0
"""Pause between two looks for claims that have run out, in seconds."""

TROUBLE_S_MAX: Final = 2.0
"""Longest pause after the store has failed, in seconds."""


class Consumer:
    """Claims messages, enters them as consumed, and marks them done, for as long as it runs.

    It may die between any two of these steps: what it claimed is offered again when the claim has
    run out, or at once when a service of the same name starts, and nothing of it is entered twice.

    Args:
        name: the Pyro name of its service, under which it claims and consumes.
        queue: where messages are claimed.
        consumed: where they are entered.
        lines: gets a line for every message entered.
        poll_s: pause between two looks at an empty queue, in seconds.
        rush_poll_s: pause between two looks when many messages come, in seconds.
        lease_s: life of a claim, in seconds.
        sweep_s: pause between two looks for claims that have run out, in seconds.
        limit: most messages in one claim.

    Attributes:
        consumed: messages that it has entered.
        delivered_again: messages of its claims that were another's: entered before, or run out.
    """

    def __init__(
        self,
        name: str,
        queue: MessageQueue,
        consumed: ConsumedStore,
        lines: LineLog,
        *,
        poll_s: float = POLL_S,
        rush_poll_s: float = RUSH_POLL_S,
        lease_s: float = LEASE_S,
        sweep_s: float = SWEEP_S,
        limit: int = CLAIM_MESSAGES_MAX,
    ) -> None:
        self._name = name
        self._queue = queue
        self._consumed = consumed
        self._lines = lines
        self._poll_s = poll_s
        self._rush_poll_s = rush_poll_s
        self._lease_s = lease_s
        self._sweep_s = sweep_s
        self._limit = limit
        self.consumed = self.delivered_again = 0
        self._stopping = asyncio.Event()
        self._swept_at = 0.0
        self._started = False

    def stop(self) -> None:
        """Let :meth:`run` end when what is under way is done."""
        self._stopping.set()

    async def run(self) -> None:
        """Consume until :meth:`stop`. A store that fails is tried again, ever less often."""
        trouble_s = 0.0
        while not self._stopping.is_set():
            try:
                pause_s = self._pause_after(await self.step())
                if trouble_s:
                    log.info("%s consumes again", self._name)
                trouble_s = 0.0
            except Exception as error:
                # Whatever it is: a service that has silently ceased to consume is the worst.
                if not trouble_s:
                    unforeseen = None if isinstance(error, errors.RmiError) else error
                    log.warning(
                        "%s cannot consume now, trying on: %s",
                        self._name,
                        error,
                        exc_info=unforeseen,
                    )
                trouble_s = pause_s = min(max(self._poll_s, 2 * trouble_s), TROUBLE_S_MAX)
            if pause_s:
                await self._pause(pause_s)

    def _pause_after(self, claimed: int) -> float:
        """Return how long to let messages gather, in seconds."""
        if claimed >= self._limit:  # more may wait already
            return 0.0
        return self._rush_poll_s if claimed >= RUSH_MESSAGES else self._poll_s

    async def step(self) -> int:
        """Sweep if it is time, then consume one claim's messages, if any wait.

        Returns:
            How many messages the claim had; 0 if nothing waits.
        """
        await self._sweep()
        claim = await self._queue.claim(self._name, self._limit, self._lease_s)
        if claim is None:
            return 0
        entered = await self._consumed.add(claim)
        self.consumed += entered.count(True)
        if again := entered.count(False):
            self.delivered_again += again
            log.info(
                "%s did not consume %d messages of a claim: another has, or the claim had run out",
                self._name,
                again,
            )
        fresh = [pair for pair, new in zip(claim.messages, entered, strict=True) if new]
        self._lines.write(message_lines(fresh))
        if not await self._queue.done(claim):
            log.warning(
                "%s took more than %.1f s for %d messages, which were offered again",
                self._name,
                self._lease_s,
                len(claim.messages),
            )
        return len(claim.messages)

    async def _sweep(self) -> None:
        if not self._started:
            # Whoever held these claims had our name, and is no more.
            again = await self._queue.give_back(self._name)
            self._started = True
            if again:
                log.info("%s takes up %d claims that it left undone", self._name, again)
        now = time.monotonic()
        if now - self._swept_at >= self._sweep_s:
            self._swept_at = now
            if again := await self._queue.sweep():
                log.warning("%d claims had run out and are offered again", again)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


@expose
@allow("service")
class MessagesObject:
    """Pyro object ``msg.messages.N``: for services only; clients ask a facade.

    Args:
        consumed: what all messages services have consumed.
    """

    def __init__(self, consumed: ConsumedStore) -> None:
        self._consumed = consumed

    async def consumed(
        self, after: str | None = None, limit: int = PAGE_LIMIT_DEFAULT
    ) -> dict[str, Any]:
        """Read what was consumed, by whichever messages service, in order of consumption.

        Args:
            after: None to begin, or the ``next`` of a page, whichever messages service gave it.
            limit: most messages to return, from 1 to 1,000; long texts make it fewer.

        Returns:
            ``{"messages": [{"id", "text", "consumed_at", "by"}], "next"}``; ``next`` is None on
            the last page.

        Raises:
            InvalidRequest: *after* or *limit* is wrong.
        """
        page = await self._consumed.page(check_after(after), check_limit(limit))
        return {"messages": [row._asdict() for row in page.rows], "next": page.next}


@asynccontextmanager
async def consuming(consumer: Consumer) -> AsyncIterator[None]:
    """Run a consumer in the background; on the way out it ends what it has begun."""
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        consumer.stop()
        await task


async def run_messages(
    settings: Settings, messages_id: int, *, stop: asyncio.Event | None = None
) -> None:
    """Run the service ``msg.messages.N`` until it is told to stop.

    Args:
        settings: the settings in force.
        messages_id: N, from 1.
        stop: set it to stop. None: SIGTERM, SIGINT and SIGHUP stop it.
    """

    @asynccontextmanager
    async def build(context: ServiceContext) -> AsyncIterator[MessagesObject]:
        with LineLog(context.log_path, limits=context.log_limits) as lines:
            async with open_stores(settings) as stores:
                stores.tell_state(context)
                consumer = Consumer(context.name, stores.queue, stores.consumed, lines)
                context.tell("consumed", lambda: consumer.consumed)
                context.tell("delivered_again", lambda: consumer.delivered_again)
                async with consuming(consumer):
                    yield MessagesObject(stores.consumed)

    await run_service(f"msg.messages.{messages_id}", build, settings, stop=stop)


if __name__ == "__main__":
    raise SystemExit("this module is no command; the service is started with: rmi messages --id 1")

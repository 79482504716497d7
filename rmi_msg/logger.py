"""The logger: keeps messages in the store that all loggers share."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rmi_msg.batches import Group, all_full, parts, put_groups
from rmi_msg.checks import PAGE_LIMIT_DEFAULT, check_after, check_batch, check_limit
from rmi_msg.lines import LineLog, message_lines
from rmi_msg.stores import MessageStore, Word
from rmi_msg.stores.opening import open_stores
from rmi_runtime import Coalescer, ServiceContext, Settings, allow, errors, expose, run_service


@expose
@allow("service")
class LoggerObject:
    """Pyro object ``msg.logger.N``: for services only; clients talk to a facade.

    Calls that wait together are stored in one transaction.

    Args:
        name: its Pyro name, which stored messages carry.
        store: where messages go.
        log: gets a line for every new message.
        queue_max: most calls that wait for the store at once.
    """

    def __init__(
        self, name: str, store: MessageStore, log: LineLog, *, queue_max: int = 16384
    ) -> None:
        self._name = name
        self._store = store
        self._log = log
        self._puts: Coalescer[Group, Sequence[Word]] = Coalescer(
            self._put_groups, queue_max=queue_max
        )

    async def put_many(self, messages: Sequence[Sequence[str]]) -> list[Word]:
        """Store messages that are not there yet, and offer them to the messages services.

        Repeating a call that may have happened is safe: the ids are the truth.

        Args:
            messages: [id, text] pairs, at most 1,024.

        Returns:
            A word per message, in order: ``new``, ``same`` (it was there already), ``other`` (its
            id has another text, which stays) or ``full`` (it is not there, and the store has no
            room for it).

        Raises:
            InvalidRequest: a message breaks a rule; none was stored.
            StoreFull: the store has no room; none was stored, and none was there.
            Unavailable: the store cannot be written now; none was stored.
            Interrupted: nobody can say whether they were stored, or some were and some were not.
        """
        words: list[Word] = []
        full: errors.StoreFull | None = None
        for part in parts(check_batch(messages)):
            try:
                words += await self._puts.submit(part)
            except errors.StoreFull as error:
                full = error
                words += ["full"] * len(part)
            except errors.Definite as error:
                if all_full(words):
                    raise
                raise errors.Interrupted(
                    f"of the first {len(words)} messages some were stored, the others were not "
                    f"({error}): send all of them again with the same ids"
                ) from error
        if full is not None and all_full(words):
            raise full
        return words

    async def page(
        self, after: str | None = None, limit: int = PAGE_LIMIT_DEFAULT
    ) -> dict[str, Any]:
        """Read messages of all loggers, in their order of arrival.

        Args:
            after: None to begin, or the ``next`` of a page, whichever logger gave it.
            limit: most messages to return, from 1 to 1,000; long texts make it fewer.

        Returns:
            ``{"messages": [{"id", "text", "received_at", "logger"}], "next"}``; ``next`` is None
            on the last page.

        Raises:
            InvalidRequest: *after* or *limit* is wrong.
        """
        page = await self._store.page(check_after(after), check_limit(limit))
        return {"messages": [row._asdict() for row in page.rows], "next": page.next}

    async def _put_groups(self, groups: list[Group]) -> list[Sequence[Word] | BaseException]:
        return await put_groups(self._put, groups)

    async def _put(self, messages: Group) -> list[Word]:
        try:
            words = await self._store.put_many(messages, self._name)
        except errors.StoreFull as full:
            return await self._known(messages, full)
        new = [pair for pair, word in zip(messages, words, strict=True) if word == "new"]
        self._log.write(message_lines(new))
        return words

    async def _known(self, messages: Group, full: errors.StoreFull) -> list[Word]:
        """Tell what is there from what is not: who repeats a post must not take it for not done."""
        try:
            words = await self._store.known(messages)
        except errors.RmiError as error:
            raise errors.Interrupted(
                f"{full.message}; which of the messages are there already could not be read "
                f"({error}): send them again with the same ids"
            ) from error
        if all_full(words):
            raise full
        return words


async def run_logger(
    settings: Settings, logger_id: int, *, stop: asyncio.Event | None = None
) -> None:
    """Run the service ``msg.logger.N`` until it is told to stop.

    Args:
        settings: the settings in force.
        logger_id: N, from 1.
        stop: set it to stop. None: SIGTERM, SIGINT and SIGHUP stop it.
    """

    @asynccontextmanager
    async def build(context: ServiceContext) -> AsyncIterator[LoggerObject]:
        with LineLog(context.log_path, _stdout_fd(), limits=context.log_limits) as log:
            async with open_stores(settings, logger_id) as stores:
                stores.tell_state(context)
                context.before_leaving = stores.may_stop
                yield LoggerObject(context.name, stores.messages, log, queue_max=settings.queue_max)

    await run_service(f"msg.logger.{logger_id}", build, settings, stop=stop)


def _stdout_fd() -> int | None:
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # started without one
        return None


if __name__ == "__main__":
    raise SystemExit("this module is no command; the service is started with: rmi logger --id 1")

"""Bugs of the messages: loggers, the queue, the gateway's keys."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rmi_torture.planted.parts import part

STORED_LATER_S = 0.05
HANDLED_S = 0.05


def acknowledged_before_stored() -> None:
    """A logger answers when it has a message in memory, and stores it a moment later."""
    logger = part("rmi_msg.logger:LoggerObject")
    put = logger._put
    tasks: set[Any] = set()

    async def put_later(self: Any, messages: Any) -> Any:
        async def store() -> None:
            await asyncio.sleep(STORED_LATER_S)
            await put(self, messages)

        task = asyncio.ensure_future(store())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return ["new"] * len(messages)

    logger._put = put_later


def keys_ignored() -> None:
    """The gateway gives each request an id of its own, whatever its Idempotency-Key."""
    routes = part("rmi_msg.routes")
    routes.keyed_message_id = lambda key: routes.new_message_id()


def another_text_taken() -> None:
    """A key that has its message takes any other text for the same."""
    tables = part("rmi_msg.stores.sqlite_tables")
    put_many = tables.put_many

    def put_all(*arguments: Any) -> list[str]:
        words = put_many(*arguments)
        return ["same" if word == "other" else word for word in words]

    tables.put_many = put_all


def others_ids_unknown() -> None:
    """A logger knows only the ids that it has stored itself."""
    ids = part("rmi_msg.stores.message_ids:MessageIds")
    find = ids.find
    own: set[str] = set()

    def find_own(self: Any, connection: Any, hashes: Any) -> dict[str, int]:
        known = {id: seq for id, seq in find(self, connection, hashes).items() if id in own}
        own.update(hashes)
        return known

    ids.find = find_own


def stale_page() -> None:
    """A logger reads pages from a cache that is half a second old."""
    store = part("rmi_msg.stores.sqlite:SqliteMessageStore")
    page = store.page
    cache: dict[Any, tuple[float, Any]] = {}

    async def page_from_cache(self: Any, after: Any, limit: int) -> Any:
        at_s, found = cache.get((after, limit), (0.0, None))
        if found is None or time.monotonic() - at_s > 0.5:
            found = await page(self, after, limit)
            cache[after, limit] = time.monotonic(), found
        return found

    store.page = page_from_cache


def marked_before_consumed() -> None:
    """A messages service marks its claim done before it enters the messages as consumed."""
    _consume_in_order("done", "add")


def never_given_back() -> None:
    """What a dead messages service had claimed is offered to nobody again."""
    tables = part("rmi_msg.stores.sqlite_tables")
    tables.sweep = lambda connection, now_ns: 0
    tables.give_back = lambda connection, by: 0
    _consume_in_order("add", "done")


def delivered_twice() -> None:
    """Done marks get lost, and what is delivered again is entered again."""
    tables = part("rmi_msg.stores.sqlite_tables")
    tables._SCHEMA = tuple(
        text.replace("NOT NULL UNIQUE REFERENCES", "NOT NULL REFERENCES") for text in tables._SCHEMA
    )

    def add_all(connection: Any, claim: Any, consumed_at_us: int) -> list[bool]:
        _, first, last = claim.token
        connection.execute(
            "INSERT INTO consumed (message, consumed_at, consumer)"
            " SELECT seq, ?, ? FROM messages WHERE seq BETWEEN ? AND ? ORDER BY seq",
            (consumed_at_us, claim.by, first, last),
        )
        return [True] * len(claim.messages)

    tables.add = add_all
    tables.done = lambda connection, claim: True
    part("rmi_msg.messages:Consumer").__init__.__kwdefaults__["lease_s"] = 1.0


def one_backup() -> None:
    """Hazelcast members keep one backup of what they hold instead of two."""
    config = part("rmi_msg.hazelcast.member_config")
    config._TEMPLATE = config._TEMPLATE.replace("backup-count: 2", "backup-count: 1")


def _consume_in_order(*steps: str) -> None:
    """Have claims handled in this order of steps, with time to die between them."""
    consumer = part("rmi_msg.messages:Consumer")

    async def step(self: Any) -> bool:
        await self._sweep()
        claim = await self._queue.claim(self._name, self._limit, self._lease_s)
        if claim is None:
            return False
        for name in steps:
            await asyncio.sleep(HANDLED_S)
            await (self._consumed.add(claim) if name == "add" else self._queue.done(claim))
        return True

    consumer.step = step

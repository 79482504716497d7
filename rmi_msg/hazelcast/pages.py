"""Pages of what stands in an order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from rmi_msg.batches import BATCH_CHARS_MAX
from rmi_msg.hazelcast.fetching import Fetching
from rmi_msg.stores import Consumed, Message, Page


class Listed(Protocol):
    """An id in an order, and the cursor of the place behind it."""

    @property
    def id(self) -> str:
        """The id."""

    @property
    def cursor(self) -> str:
        """The cursor."""


Row = TypeVar("Row", Message, Consumed)


async def page_of(
    fetching: Fetching,
    listed: Sequence[Listed],
    limit: int,
    fetch: Callable[[list[str]], Awaitable[dict[str, Row]]],
) -> Page[Row]:
    """Return a page of rows.

    Args:
        fetching: remembers what is lost.
        listed: what comes next in the order: one more than *limit*, or all there is.
        limit: most rows; long texts make it fewer.
        fetch: returns the rows of some ids.
    """
    more = len(listed) > limit
    listed = listed[:limit]
    rows: list[Row] = []
    chars = 0
    for_next = listed[-1].cursor if more else None
    passed: Listed | None = None
    async for one, row in fetching.fetched(listed, fetch):
        chars += len(row.text)
        if passed and chars > BATCH_CHARS_MAX:
            return Page(rows, passed.cursor)
        rows.append(row)
        passed = one
    return Page(rows, for_next)


def iso(unix_s: float) -> str:
    """Return ``2026-01-31T12:00:00.000000Z`` for seconds since 1970."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

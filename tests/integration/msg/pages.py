"""Reading what comes in pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Page = Callable[[str | None, int], Awaitable[dict[str, Any]]]


async def read_all(page: Page, limit: int) -> list[dict[str, str]]:
    """Return the messages of all pages.

    Args:
        page: the remote method; gets the place to go on after, and *limit*.
        limit: messages in a page.
    """
    found: list[dict[str, str]] = []
    after: str | None = None
    while True:
        got = await page(after, limit)
        found += got["messages"]
        after = got["next"]
        if after is None:
            return found

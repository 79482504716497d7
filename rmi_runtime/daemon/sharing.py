"""Futures that answer several calls: one caller that leaves takes nothing from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Any


class Sharing:
    """Knows which futures more calls wait for than the first.

    Args:
        followed: the futures that a first call waits for, as they are now.
    """

    def __init__(self, followed: Container[asyncio.Future[Any]]) -> None:
        self._followed = followed
        self._more: dict[asyncio.Future[Any], int] = {}

    def join(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """Return a future for one more call, which ends as *future*, and may be cancelled alone."""
        own = asyncio.shield(future)
        self._more[future] = self._more.get(future, 0) + 1
        own.add_done_callback(lambda _: self._leave(future))
        return own

    def __contains__(self, future: object) -> bool:
        return future in self._more

    def _leave(self, future: asyncio.Future[Any]) -> None:
        self._more[future] -= 1
        if not self._more[future]:
            del self._more[future]
            if future not in self._followed:  # the first call has been given up
                future.cancel()

"""What several tests need: polling with a deadline instead of sleeping, and a clock to set."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    probe: Callable[[], T | Awaitable[T]], *, timeout_s: float = 10.0, every_s: float = 0.02
) -> T:
    """Poll *probe* until it returns something true, and return that.

    Args:
        probe: plain or async function; an ``AssertionError`` it raises counts as "not yet".
        timeout_s: how long to wait before giving up.
        every_s: pause between two polls.

    Returns:
        The first true result.

    Raises:
        AssertionError: when *timeout_s* has passed; the probe's own last error is its cause.
    """
    deadline = time.monotonic() + timeout_s
    why: AssertionError | None = None
    while True:
        try:
            found = probe()
            result = await found if inspect.isawaitable(found) else found
            if result:
                return result
            why = None
        except AssertionError as error:
            why = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {probe}") from why
        await asyncio.sleep(every_s)


def sync_eventually(probe: Callable[[], T], *, timeout_s: float = 10.0, every_s: float = 0.02) -> T:
    """Do as :func:`eventually` does, with a plain probe and blocking, where nothing is awaited."""
    deadline = time.monotonic() + timeout_s
    why: AssertionError | None = None
    while True:
        try:
            if result := probe():
                return result
            why = None
        except AssertionError as error:
            why = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {probe}") from why
        time.sleep(every_s)


async def turns(count: int = 5) -> None:
    """Let the loop turn so many times, for what is ready to go on."""
    for _ in range(count):
        await asyncio.sleep(0)


class Clock:
    """Time that passes when it is told to.

    Args:
        now_s: the time at first, as a monotonic clock tells it.
    """

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def ns(self) -> int:
        """Return the time in nanoseconds."""
        return int(self.now_s * 1e9)

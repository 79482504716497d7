"""Ctrl-C and SIGTERM while a run is under way: the first ends it early, the second at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Turns signals into an early end.

    Args:
        told: called at the first one.

    Attributes:
        asked: there was one: what has not begun yet must not begin any more.
    """

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self.asked = False
        self._told = told

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """Watch while the present task runs, on the main thread.

        Yields:
            An event that the first signal sets. The second one cancels the task.
        """
        stop = asyncio.Event()
        if self.asked:
            stop.set()
        task = asyncio.current_task()

        def on_signal() -> None:
            if self.asked:
                if task is not None:
                    task.cancel()
                return
            self.asked = True
            stop.set()
            self._told()

        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, on_signal)
        try:
            yield stop
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

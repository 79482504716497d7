"""Ctrl-C and SIGTERM while a run is under way: the first ends it early, the second at once.

So does a terminal that is closed (SIGHUP; not under ``nohup``): nobody reads what would come of it,
and the system under test must not stay behind.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

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

    def _first(self) -> bool:
        """Take note of a signal; return whether it is the first one."""
        if self.asked:
            return False
        self.asked = True
        self._told()
        return True

    def _between_runs(self, _number: int, _frame: FrameType | None) -> None:
        if not self._first():
            raise KeyboardInterrupt

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Watch while several runs are made and judged, on the main thread.

        What is under way between two runs, such as a judgement, is finished after the first signal;
        the second one raises ``KeyboardInterrupt`` there.
        """
        before = {number: signal.signal(number, self._between_runs) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """Watch while the present task runs, on the main thread.

        Yields:
            An event that the first signal sets. The second one cancels the task, and so does the
            end of the terminal.
        """
        stop = asyncio.Event()
        if self.asked:
            stop.set()
        task = asyncio.current_task()

        def on_signal() -> None:
            if self._first():
                stop.set()
            elif task is not None:
                task.cancel()

        loop = asyncio.get_running_loop()

        def on_hang_up() -> None:
            self.asked = True
            if task is not None:
                task.cancel()

        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            loop.add_signal_handler(number, on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            before[signal.SIGHUP] = signal.getsignal(signal.SIGHUP)
            loop.add_signal_handler(signal.SIGHUP, on_hang_up)
        try:
            yield stop
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

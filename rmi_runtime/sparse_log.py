"""A log that strangers cannot fill the disk with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

LINES_PER_S_MAX: Final = 20


class Sparingly(logging.Filter):
    """Lets through so many lines a second; the next one that gets through tells of the others.

    Warnings and errors all get through: they are about us.

    Args:
        lines_per_s_max: how many.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        lines_per_s_max: int = LINES_PER_S_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._lines_per_s_max = lines_per_s_max
        self._clock = clock
        self._second = clock()
        self._lines = 0
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is written."""
        if record.levelno >= logging.WARNING:
            return True
        now = self._clock()
        if now - self._second >= 1.0:
            self._second, self._lines = now, 0
        if self._lines >= self._lines_per_s_max:
            self._dropped += 1
            return False
        self._lines += 1
        if self._dropped:
            record.msg = f"{record.getMessage()} ({self._dropped} more lines were left out)"
            record.args = ()
            self._dropped = 0
        return True


def sparse_logger(name: str) -> logging.Logger:
    """Return the logger *name*, for what those who connect can cause as often as they like."""
    log = logging.getLogger(name)
    if not any(isinstance(each, Sparingly) for each in log.filters):
        log.addFilter(Sparingly())
    return log

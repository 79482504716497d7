"""What handlers of signals raise, where a loop runs for code that does not await."""

from __future__ import annotations

import asyncio
import functools
import signal
from traceback import walk_tb
from typing import Any


class SignalErrors:
    """Has what a signal's handler raises reach whoever runs a loop, as where no loop runs.

    Scripts set alarms that raise, and services end that way. A loop takes it for an error of a
    callback of its own, and goes on.
    """

    _raised: BaseException | None = None

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Hear of an error in the loop; for ``loop.set_exception_handler``."""
        if not self.handle_quietly(loop, context):
            loop.default_exception_handler(context)

    def handle_quietly(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> bool:
        """Hear of an error in a loop that is torn: then others are to be expected, and not logged.

        Returns:
            True if it is of a handler.
        """
        error = context.get("exception")
        # uvloop calls the handlers there; in the midst of another callback Python itself does.
        if "_read_from_self" not in context.get("message", "") and not _is_of_a_handler(error):
            return False
        self._raised = error
        loop.stop()
        return True

    def hear(self, error: BaseException) -> None:
        """Hear of what a handler raised, if of nothing before; it is raised again."""
        if self._raised is None:
            self._raised = error

    def raise_again(self) -> None:
        """Raise what was raised, once; do nothing if there was nothing."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised from None

    def behind(
        self, error: BaseException, handled: BaseException | None = None
    ) -> BaseException | None:
        """Return what a handler raised, of which *error* is a consequence; None if it is of none.

        Args:
            error: came out of the loop, or of what the loop was run for.
            handled: was being handled when that began, so that it is no part of it.
        """
        raised, self._raised = self._raised, None
        link: BaseException | None = error
        while raised is None and link is not None and link is not handled:
            if isinstance(link, KeyboardInterrupt) or _is_of_a_handler(link):
                raised = link
            link = link.__cause__ or link.__context__
        return raised


def _is_of_a_handler(error: BaseException | None) -> bool:
    if error is None:
        return False
    codes = {_code(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    return any(frame.f_code in codes for frame, _ in walk_tb(error.__traceback__))


def _code(handler: Any) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not hasattr(handler, "__code__"):
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)

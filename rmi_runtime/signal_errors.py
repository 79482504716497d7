"""What handlers of signals raise, where a loop of uvloop runs for code that does not await."""

from __future__ import annotations

import asyncio
import signal
from traceback import walk_tb
from typing import Any


class SignalErrors:
    """Has what a signal's handler raises reach whoever runs a loop, as where no loop runs.

    Scripts set alarms that raise, and services end that way. uvloop takes it for an error of a
    callback of its own, and goes on.
    """

    _raised: BaseException | None = None
    _between: BaseException | None = None  # what was raised where it tore nothing

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Hear of an error in the loop; for ``loop.set_exception_handler``."""
        error = context.get("exception")
        # uvloop calls the handlers there; in the midst of another callback Python itself does.
        if "_read_from_self" in context.get("message", ""):
            self._raised = self._between = error
            loop.stop()
        elif _is_of_a_handler(error):
            self._raised = error
            loop.stop()
        else:
            loop.default_exception_handler(context)

    @property
    def raised(self) -> bool:
        """True while there is something to raise again."""
        return self._raised is not None

    def raise_again(self) -> None:
        """Raise what was raised, once; do nothing if there was nothing."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised from None

    def tore(self, error: BaseException) -> bool:
        """Tell whether *error* was raised in the midst of something, which is half done since."""
        between, self._between = self._between, None
        return error is not between and (
            isinstance(error, KeyboardInterrupt) or _is_of_a_handler(error)
        )


def _is_of_a_handler(error: BaseException | None) -> bool:
    if error is None:
        return False
    handlers = map(signal.getsignal, signal.valid_signals())
    codes = {code for one in handlers if (code := getattr(one, "__code__", None)) is not None}
    return any(frame.f_code in codes for frame, _ in walk_tb(error.__traceback__))

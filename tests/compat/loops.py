"""An event loop in a thread of its own, for code that does not await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import uvloop

from rmi_runtime.carried_stop import CarriedStop


class LoopThread:
    """Runs coroutines for other threads."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, awaitable: Awaitable[Any], timeout_s: float = 30.0) -> Any:
        """Await something on the loop, and return its result."""

        async def finish() -> Any:
            try:
                return await awaitable, None
            except BaseException as error:  # futures refuse some
                return None, error

        result, error = asyncio.run_coroutine_threadsafe(finish(), self.loop).result(timeout_s)
        if error is not None:
            raise StopIteration(*error.args) if isinstance(error, CarriedStop) else error
        return result

    def call(self, function: Any, *args: Any) -> Any:
        """Call a plain function on the loop."""

        async def called() -> Any:
            return function(*args)

        return self.run(called())

    def stop(self) -> None:
        """End the loop and the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

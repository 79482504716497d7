"""The loop of a client that blocks: it rests between calls, and can be dropped in any state."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import socket
from asyncio.events import _get_running_loop, _set_running_loop
from typing import Any, Final

TURNS: Final = 4
"""How often a loop that is dropped goes on, for what was cancelled and aborted to close itself."""


class PrivateLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, of which nothing lasts that nobody refers to.

    A loop of uvloop that a signal's handler interrupts as it begins or ends to run believes that it
    runs for ever, and keeps its descriptors. It also takes longer to begin and end.
    """

    def __del__(self) -> None:
        """Leave it to what it holds to close itself: it may be made, or closed, by half."""

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Look an address up in a thread that ends with that; the usual ones stay with the loop."""
        found: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()

        def look_up() -> None:
            if not found.set_running_or_notify_cancel():
                return
            try:
                found.set_result(socket.getaddrinfo(host, port, family, type, proto, flags))
            except Exception as error:
                found.set_exception(error)

        try:
            _thread.start_new_thread(look_up, ())
        except RuntimeError:  # there is none to be had, at the interpreter's end for one
            look_up()
        return await asyncio.wrap_future(found, loop=self)

    def come_to_rest(self) -> None:
        """Run no longer, if a handler interrupted it as it began or ended to run."""
        if _get_running_loop() is self:
            _set_running_loop(None)

    def drop(self) -> None:
        """End what goes on, as far as possible, and close. What is left is closed when it is freed.

        Raises:
            Exception: it has been interrupted, and is too torn for that.
        """
        self.come_to_rest()
        other = _get_running_loop()  # the garbage collector may run there
        _set_running_loop(None)
        try:
            for task in asyncio.all_tasks(self):
                task.cancel()
            for _ in range(TURNS):
                self.stop()
                self.run_forever()  # one turn
        finally:
            _set_running_loop(other)
            self.close()

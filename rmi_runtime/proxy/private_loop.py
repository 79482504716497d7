"""The loop of a client that blocks: it rests between calls, and can be dropped in any state."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import selectors
import socket
from asyncio.events import _get_running_loop, _set_running_loop
from typing import Any, Final

from rmi_runtime.errors import CallTimeout

TURNS: Final = 4
"""How often a loop that is dropped goes on, for what was cancelled and aborted to close itself."""


SEND_PAUSE_S: Final = 0.001
"""Pause between two looks whether all has been sent, in seconds."""


async def turn_twice() -> None:
    """Let the loop go on: one turn to read what has come, one to act on an end."""
    for _ in range(2):
        await asyncio.sleep(0)


class PrivateLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, of which nothing lasts that nobody refers to.

    A loop of uvloop that a signal's handler interrupts as it begins or ends to run believes that it
    runs for ever, and keeps its descriptors. It also takes longer to begin and end.
    """

    def __init__(self) -> None:
        self._watched = selectors.DefaultSelector()
        super().__init__(self._watched)

    @property
    def unsent(self) -> bool:
        """True while something waits here because the other end has not read on."""
        return any(key.events & selectors.EVENT_WRITE for key in self._watched.get_map().values())

    async def all_sent(self, timeout_s: float) -> None:
        """Return when nothing waits here any more.

        Raises:
            CallTimeout: the other end has not read on in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.unsent:  # noqa: ASYNC110 - transports tell nobody
                    await asyncio.sleep(SEND_PAUSE_S)
        except TimeoutError:
            words = f"the server has not read all of a oneway call in {timeout_s} s"
            raise CallTimeout(words) from None

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

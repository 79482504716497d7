"""Who may use a client that blocks: one thread, outside of event loops, as with stock proxies."""

from __future__ import annotations

import os
import sys
import threading
from asyncio.events import _get_running_loop
from types import FrameType, TracebackType
from typing import Final

from rmi_runtime.errors import Misused

_CALL: Final = "call"


class Ownership:
    """Belongs to the thread that makes it; entered for the time of each call.

    A signal's handler may raise just as it is entered or left. So no lock says that a call is under
    way, which would be held for ever then, but the frame of the call, as long as that goes on.

    Args:
        what: the client, as messages name it, such as ``SyncProxy``.
        instead: what to use where a loop runs, such as ``Proxy``.
        claim: its method that claims it, such as ``_claim_ownership``.
    """

    def __init__(self, what: str, instead: str, claim: str) -> None:
        self._what = what
        self._instead = instead
        self._claim = claim
        self.settle()

    @property
    def in_child(self) -> bool:
        """True in a process that was forked by the one that used the client."""
        return self._pid != os.getpid()

    def settle(self) -> None:
        """Belong to this process, and to the thread that calls."""
        self._owner = threading.get_ident()
        self._calls: dict[str, FrameType] = {}  # one at most: what a thread does is seen at once
        self._claiming = threading.Lock()
        self._pid = os.getpid()

    @property
    def under_way(self) -> bool:
        """True while a call is under way."""
        return self._under_way_in(self._owner)

    def _under_way_in(self, thread: int) -> bool:
        call, frame = self._calls.get(_CALL), sys._current_frames().get(thread)
        while call is not None and frame is not None and frame is not call:
            frame = frame.f_back
        return call is not None and frame is not None

    def claim(self) -> None:
        """Make the calling thread the owner.

        Raises:
            Misused: a call of another thread is under way.
        """
        with self._claiming:
            # In this order: a call that begins between the two is noticed, or notices.
            before, self._owner = self._owner, threading.get_ident()
            if not self._under_way_in(before):
                return
            self._owner = before
        raise Misused(
            f"a call of another thread is under way on this {self._what}: claim it when that "
            "has returned, or make one for each thread"
        )

    def __enter__(self) -> None:
        if _get_running_loop() is not None:
            raise Misused(
                f"a {self._what} would block the event loop that runs in this thread: use "
                f"{self._instead} there; nothing was sent"
            )
        if self._owner != threading.get_ident():
            raise self._not_the_owner()
        frame = sys._getframe(1)
        if self._calls.setdefault(_CALL, frame) is not frame:
            if self.under_way:
                raise self._not_the_owner()
            self._calls[_CALL] = frame  # the other was interrupted
        if self._owner != threading.get_ident():
            self._calls.pop(_CALL, None)
            raise self._not_the_owner()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.pop(_CALL, None)

    def _not_the_owner(self) -> Misused:
        return Misused(
            f"the calling thread is not the owner of this {self._what}: make one for each thread, "
            f"or claim it with {self._claim}() while no call is under way; nothing was sent"
        )

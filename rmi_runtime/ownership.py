"""Who may use a client that blocks: one thread, outside of event loops, as with stock proxies."""

from __future__ import annotations

import os
import threading
from asyncio.events import _get_running_loop
from types import TracebackType

from rmi_runtime.errors import Misused


class Ownership:
    """Belongs to the thread that makes it; entered for the time of each call.

    Args:
        what: the client, as messages name it, such as ``SyncProxy``.
        instead: what to use where a loop runs, such as ``Proxy``.
        claim: its method that claims it, such as ``_claim_ownership``.
    """

    def __init__(self, what: str, instead: str, claim: str) -> None:
        self._what = what
        self._instead = instead
        self._claim = claim
        self._pid = os.getpid()
        self._owner = threading.get_ident()
        self._under_way = threading.Lock()

    def moved_to_child(self) -> bool:
        """Tell, once, that this process was forked since by the one that used the client.

        It belongs to the thread that asks from then on.
        """
        if self._pid == (pid := os.getpid()):
            return False
        self._pid = pid
        self._owner = threading.get_ident()
        self._under_way = threading.Lock()  # some other thread of the parent may have held it
        return True

    def claim(self) -> None:
        """Make the calling thread the owner.

        Raises:
            Misused: a call of another thread is under way.
        """
        if not self._under_way.acquire(blocking=False):
            raise Misused(
                f"a call of another thread is under way on this {self._what}: claim it when that "
                "has returned, or make one for each thread"
            )
        self._owner = threading.get_ident()
        self._under_way.release()

    def __enter__(self) -> None:
        if _get_running_loop() is not None:
            raise Misused(
                f"a {self._what} would block the event loop that runs in this thread: use "
                f"{self._instead} there; nothing was sent"
            )
        # In this order: what another thread claims between the two is noticed.
        if not self._under_way.acquire(blocking=False):
            raise self._not_the_owner()
        if self._owner != threading.get_ident():
            self._under_way.release()
            raise self._not_the_owner()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._under_way.release()

    def _not_the_owner(self) -> Misused:
        return Misused(
            f"the calling thread is not the owner of this {self._what}: make one for each thread, "
            f"or claim it with {self._claim}() while no call is under way; nothing was sent"
        )

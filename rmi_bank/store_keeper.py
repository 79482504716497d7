"""The store and the lock desk are open together, or neither is."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from rmi_bank.lock_desk import LockDesk
from rmi_bank.stores import Ledger
from rmi_runtime import StoreGone, StoreLost
from rmi_runtime.errors import Unavailable

log = logging.getLogger(__name__)

PAUSE_S_MIN: Final = 0.05
PAUSE_S_MAX: Final = 2.0


class StoreKeeper:
    """Opens the store and lets callers in, and does so anew when the store has failed.

    Args:
        ledger: the store.
        desk: where its callers wait.
    """

    def __init__(self, ledger: Ledger, desk: LockDesk) -> None:
        self._ledger = ledger
        self._desk = desk
        self._reopening: asyncio.Task[None] | None = None
        self._started = False
        self._left = False

    @property
    def reopening(self) -> bool:
        """Whether the store has failed, and is not open again yet."""
        return self._reopening is not None

    def trouble(self) -> str | None:
        """Say in a sentence why the store cannot be used; None if nothing is known against it."""
        if self._reopening is not None:
            return self._desk.why_shut().message
        return self._ledger.missing()

    async def start(self) -> None:
        """Open the store. Leases from before are worth nothing now."""
        await self._ledger.start()
        self._started = True
        self._desk.open(self._ledger.epoch)

    def leave(self) -> None:
        """Let nobody wait for a lock any more: whoever has it cannot give it back."""
        self._left = True
        self._desk.shut(Unavailable("the data object is leaving"))

    async def close(self) -> None:
        """Write what is being committed, and close the store."""
        self.leave()
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        await self._ledger.close()

    def check_open(self) -> None:
        """Refuse to answer from a store that has failed, or was never opened.

        Raises:
            Unavailable: it is being opened anew, or nobody has opened it.
        """
        if self._reopening is not None or not self._started:
            raise self._desk.why_shut()

    def look(self) -> None:
        """Open the store anew if it has failed."""
        if self._ledger.broken:
            self.reopen_soon()

    def reopen_soon(self) -> None:
        """Open the store anew, unless that is under way, or this leaves."""
        if self._reopening is None and not self._left:
            self._desk.shut(Unavailable("the store failed and is being opened anew; try again"))
            self._reopening = asyncio.get_running_loop().create_task(self._reopen())

    async def _reopen(self) -> None:
        """Open the store again, however long it takes: until then nobody knows what it holds."""
        pause_s = PAUSE_S_MIN
        while True:
            try:
                await self._ledger.reopen()
                break
            except Exception as error:  # whatever it is, such as no thread to be had: once more
                log.error("the store cannot be opened: %s", error)
                kind = StoreGone if isinstance(error, StoreLost) else Unavailable
                self._desk.shut(kind(f"the store failed and cannot be opened: {error}"))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
        self._reopening = None
        if not self._left:
            self._desk.open(self._ledger.epoch)
        log.warning("the store is open again, as of commit %d", self._ledger.commit_no)

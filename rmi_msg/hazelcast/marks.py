"""Marks in cursors, which tell a reader that the log was begun anew.

A place in an order says nothing of what came before it. If the cluster was lost and begun anew, the
same place is another one, or is not there yet, and who went on reading there would skip messages
without a word. So a cursor has the digest of what its block had before it: ``block.index-digest``.
Blocks only grow, so that stays. A cursor without one is taken as it is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from rmi_msg.checks import bad_cursor, log_begun_anew
from rmi_msg.hazelcast import missing
from rmi_msg.hazelcast.blocks import Place, unpack
from rmi_msg.hazelcast.missing import Missing
from rmi_msg.hazelcast.table import Table

_MARK: Final = re.compile("[0-9a-f]{16}")


class Split(NamedTuple):
    """A cursor without its mark, and the mark; none: it has none."""

    cursor: str | None
    mark: str | None


def split(after: str | None) -> Split:
    """Take a cursor apart.

    Raises:
        InvalidRequest: what stands for the mark is none.
    """
    cursor, dash, mark = (after or "").partition("-")
    if not dash:
        return Split(after, None)
    if not _MARK.fullmatch(mark):
        raise bad_cursor(after or "")
    return Split(cursor, mark)


class Marks:
    """Looks whether a place in an order still has its mark.

    Args:
        blocks: of the order.
        monotonic_s: this process's clock.
    """

    def __init__(
        self, blocks: Table[int], monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._blocks = blocks
        self._monotonic_s = monotonic_s
        self._missing: Missing[str] = Missing()  # marks that are not where they should be

    async def check(self, place: Place, mark: str | None) -> None:
        """See that the log is the one in which *place* got its *mark*; None: it has none.

        A member that was left behind does not know what came since: it is asked again.

        Raises:
            LogBegunAnew: it is another.
        """
        if mark is None:
            return
        while True:
            text = await self._blocks.get(place.block)
            if text is not None and unpack(text).mark(place.offset) == mark:
                self._missing.found([mark])
                return
            if self._missing.given_up(mark) or self._missing.missed([mark], self._monotonic_s()):
                raise log_begun_anew()
            await asyncio.sleep(missing.PAUSE_S)

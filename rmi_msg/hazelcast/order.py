"""The order of arrival: a log of ids on one Hazelcast map, written by all loggers at once.

Hazelcast gives single steps on single keys, two backups, and no order. The log is built of two,
``put_if_absent`` and ``replace`` (compare and set), by these rules:

1. Ids are added by growing the last block, or by beginning the next one.
2. The next block is begun only after the last one is *settled and closed*: its closed form was
   written with both backups acknowledged. So if block n+1 exists, block n is settled and final.
3. An id is added only when a writer has looked at every block since before the id was stored, and
   has not found it: so it is in the log once, whoever adds it, and however often.
4. A reader passes a block only if it is settled: its successor names it by its digest, or the
   reader has rewritten it unchanged, and both backups acknowledged that.

What is acknowledged is therefore in the log for good (1, 2: a lost member cannot take away a block
that others were built on), and no id ever appears before a place that a reader has passed (2, 4:
what it passed can neither grow nor vanish; what it did not pass, it has not seen).

A write that nobody acknowledged may vanish with its member; then the block is as it was before, and
the writer, who was told nothing, adds its ids again.

If more members are lost at once than there are backups, blocks may be lost in the middle of the
log, and what is begun anew in such a place does not fit what comes after it. Whoever finds that
waits, as for any entry that should be there (:mod:`~rmi_msg.hazelcast.missing`), and goes on with
what is there. A block that is lost is begun closed and empty: readers may have passed its place.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

from rmi_msg.hazelcast import missing
from rmi_msg.hazelcast.blocks import BLOCK_IDS_MAX, Block, Place, digest, misfits, pack, unpack
from rmi_msg.hazelcast.missing import Missing
from rmi_msg.hazelcast.table import Table

log = logging.getLogger(__name__)

READ_AHEAD: Final = 4
"""Blocks that are read at once."""

RECENT_S: Final = 0.5
"""How old what we know of the last block may be to save asking, in seconds."""


class Listed(NamedTuple):
    """An id in the log, the place behind it, and the block that it is in."""

    id: str
    after: Place
    block: Block = Block(0, ())

    @property
    def cursor(self) -> str:
        """The place, with its mark: see :mod:`rmi_msg.hazelcast.marks`."""
        return f"{self.after}-{self.block.mark(self.after.offset)}"


class Order:
    """The log, as one process reads and writes it.

    Args:
        blocks: the map of blocks: number of the block to its JSON text.
        monotonic_s: this process's clock.
    """

    def __init__(
        self, blocks: Table[int], monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._blocks = blocks
        self._monotonic_s = monotonic_s
        self._last = 0  # the last block we know of; only a hint
        self._last_at_s = -math.inf  # when it was that
        self._settled = (0, "")  # a block that we know to be settled, and its text
        self._missing: Missing[int] = Missing()  # what blocks should have before them

    async def last(self) -> int:
        """Return the number of the last block; 0 also if there is none yet.

        Whatever is added to the log after this call goes into that block or a later one.
        """
        last = self._last  # others of this process may find out the same meanwhile
        row = await self._row_at_end(last)
        if not row and last:
            last = 0  # another cluster, begun anew
            row = await self._row(0)
        last += max(len(row) - 1, 0)
        if len(row) == READ_AHEAD:
            last = await self._leap(last)
        self._last, self._last_at_s = last, self._monotonic_s()
        return last

    async def since(self) -> int:
        """Return a block for :meth:`add` to look from on: the last one, or one shortly before.

        Like :meth:`last`, but whoever adds all the time need not ask.
        """
        if self._monotonic_s() - self._last_at_s < RECENT_S:
            return self._last
        return await self.last()

    async def _leap(self, low: int) -> int:
        """Return the number of the last block, which is *low* or after."""
        # The blocks have no gaps (rule 2): leap forward to one that is missing, then halve.
        step = 1
        while await self._blocks.get(low + step) is not None:
            low += step
            step *= 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            if await self._blocks.get(middle) is None:
                high = middle
            else:
                low = middle
        return low

    async def count(self) -> int:
        """Return how many ids the log has."""
        text = await self._blocks.get(await self.last())
        return 0 if text is None else unpack(text).end

    async def add(self, ids: Iterable[str], since: int) -> int:
        """Add ids at the end, unless they are in the log since block *since*.

        When this returns, all of them are in the log, and settled.

        Args:
            ids: any number of ids.
            since: a block that was the last one, or before, when the ids were stored.

        Returns:
            *since*; or a block before it, if that was of another cluster: none of them is before.
        """
        left = dict.fromkeys(ids)
        number = since
        while left:
            row = await self._row_at_end(number)
            if not row and number:
                # Another cluster, begun anew. There are no gaps, so the last block is before this
                # one; if others come meanwhile, none of them may be skipped.
                number = min(number, await self.last())
                since = min(since, number)
                continue
            number += max(len(row) - 1, 0)
            for text in row[:-1]:
                _strike(left, text)
            if len(row) == READ_AHEAD:
                continue
            doubtful = _strike(left, row[-1]) if row else []
            if not await self._write(number, row[-1] if row else None, left):
                left.update(dict.fromkeys(doubtful))
        return since

    async def _write(self, number: int, text: str | None, left: dict[str, None]) -> bool:
        """Add *left* to the last block, or begin the next one with them.

        Those that were added are taken out of *left*.

        Args:
            number: of the last block.
            text: what it was a moment ago; None: there is no block yet.
            left: ids to be added; may be empty.

        Returns:
            False if block *number* is another now. If not, what was seen of it is settled.
        """
        if text is None:
            await self._begin(0, None, left)
            return True
        if not left:
            return await self._settle(number, text)
        block = unpack(text)
        if block.can_take(len(left)):
            new = pack(block.grown(list(left)))
            if not await self._blocks.replace(number, text, new):
                return False
            left.clear()
            self._note(number, new)
            return True
        # Even if it is closed already: who closed it may still be waiting for the backups.
        closed = block.shut()
        if not await self._blocks.replace(number, text, pack(closed)):
            return False
        await self._begin(number + 1, closed, left)
        return True

    async def _begin(self, number: int, before: Block | None, left: dict[str, None]) -> bool:
        """Begin block *number* with the first of *left*, unless another has begun it.

        Returns:
            False if it is not the end: another has, or it was lost, and stays empty.
        """
        # Who has passed a block that is lost would never see what was added there.
        lost = await self._blocks.get_all(range(number + 1, number + 1 + READ_AHEAD))
        ids = [] if lost else list(left)[:BLOCK_IDS_MAX]
        block = before.successor(ids) if before else Block(0, tuple(ids))
        new = pack(block.shut() if lost else block)
        if await self._blocks.put_if_absent(number, new) is not None:
            return False
        for id in ids:
            del left[id]
        self._note(number, new)
        return not lost

    async def missing(self, ids: Mapping[str, int]) -> dict[str, int]:
        """Tell which of some ids are not in the log.

        Args:
            ids: id to a block before which it cannot be.

        Returns:
            Those that are not, each with a block before which it cannot be; others are settled.
        """
        left = dict(ids)
        number = min(left.values(), default=0)
        while left:
            row = await self._row_at_end(number)
            if not row:
                break
            number += len(row) - 1
            for text in row[:-1]:
                _strike(left, text)
            known = dict(left)
            if _strike(left, row[-1]) and not await self._settle(number, row[-1]):
                left = known
            elif len(row) < READ_AHEAD:
                break
            elif left:
                number = max(number, min(left.values()))
        return dict.fromkeys(left, number)

    async def read(self, after: Place, limit: int, *, current: bool = True) -> list[Listed]:
        """Read settled ids behind a place.

        Args:
            after: where to begin.
            limit: most ids to return.
            current: see that the end of the log is the end now, which costs a write. If not, a
                member that the others went on without may leave out what was added last.

        Returns:
            The ids in order; fewer than *limit* only at the end of the log.
        """
        found: list[Listed] = []
        number, index = after
        ended = False
        while not ended and len(found) < limit:
            row = await self._row(number)
            # The last block may have grown before its successor comes: do not look behind it.
            ended = len(row) < READ_AHEAD
            if not ended:
                row.pop()  # it is the first of the next row
            elif not await self._is_end(number, row, current):
                ended = False
                continue
            for text in row:
                block = unpack(text)
                ids = enumerate(block.ids[index:], index + 1)
                found += [Listed(id, Place(number, place), block) for place, id in ids]
                number, index = number + 1, 0
        return found[:limit]

    async def between(self, first: Place, end: Place) -> list[str] | None:
        """Return the ids between two places, the latter of which a reader has passed.

        Returns:
            The ids in order; None if whoever was asked does not know all of them (any more).
        """
        numbers = range(first.block, end.block + 1)
        while True:
            texts = await self._blocks.get_all([*numbers, end.block + 1])
            row = [texts[number] for number in numbers if number in texts]
            blocks = list(map(unpack, row))
            if (
                len(row) < len(numbers)
                or len(blocks[-1].ids) < end.offset
                or any(
                    then.before != digest(one) for one, then in zip(row, blocks[1:], strict=False)
                )
            ):
                return None
            follower = texts.get(end.block + 1)
            final = follower is not None and unpack(follower).before == digest(row[-1])
            # A member left behind may have other ids in it, which nobody has acknowledged.
            if final or await self._settle(end.block, row[-1]):
                break
        ids = [list(block.ids) for block in blocks]
        del ids[-1][end.offset :]
        del ids[0][: first.offset]
        return list(chain.from_iterable(ids))

    async def _is_end(self, number: int, row: list[str], current: bool) -> bool:
        """See that the log ends with *row*, read at block *number* a moment ago, and is settled.

        A block that is open and the same has no successor. Where that does not tell, an empty one
        is begun: if that can be done, nobody else has.
        """
        if row:
            number, text = number + len(row) - 1, row[-1]
            if not await self._settle(number, text, anew=current):
                return False
            block = unpack(text)
            if not (current and block.closed):
                return True
            return await self._begin(number + 1, block, {})
        if not current:
            return True
        if number == 0:
            return await self._begin(0, None, {})
        last = await self.last()
        row = await self._row(last)
        return last + len(row) <= number and await self._is_end(last, row, True)

    async def _row(self, first: int) -> list[str]:
        """Return the texts of consecutive blocks from *first* on.

        Returns:
            Nothing if block *first* is missing. All but the last are settled and final. If they are
            fewer than :data:`READ_AHEAD`, the last one was the end of the log.
        """
        numbers = range(first, first + READ_AHEAD)
        seen: dict[int, tuple[str, str]] = {}
        while True:
            texts = await self._blocks.get_all(numbers)
            row: list[str] = []
            for number in numbers:
                if (text := texts.get(number)) is None:
                    break
                row.append(text)
            # A block that was read before its successor was begun may be another since.
            apart = misfits(first, row)
            fit = range(first + 1, first + len(row))
            self._missing.found([number for number in fit if number not in apart])
            if self._is_lost(apart, again=apart == seen):
                return row
            if apart == seen:
                await asyncio.sleep(missing.PAUSE_S)
            seen = apart

    def _is_lost(self, apart: Iterable[int], *, again: bool) -> bool:
        """Say whether all that should be before some blocks is lost.

        Args:
            apart: their numbers; also if there are none, there is nothing to wait for.
            again: they were found so when they were read a moment before.
        """
        left = [number for number in apart if not self._missing.given_up(number)]
        if left and again and self._missing.missed(left, self._monotonic_s()):
            log.error(
                "what came before block %d of an order of arrival is lost: more members were lost "
                "at once than there are backups",
                left[0],
            )
            return True
        return not left

    async def _row_at_end(self, first: int) -> list[str]:
        """Return the same, where block *first* is likely to be the last: it alone if it is open."""
        text = await self._blocks.get(first)
        return [text] if text is not None and not unpack(text).closed else await self._row(first)

    async def _settle(self, number: int, text: str, *, anew: bool = False) -> bool:
        """See that block *number*, which was *text* a moment ago, is settled.

        Args:
            number: of the block.
            text: what it was.
            anew: do not rely on having seen it so before: it may have grown since.

        Returns:
            False if it is another now.
        """
        if not anew and self._settled == (number, text):
            return True
        if not await self._blocks.replace(number, text, text):
            return False
        self._note(number, text)
        return True

    def _note(self, number: int, text: str) -> None:
        self._settled = (number, text)
        if number >= self._last:
            self._last, self._last_at_s = number, self._monotonic_s()


def _strike(left: dict[str, Any], text: str) -> list[str]:
    """Take the ids of a block out of *left*; return those that were in it."""
    found = [id for id in unpack(text).ids if id in left]
    for id in found:
        del left[id]
    return found

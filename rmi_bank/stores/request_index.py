"""Which outcome a request id has: the latest ids in memory, the others in a table. Pure code.

Outcomes are appended to their table in the order they come, which costs a commit next to nothing.
Finding one by its request id takes an index, and ids come in any order: kept up with every commit,
an index of millions would cost a page of the disk for each of them. So the latest ids are kept in
memory, and *indexed* behind, as balances are folded (see :mod:`rmi_bank.stores.books`): a *pass*
writes all ids that came before it began, in their order, a few along with each transaction, so that
many of them share a page. When it is through, the mark ``indexed_outcome`` moves up; a start takes
the outcomes above that mark into memory again. An id that is written twice by that is written once:
the table keeps the first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

PASS_IDS = 65_536
"""A pass begins when this many ids have come since the last."""

RUN_MAX = 4096
"""Longest run that others are merged into: all callers wait meanwhile, for half a millisecond. In
one run, the ids of a pass would keep them for eight."""

_INDEX_LEAST = 64  # ids written with a transaction, at least, while a pass is on

IndexRow = tuple[str, int]
"""(request id, number of its outcome)"""


class RequestIndex:
    """The latest request ids, and what is to be indexed next.

    Args:
        recent: (request id, outcome) of all outcomes above *indexed_outcome*, in their order.
        indexed_outcome: every outcome up to this one is in the table.

    Attributes:
        last: number of the last outcome.
        indexed_outcome: as above; moves up at the end of a pass.
    """

    def __init__(self, recent: Iterable[IndexRow] = (), indexed_outcome: int = 0) -> None:
        self.indexed_outcome = indexed_outcome
        self.last = indexed_outcome
        self._recent: dict[str, int] = {}
        for request_id, outcome in recent:
            self._recent.setdefault(request_id, outcome)
            self.last = outcome
        self._runs: list[list[str]] = []  # ids to write in the next pass, each run sorted
        self._came = 0  # how many those are
        self._pass: Iterator[str] = iter(())  # the ids of the present pass, in order
        self._next: list[str] = []  # those that were taken from it and are not on disk yet
        self._left = 0  # how many of the present pass are not on disk yet
        self._planned = 0  # how many come next
        self._pass_end = indexed_outcome
        self._new = list(self._recent)  # ids that came since the last sort()
        self.sort()

    def find(
        self, request_ids: Sequence[str], none_up_to: int = 0
    ) -> tuple[list[int], Sequence[str]]:
        """Look for *request_ids* in memory.

        Args:
            request_ids: the ids.
            none_up_to: none of them is among the outcomes up to this one.

        Returns:
            The outcomes of those that are there, and the others, if they may be in the table.
        """
        recent = self._recent
        found: list[int] = []
        others = request_ids
        if not recent.keys().isdisjoint(request_ids):
            found = [recent[request_id] for request_id in request_ids if request_id in recent]
            others = [request_id for request_id in request_ids if request_id not in recent]
        # What came after the last pass began is not in the table, but in memory.
        return found, others if self._pass_end > none_up_to else ()

    def plan(self, new: int) -> list[IndexRow]:
        """Return what to index with a transaction that brings *new* outcomes.

        It is planned anew until :meth:`apply`, so a transaction may fail.
        """
        if not self._left:
            return []
        # Twice as many: a pass ends before the next one is due.
        self._planned = max(_INDEX_LEAST, 2 * new)
        self._take(self._planned)
        recent = self._recent
        ids = self._next[: self._planned]
        return [(request_id, recent[request_id]) for request_id in ids if request_id in recent]

    def mark(self) -> int:
        """Return ``indexed_outcome`` as it will be when what is planned is on disk."""
        through = self._left and self._planned >= self._left
        return self._pass_end if through else self.indexed_outcome

    def apply(self, new: Sequence[IndexRow]) -> None:
        """Take in a transaction that is on disk: what was planned is indexed, *new* ids came.

        Others wait for that, so what can be done later is left to :meth:`sort`.
        """
        recent = self._recent
        if self._left:
            self.indexed_outcome = self.mark()
            written = self._next[: self._planned]
            for request_id in written:
                recent.pop(request_id, None)
            del self._next[: self._planned]
            self._left -= len(written)
            self._planned = 0
        if new:
            self.last = new[-1][1]
            recent.update(new)
            self._new += [request_id for request_id, _ in new]

    def sort(self) -> None:
        """Sort in the ids that came, and begin the next pass if it is due.

        For when there is time, such as while the disk is busy; also with a plan under way. They are
        kept in runs of falling length, so that merging them is cheap; those of full length are
        merged as a pass goes through them.
        """
        if self._new:
            self._new.sort()
            self._came += len(self._new)
            runs = self._runs
            runs.append(self._new)
            self._new = []
            while len(runs) > 1 and _may_merge(runs[-2], runs[-1]):
                last = runs.pop()
                runs[-1] += last
                runs[-1].sort()  # it finds the two
        if self._came >= PASS_IDS and not self._left:
            self._pass, self._left = heapq.merge(*map(_drained, self._runs)), self._came
            self._pass_end = self.last
            self._runs, self._came = [], 0
        self._take(2 * self._planned)  # probably as many go with the next transaction as with this

    def _take(self, count: int) -> None:
        """Have the next *count* ids of the pass at hand, if there are so many."""
        self._next += islice(self._pass, max(0, count - len(self._next)))


def _may_merge(run: list[str], last: list[str]) -> bool:
    return len(run) < 2 * len(last) and len(run) + len(last) <= RUN_MAX


def _drained(run: list[str]) -> Iterator[str]:
    """Return the ids of *run* in their order. Each leaves it, as freeing all at once takes long."""
    run.append("")
    run.reverse()
    return iter(run.pop, "")

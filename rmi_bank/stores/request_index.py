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
        # Sorted, to be merged by the next pass.
        self._runs: list[list[IndexRow]] = [sorted(self._recent.items())]
        self._came = len(self._recent)  # in those runs
        self._pass: Iterator[IndexRow] | None = None
        self._pass_end = indexed_outcome
        self._planned: list[IndexRow] = []
        self._planned_end = False

    def find(self, request_ids: Sequence[str]) -> tuple[list[int], list[str]]:
        """Look for *request_ids* in memory.

        Returns:
            The outcomes of those that are there, and the others: they may be in the table.
        """
        recent = self._recent
        found = [recent[request_id] for request_id in request_ids if request_id in recent]
        if not self._pass_end:
            return found, []  # nothing has ever been indexed
        return found, [request_id for request_id in request_ids if request_id not in recent]

    def plan(self, new: int) -> list[IndexRow]:
        """Return what to index with a transaction that brings *new* outcomes.

        Until :meth:`apply` it is the same again, so that a transaction may fail.
        """
        if self._pass is None:
            return []
        most = max(_INDEX_LEAST, 2 * new)  # a pass ends before the next one is due
        missing = most - len(self._planned)
        if missing > 0 and not self._planned_end:
            self._planned += islice(self._pass, missing)
            self._planned_end = len(self._planned) < most
        return self._planned

    def mark(self) -> int:
        """Return ``indexed_outcome`` as it will be when what is planned is on disk."""
        return self._pass_end if self._planned_end else self.indexed_outcome

    def apply(self, new: Sequence[IndexRow]) -> None:
        """Take in a transaction that is on disk: what was planned is indexed, *new* ids came."""
        recent = self._recent
        self.indexed_outcome = self.mark()
        for request_id, _ in self._planned:
            recent.pop(request_id, None)
        self._planned = []
        if self._planned_end:
            self._pass, self._planned_end = None, False
        if new:
            recent.update(new)
            self._runs.append(sorted(new))
            self._came += len(new)
            self.last += len(new)
        if self._pass is None and self._came >= PASS_IDS:
            self._pass = heapq.merge(*self._runs)
            self._pass_end = self.last
            self._runs, self._came = [], 0

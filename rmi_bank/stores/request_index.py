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

from collections.abc import Iterable, Sequence

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
        self._runs: list[list[str]] = []  # ids to write in the next pass, each run sorted
        self._came = 0  # how many those are
        self._pass: list[str] = []  # the ids of the present pass, sorted
        self._written = 0  # how many of them are on disk
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
        if not self._pass:
            return []
        # Twice as many: a pass ends before the next one is due.
        self._planned = max(_INDEX_LEAST, 2 * new)
        recent = self._recent
        ids = self._pass[self._written : self._written + self._planned]
        return [(request_id, recent[request_id]) for request_id in ids if request_id in recent]

    def mark(self) -> int:
        """Return ``indexed_outcome`` as it will be when what is planned is on disk."""
        through = self._pass and self._written + self._planned >= len(self._pass)
        return self._pass_end if through else self.indexed_outcome

    def apply(self, new: Sequence[IndexRow]) -> None:
        """Take in a transaction that is on disk: what was planned is indexed, *new* ids came.

        Others wait for that, so what can be done later is left to :meth:`sort`.
        """
        recent = self._recent
        if self._pass:
            self.indexed_outcome = self.mark()
            for request_id in self._pass[self._written : self._written + self._planned]:
                recent.pop(request_id, None)
            self._written += self._planned
            self._planned = 0
            if self._written >= len(self._pass):
                self._pass, self._written = [], 0
        if new:
            self.last = new[-1][1]
            recent.update(new)
            self._new += [request_id for request_id, _ in new]

    def sort(self) -> None:
        """Sort in the ids that came, and begin the next pass if it is due.

        For when there is time, such as while the disk is busy; also with a plan under way. They are
        kept in runs of falling length, so that merging them is cheap.
        """
        if self._new:
            self._new.sort()
            self._came += len(self._new)
            runs = self._runs
            runs.append(self._new)
            self._new = []
            while len(runs) > 1 and len(runs[-2]) < 2 * len(runs[-1]):
                runs.append(_merged([runs.pop(), runs.pop()]))
        if self._came >= PASS_IDS and not self._pass:
            self._pass = _merged(self._runs)
            self._pass_end = self.last
            self._runs, self._came = [], 0


def _merged(runs: list[list[str]]) -> list[str]:
    merged = [request_id for run in runs for request_id in run]
    merged.sort()  # it finds the runs
    return merged

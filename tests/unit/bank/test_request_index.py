"""The index of request ids: what memory holds, what is written behind, what a start finds."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from rmi_bank.stores import request_index
from rmi_bank.stores.request_index import IndexRow, RequestIndex


class Table:
    """What would be on disk."""

    def __init__(self) -> None:
        self.outcomes: list[IndexRow] = []
        self.ids: dict[str, int] = {}
        self.mark = 0
        self.most = 0

    def write(self, index: RequestIndex, request_ids: Sequence[str]) -> None:
        planned = index.plan(len(request_ids))
        assert index.plan(len(request_ids)) == planned, "a plan that failed is planned again"
        mark = index.mark()
        index.sort()  # as it is done: while the plan is being written
        rows = [(one, index.last + place) for place, one in enumerate(request_ids, 1)]
        self.outcomes += rows
        for request_id, outcome in planned:
            self.ids.setdefault(request_id, outcome)
        self.mark = mark
        self.most = max(self.most, len(planned))
        index.apply(rows)

    def restarted(self) -> RequestIndex:
        return RequestIndex(self.outcomes[self.mark :], self.mark)

    def look_up(self, index: RequestIndex, request_id: str) -> int | None:
        found, others = index.find([request_id])
        if found:
            return found[0]
        return self.ids.get(request_id) if others else None


@pytest.fixture(autouse=True)
def small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_index, "PASS_IDS", 300)
    monkeypatch.setattr(request_index, "RUN_MAX", 64)


def test_every_id_is_found_at_every_moment_and_after_every_restart() -> None:
    chance = random.Random(5)
    table, index = Table(), RequestIndex()
    for step in range(400):
        table.write(index, [f"1:{chance.getrandbits(64):x}" for _ in range(chance.randrange(9))])
        if step % 7 == 0:
            index = table.restarted()
        for request_id, outcome in chance.sample(table.outcomes, min(20, len(table.outcomes))):
            assert table.look_up(index, request_id) == outcome
            assert table.look_up(table.restarted(), request_id) == outcome
        assert table.look_up(index, "1:never") is None


def test_ids_that_were_not_there_are_found_when_they_have_come_since() -> None:
    """Whoever saw none of its ids looks only at what is new, whatever was indexed meanwhile."""
    chance = random.Random(6)
    table, index = Table(), RequestIndex()
    waiting: list[tuple[str, int]] = []  # ids that are looked up again later, and when they were
    passed_by = skipped = 0
    for step in range(2000):
        request_id = f"1:{step}"
        assert table.look_up(index, request_id) is None
        waiting.append((request_id, index.last))
        if len(waiting) > 50:
            one, seen = waiting.pop(chance.randrange(50))
            came = chance.random() < 0.5
            if came:
                table.write(index, [one])
                waiting.append((one, seen))  # and it is there from now on
            known = {row[0] for row in table.outcomes}
            found, others = index.find([one], seen)
            if one in known:
                assert found or (others and one in table.ids)
                passed_by += not found
            else:
                assert not found
                skipped += not others and bool(table.ids)
        table.write(index, [f"2:{chance.random()}" for _ in range(chance.randrange(9))])
    assert passed_by
    assert skipped


def test_memory_and_transactions_stay_small() -> None:
    table, index = Table(), RequestIndex()
    for number in range(3000):
        table.write(index, [f"1:{number * 7919 % 3000:04d}"])
        assert len(table.outcomes) - table.mark <= 2 * 300 + 64
    assert table.mark > 2000
    assert table.most <= 64
    assert len(index.find([one for one, _ in table.outcomes])[0]) <= 2 * 300 + 64


def test_ids_are_written_in_their_order() -> None:
    table, index = Table(), RequestIndex()
    chance = random.Random(3)
    for _ in range(290):
        table.write(index, [f"1:{chance.random()}"])
    table.write(index, [f"1:{chance.random()}" for _ in range(10)])
    for _ in range(5):  # the first of them begins the pass
        table.write(index, [f"1:{chance.random()}"])
    written = list(table.ids)
    assert len(written) == 4 * 64
    assert written == sorted(written)


def test_an_id_that_stands_twice_keeps_its_first_outcome() -> None:
    index = RequestIndex([("1:a", 4), ("1:b", 5), ("1:a", 6)], 3)
    assert index.find(["1:a"]) == ([4], [])
    assert index.last == 6


class Compared(str):
    """A request id that counts how often any of them is compared with another."""

    __slots__ = ()
    count = 0

    def __lt__(self, other: str) -> bool:
        Compared.count += 1
        return str.__lt__(self, other)


def test_no_transaction_waits_for_more_ids_than_a_run_has_to_be_put_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_index, "PASS_IDS", 4096)
    chance = random.Random(7)
    table, index = Table(), RequestIndex()
    most = 0
    while table.mark < 8192:
        Compared.count = 0
        table.write(index, [Compared(f"1:{chance.getrandbits(64):x}") for _ in range(8)])
        most = max(most, Compared.count)
    assert 0 < most < 2048

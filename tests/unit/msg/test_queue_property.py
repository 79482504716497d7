"""Whatever the order of storing, claiming, dying and sweeping: each message is consumed once."""

from __future__ import annotations

import sqlite3
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from rmi_msg.stores import Claim
from rmi_msg.stores import sqlite_tables as tables
from rmi_msg.stores.message_ids import MessageIds

LEASE_NS = 10_000_000_000
SERVICES = st.sampled_from(["msg.messages.1", "msg.messages.2", "msg.messages.3"])


class QueueMachine(RuleBasedStateMachine):
    """Messages services that stop, die or dawdle between any two steps.

    A claim in the bundle ``claimed`` has been handed out; one in ``stored`` was entered as consumed
    as well. A claim that no later rule picks up is that of a service that died there.
    """

    claimed: Bundle[Claim] = Bundle("claimed")
    stored: Bundle[Claim] = Bundle("stored")

    def __init__(self) -> None:
        super().__init__()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        tables.create(self.connection)
        self.ids = MessageIds()
        self.now_ns = 0
        self.put_ids: dict[str, str] = {}
        self.times_consumed: Counter[str] = Counter()
        self.held: dict[int, tuple[Claim, int]] = {}  # number: claim that holds, its end

    @rule(batch=st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab")), max_size=8))
    def put(self, batch: list[tuple[int, str]]) -> None:
        expected = []
        for number, text in batch:
            known = self.put_ids.get(str(number))
            self.put_ids.setdefault(str(number), text)
            expected.append("new" if known is None else "same" if known == text else "other")
        pairs = [(str(number), text) for number, text in batch]
        assert tables.put_many(self.connection, self.ids, pairs, "msg.logger.1", 0) == expected

    @rule(target=claimed, by=SERVICES, limit=st.integers(1, 5))
    def claim(self, by: str, limit: int) -> object:
        waiting = tables.waiting(self.connection)
        claim = tables.claim(self.connection, by, limit, LEASE_NS, self.now_ns)
        assert waiting == (claim is not None)
        if claim is None:
            return multiple()
        ids = {id for id, _ in claim.messages}
        assert 1 <= len(ids) <= limit
        for other, _ in self.held.values():
            assert ids.isdisjoint(id for id, _ in other.messages), "held by two at once"
        self.held[claim.token[0]] = (claim, self.now_ns + LEASE_NS)
        return claim

    @rule(target=stored, claim=claimed)
    def store(self, claim: Claim) -> Claim:
        news = tables.add(self.connection, claim, 0)
        assert len(news) == len(claim.messages)
        self.times_consumed.update(
            id for (id, _), new in zip(claim.messages, news, strict=True) if new
        )
        return claim

    @rule(claim=consumes(stored))
    def mark_done(self, claim: Claim) -> None:
        held = self.held.pop(claim.token[0], None)
        if tables.done(self.connection, claim):
            return
        assert held is None, "a claim that still held could not be ended"

    @rule(by=SERVICES)
    def restart(self, by: str) -> None:
        mine = [number for number, (claim, _) in self.held.items() if claim.by == by]
        assert tables.give_back(self.connection, by) == len(mine)
        for number in mine:
            del self.held[number]

    @rule(seconds=st.integers(1, 8))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * 1_000_000_000

    @rule()
    def sweep(self) -> None:
        late = [number for number, (_, end_ns) in self.held.items() if end_ns < self.now_ns]
        assert tables.any_run_out(self.connection, self.now_ns) == bool(late)
        assert tables.sweep(self.connection, self.now_ns) == len(late)
        for number in late:
            del self.held[number]

    @invariant()
    def consumed_at_most_once(self) -> None:
        assert all(times == 1 for times in self.times_consumed.values())
        page = tables.consumed_page(self.connection, None, 1000)
        assert Counter(row.id for row in page.rows) == self.times_consumed

    def teardown(self) -> None:
        """Everybody is gone; one new service finds all that was not consumed yet."""
        self.now_ns += LEASE_NS + 1
        tables.sweep(self.connection, self.now_ns)
        while claim := tables.claim(self.connection, "msg.messages.9", 3, LEASE_NS, self.now_ns):
            self.store_rest(claim)
        assert self.times_consumed == Counter(self.put_ids.keys()), "lost, or consumed twice"
        left = self.connection.execute("SELECT count(*) FROM claims").fetchone()
        assert left == (0,)
        self.connection.close()

    def store_rest(self, claim: Claim) -> None:
        news = tables.add(self.connection, claim, 0)
        self.times_consumed.update(
            id for (id, _), new in zip(claim.messages, news, strict=True) if new
        )
        assert tables.done(self.connection, claim)


QueueMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, print_blob=True
)
TestQueue = QueueMachine.TestCase

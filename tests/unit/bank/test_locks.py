"""The lock table, driven by a fake clock; and a state machine that tries every order of events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rmi_bank.errors import StaleLease
from rmi_bank.locks import EPOCH_MAX, LockTable, State, Ticket
from rmi_runtime.errors import Overloaded

LEASE_S = 10.0


def make_table(epoch: int = 1, tickets_max: int = 100) -> LockTable:
    return LockTable(epoch, lease_s=LEASE_S, tickets_max=tickets_max)


def ask(table: LockTable, owner: str, *keys: int | str, now_s: float = 0.0) -> Ticket:
    return table.request(owner, keys, now_s=now_s, wait_s=5.0)


def test_free_keys_are_granted_at_once() -> None:
    ticket = ask(make_table(), "a", 1, 2, "7:x")
    assert ticket.state is State.HELD
    assert ticket.lease > 0


def test_a_lock_is_all_or_none() -> None:
    table = make_table()
    first = ask(table, "a", 1)
    both = ask(table, "b", 1, 2)
    assert both.state is State.WAITING
    assert table.release(first, now_s=0) == [both]
    assert both.state is State.HELD


def test_nobody_overtakes_on_a_key_even_one_who_could_have_it_now() -> None:
    table = make_table()
    ask(table, "a", 1)
    early = ask(table, "b", 1, 2)
    late = ask(table, "c", 2)
    assert (early.state, late.state) == (State.WAITING, State.WAITING)


def test_an_account_and_a_request_id_of_the_same_digits_are_different_keys() -> None:
    table = make_table()
    ask(table, "a", 1)
    assert ask(table, "b", "1").state is State.HELD


def test_a_lease_is_its_owners_only() -> None:
    table = make_table()
    ticket = ask(table, "a", 1)
    assert table.held(ticket.lease, "a", now_s=0) is ticket
    with pytest.raises(StaleLease):
        table.held(ticket.lease, "b", now_s=0)


@pytest.mark.parametrize("lease", [0, 1, 2**63 - 1])
def test_an_invented_lease_is_refused(lease: int) -> None:
    with pytest.raises(StaleLease):
        make_table().held(lease, "a", now_s=0)


def test_a_lease_is_stale_from_the_moment_it_expires_even_before_anybody_swept() -> None:
    table = make_table()
    ticket = ask(table, "a", 1)
    table.held(ticket.lease, "a", now_s=LEASE_S - 0.001)
    with pytest.raises(StaleLease, match="expired"):
        table.held(ticket.lease, "a", now_s=LEASE_S)


def test_expiry_frees_the_keys_for_the_next_one() -> None:
    table = make_table()
    held = ask(table, "a", 1)
    waiting = table.request("b", [1], now_s=6.0, wait_s=5.0)
    changes = table.expire(LEASE_S)
    assert changes.expired == [held]
    assert changes.granted == [waiting]
    with pytest.raises(StaleLease):
        table.held(held.lease, "a", now_s=LEASE_S)


def test_a_lease_that_is_being_committed_does_not_expire_nor_die_with_its_owner() -> None:
    table = make_table()
    held = ask(table, "a", 1)
    waiting = table.request("b", [1], now_s=0.0, wait_s=60.0)
    table.begin_commit(held)
    assert table.drop_owner("a", now_s=1.0) == []
    assert table.expire(20.0).granted == []
    assert waiting.state is State.WAITING
    assert table.release(held, now_s=21.0) == [waiting]


def test_a_lease_that_is_being_committed_cannot_be_committed_or_unlocked_again() -> None:
    table = make_table()
    held = ask(table, "a", 1)
    table.begin_commit(held)
    with pytest.raises(StaleLease, match="being committed"):
        table.held(held.lease, "a", now_s=0)


def test_a_lease_lives_its_whole_time_from_the_grant_not_from_the_asking() -> None:
    table = make_table()
    first = ask(table, "a", 1)
    second = table.request("b", [1], now_s=0.0, wait_s=60.0)
    table.release(first, now_s=9.0)
    assert table.held(second.lease, "b", now_s=18.0) is second


def test_a_lease_lives_as_long_as_was_asked_for_and_no_longer_than_any_may() -> None:
    table = make_table()
    first = table.request("a", [1], now_s=0.0, wait_s=5.0, lease_s=2.0)
    second = table.request("b", [1], now_s=0.0, wait_s=5.0, lease_s=3 * LEASE_S)
    assert table.held(first.lease, "a", now_s=1.9) is first
    with pytest.raises(StaleLease):
        table.held(first.lease, "a", now_s=2.0)
    assert table.next_end_s() == 2.0
    assert table.expire(2.0).granted == [second]
    assert second.ends_at_s == 2.0 + LEASE_S


def test_a_waiter_gives_up_at_its_time_and_lets_those_behind_it_pass() -> None:
    table = make_table()
    ask(table, "a", 1)
    impatient = table.request("b", [1, 2], now_s=0.0, wait_s=3.0)
    behind = table.request("c", [2], now_s=1.0, wait_s=5.0)
    changes = table.expire(3.0)
    assert changes.timed_out == [impatient]
    assert changes.granted == [behind]


def test_a_lease_may_end_at_the_moment_at_which_its_wait_would_have_ended() -> None:
    table = make_table()
    ask(table, "a", 1)
    second = table.request("b", [1], now_s=0.0, wait_s=2 * LEASE_S)
    third = table.request("c", [1], now_s=0.0, wait_s=5 * LEASE_S)
    assert table.expire(LEASE_S).granted == [second]
    assert second.ends_at_s == 2 * LEASE_S
    changes = table.expire(2 * LEASE_S)
    assert (changes.expired, changes.granted) == ([second], [third])
    assert len(table) == 1


def test_a_lost_connection_frees_all_it_held_and_waited_for() -> None:
    table = make_table()
    ask(table, "a", 1)
    ask(table, "a", 2)
    ask(table, "a", 1, 3)
    b, c = ask(table, "b", 1, 2), ask(table, "c", 3)
    assert table.drop_owner("a", now_s=0) == [b, c]
    assert len(table) == 2


def test_what_is_granted_together_is_granted_in_the_order_of_asking() -> None:
    table = make_table()
    ask(table, "a", 1)
    ask(table, "a", 2)
    b, c = ask(table, "b", 2), ask(table, "c", 1)
    assert table.drop_owner("a", now_s=0) == [b, c]
    assert b.lease < c.lease


def test_leases_of_an_earlier_epoch_are_worth_nothing_and_all_smaller() -> None:
    before = ask(make_table(epoch=6), "a", 1)
    table = make_table(epoch=7)
    ticket = ask(table, "a", 1)
    assert before.lease < ticket.lease < 2**63
    with pytest.raises(StaleLease):
        table.held(before.lease, "a", now_s=0)
    assert table.release(before, now_s=0) == []
    assert table.held(ticket.lease, "a", now_s=0) is ticket


def test_a_lease_of_the_last_epoch_fits_in_63_bits() -> None:
    assert ask(make_table(epoch=EPOCH_MAX), "a", 1).lease < 2**63
    with pytest.raises(ValueError, match="epoch"):
        make_table(epoch=EPOCH_MAX + 1)


def test_too_many_tickets_are_refused_without_effect() -> None:
    table = make_table(tickets_max=2)
    first = ask(table, "a", 1)
    ask(table, "b", 1)
    with pytest.raises(Overloaded):
        ask(table, "c", 2)
    assert len(table) == 2
    table.release(first, now_s=0)
    assert ask(table, "c", 2).state is State.HELD


def test_nothing_is_kept_of_tickets_that_are_over() -> None:
    table = make_table()
    for number in range(20_000):
        table.release(ask(table, "a", number, f"1:{number}", now_s=number / 1000), now_s=number)
    assert len(table) == 0
    assert len(table._ends) < 5_000
    kept = (table._front, table._behind, table._leases, table._owners, table._tickets)
    assert not any(kept)


def test_the_timer_needs_to_ring_only_for_what_still_ends() -> None:
    table = make_table()
    first = ask(table, "a", 1)
    ask(table, "b", 2, now_s=1.0)
    assert table.next_end_s() == LEASE_S
    table.release(first, now_s=2.0)
    assert table.next_end_s() == 1.0 + LEASE_S


KEYS = st.sets(st.sampled_from([1, 2, 3, "1:x", "1:y"]), min_size=1)
OWNERS = st.sampled_from(["a", "b", "c"])


class LockMachine(RuleBasedStateMachine):
    """Any order of requests, commits, unlocks, disconnects and time passing."""

    def __init__(self) -> None:
        super().__init__()
        self.table = make_table(tickets_max=12)
        self.now_s = 0.0
        self.live: list[Ticket] = []  # in order of asking
        self.highest = 0

    def note(self, granted: list[Ticket]) -> None:
        for ticket in granted:
            assert ticket.lease > self.highest, "fencing numbers rise with every grant"
            self.highest = ticket.lease
        self.live = [ticket for ticket in self.live if ticket.state is not State.OVER]

    def of(self, *states: State) -> list[Ticket]:
        return [ticket for ticket in self.live if ticket.state in states]

    @rule(
        owner=OWNERS,
        keys=KEYS,
        wait_s=st.sampled_from([0.0, 1.0, 4.0, 30.0]),
        lease_s=st.sampled_from([0.1, 1.0, 4.0, LEASE_S, 300.0]),
        patience_s=st.sampled_from([0.0, 0.5, 2.0, 60.0]),
    )
    def request(
        self, owner: str, keys: set[int | str], wait_s: float, lease_s: float, patience_s: float
    ) -> None:
        try:
            ticket = self.table.request(
                owner,
                keys,
                now_s=self.now_s,
                wait_s=wait_s,
                lease_s=lease_s,
                patience_s=patience_s,
            )
        except Overloaded:
            assert len(self.live) == 12
            return
        self.live.append(ticket)
        self.note([ticket] if ticket.state is State.HELD else [])

    @precondition(lambda self: self.of(State.HELD, State.WAITING))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.of(State.HELD, State.WAITING)))
        self.note(self.table.release(ticket, now_s=self.now_s))

    @precondition(lambda self: self.of(State.HELD))
    @rule(data=st.data())
    def begin_commit(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.of(State.HELD)))
        try:
            self.table.held(ticket.lease, ticket.owner, now_s=self.now_s)
        except StaleLease:
            assert self.now_s >= ticket.ends_at_s
            return
        self.table.begin_commit(ticket)

    @precondition(lambda self: self.of(State.COMMITTING))
    @rule(data=st.data())
    def end_commit(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.of(State.COMMITTING)))
        self.note(self.table.release(ticket, now_s=self.now_s))

    @rule(owner=OWNERS)
    def disconnect(self, owner: str) -> None:
        committing = self.of(State.COMMITTING)
        self.note(self.table.drop_owner(owner, now_s=self.now_s))
        assert all(t in committing for t in self.live if t.owner == owner)
        assert all(t.state is State.COMMITTING for t in committing)

    @rule(step_s=st.sampled_from([0.0, 0.5, 3.0, 11.0]))
    def time_passes(self, step_s: float) -> None:
        self.now_s += step_s
        committing = self.of(State.COMMITTING)
        held, waiting = self.of(State.HELD), self.of(State.WAITING)
        changes = self.table.expire(self.now_s)
        self.note(changes.granted)
        for ticket in changes.timed_out:
            early = ticket.ends_at_s > self.now_s
            assert early == bool(ticket.held_up), "before its time only for what is held"
            more_patient = [each for each in waiting if each.patience_s > ticket.patience_s]
            kept = {key for each in (*held, *more_patient) for key in each.keys}
            assert not early or ticket.held_up <= kept
        assert all(t.state is State.COMMITTING for t in committing)
        assert all(t.ends_at_s > self.now_s for t in self.of(State.WAITING, State.HELD))

    @invariant()
    def no_key_has_two_holders(self) -> None:
        held = [key for ticket in self.of(State.HELD, State.COMMITTING) for key in ticket.keys]
        assert len(held) == len(set(held))

    @invariant()
    def a_waiter_waits_only_for_one_who_came_before(self) -> None:
        """Which is FIFO on every key, and no deadlock, and no grant forgotten, in one."""
        for place, ticket in enumerate(self.live):
            earlier = {key for other in self.live[:place] for key in other.keys}
            blocked = bool(earlier & ticket.keys)
            assert blocked == (ticket.state is State.WAITING)

    @invariant()
    def the_table_counts_what_lives(self) -> None:
        assert len(self.table) == len(self.live)
        assert self.table.waiting == len(self.of(State.WAITING))


LockMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLockMachine = LockMachine.TestCase

"""Who has no patience with what is held for long is told of it, and goes on without."""

from __future__ import annotations

from rmi_bank.locks import HELD_UP_MAX, LockTable, State, Ticket
from tests.unit.bank.test_locks import ask, make_table


def impatient(table: LockTable, *keys: int | str, now_s: float = 0.0) -> Ticket:
    return table.request("z", keys, now_s=now_s, wait_s=5.0, patience_s=0.5)


def test_who_has_no_patience_with_a_lease_any_more_is_told_what_it_holds() -> None:
    table = make_table()
    ask(table, "a", 1, 2, "7:x", "7:y")
    ticket = impatient(table, 2, 3, "7:y")
    behind = ask(table, "b", 3)
    assert table.next_end_s() == 0.5
    assert not table.expire(0.49).timed_out
    changes = table.expire(0.5)
    assert (changes.timed_out, changes.granted) == ([ticket], [behind])
    assert ticket.held_up == {1, 2, "7:y"}, "all its accounts, and of its ids the asker's own"


def test_patience_is_with_one_lease_not_with_a_queue_that_moves() -> None:
    table = make_table()
    holders = [ask(table, "a", 1) for _ in range(4)]
    ticket = impatient(table, 1)
    for number, holder in enumerate(holders):
        assert not table.expire(0.4 * number + 0.3).timed_out
        table.release(holder, now_s=0.4 * (number + 1))
    assert ticket.state is State.HELD


def test_a_lease_that_is_held_for_long_is_noticed_also_if_another_was_in_front_first() -> None:
    table = make_table()
    first = ask(table, "a", 1)
    ask(table, "b", 1, 2)
    ticket = impatient(table, 1)
    table.release(first, now_s=0.3)
    assert not table.expire(0.5).timed_out
    assert table.next_end_s() == 1.0
    assert table.expire(1.0).timed_out == [ticket]
    assert ticket.held_up == {1, 2}


def test_all_leases_that_have_been_held_for_too_long_are_named_and_no_others() -> None:
    table = make_table()
    ask(table, "a", 1, 4)
    ask(table, "b", 2)
    moving = ask(table, "c", 3)
    ask(table, "d", 3)
    ticket = impatient(table, 3, 2, 1)
    table.release(moving, now_s=0.3)
    table.expire(0.5)
    assert ticket.held_up == {1, 2, 4}


def test_who_waits_for_what_is_held_for_long_keeps_nobody_impatient_from_its_other_keys() -> None:
    table = make_table()
    ask(table, "a", 1)
    patient = ask(table, "b", 1, 2, 9)
    next_one = ask(table, "c", 2, 3)
    ticket = impatient(table, 3, 4)
    behind = ask(table, "d", 4)
    changes = table.expire(0.5)
    assert (changes.timed_out, changes.granted) == ([ticket], [behind])
    assert ticket.held_up == {2, 3}
    assert (patient.state, next_one.state) == (State.WAITING, State.WAITING)


def test_who_gives_up_as_soon_as_we_do_is_waited_for() -> None:
    table = make_table()
    first = ask(table, "a", 1)
    ask(table, "b", 1, now_s=0.2)
    other = impatient(table, 1, 2, now_s=0.2)
    ticket = impatient(table, 2, now_s=0.25)
    table.release(first, now_s=0.25)
    assert not table.expire(0.7).timed_out
    changes = table.expire(1.2)
    assert (changes.timed_out, changes.granted) == ([other], [ticket])


def test_of_very_many_keys_that_are_held_those_of_the_oldest_leases_are_named() -> None:
    table = make_table()
    for number in range(3):
        first = number * HELD_UP_MAX
        ask(table, "a", *range(first, first + HELD_UP_MAX - 1))
    ticket = impatient(table, *(number * HELD_UP_MAX for number in range(3)))
    table.expire(0.5)
    assert ticket.held_up == {*range(HELD_UP_MAX - 1), *range(HELD_UP_MAX, 2 * HELD_UP_MAX - 1)}


def test_a_commit_that_takes_long_is_waited_for() -> None:
    table = make_table()
    held = ask(table, "a", 1)
    table.begin_commit(held)
    ticket = impatient(table, 1)
    assert not table.expire(1.0).timed_out
    assert table.release(held, now_s=1.0) == [ticket]


def test_who_has_no_patience_at_all_does_not_make_the_timer_ring_all_the_time() -> None:
    table = make_table()
    held = ask(table, "a", 1)
    table.begin_commit(held)
    table.request("b", [1], now_s=0.0, wait_s=5.0, patience_s=0.0)
    assert not table.expire(0.5).timed_out
    assert (table.next_end_s() or 0.0) > 0.5

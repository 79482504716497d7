"""Who may consume what: the queue's decisions, without a cluster."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from rmi_msg.hazelcast.blocks import START, Place
from rmi_msg.hazelcast.turns import Mark, Turn, Turns, Watch, pack, unpack


def turn(token: int, first: int, end: int, by: str | None = "M1", lease_s: float = 10.0) -> Turn:
    return Turn(token, by, Place(0, first), Place(0, end), lease_s)


def test_a_claim_moves_the_head() -> None:
    turns = Turns().take(turn(1, 0, 5))
    assert turns.head == Place(0, 5)
    assert turns.has(1)
    assert turns.offered is None


def test_a_claim_that_lost_its_holder_is_offered_and_goes_to_the_next() -> None:
    turns = Turns().take(turn(1, 0, 5)).take(turn(2, 5, 9)).offer({1})
    offered = turns.offered
    assert offered is not None
    assert (offered.first, offered.end) == (START, Place(0, 5))
    taken = turns.take(turn(3, 0, 5, by="M2"))
    assert taken.head == Place(0, 9)
    assert not taken.has(1)
    assert taken.has(3)


def test_a_smaller_claim_leaves_the_rest_offered() -> None:
    turns = Turns().take(turn(1, 0, 5)).offer({1}).take(turn(2, 0, 3))
    assert turns.offered == Turn(1, None, Place(0, 3), Place(0, 5), 10.0)


def test_a_claim_can_be_cut_and_the_rest_is_offered() -> None:
    turns = Turns().take(turn(1, 0, 5)).cut(1, Place(0, 2), 7)
    assert turns.offered == Turn(7, None, Place(0, 2), Place(0, 5), 10.0)
    assert turns.drop(1).turns == (turns.offered,)


def test_a_claim_is_cut_once_and_only_while_it_is_held() -> None:
    cut = Turns().take(turn(1, 0, 9)).cut(1, Place(0, 2), 7)
    partly = cut.take(turn(3, 2, 4, by="M2"))  # its answer was lost, and others went on
    assert partly.cut(1, Place(0, 2), 7) == partly
    offered = Turns().take(turn(1, 0, 9)).offer({1}).take(turn(2, 0, 5, by="M2"))
    assert offered.cut(1, Place(0, 3), 7) == offered


def test_a_marked_claim_stays_its_holders_until_it_is_done() -> None:
    mark = Mark("2026-01-31T12:00:00.000000Z", 3)
    turns = Turns().take(turn(1, 0, 5)).take(turn(2, 5, 9)).marked(1, mark)
    found = turns.offer({1, 2}).find(1)
    assert found is not None
    assert (found.by, found.mark) == ("M1", mark)
    offered = turns.offer({1, 2}).offered
    assert offered is not None
    assert offered.token == 2
    assert not turns.drop(1).has(1)
    assert unpack(pack(turns)) == turns


def test_the_state_comes_back_as_it_was_stored() -> None:
    turns = Turns().take(turn(1, 0, 5)).offer({1})
    assert unpack(pack(turns)) == turns


def test_a_claim_runs_out_when_it_was_seen_for_as_long_as_its_lease() -> None:
    watch = Watch()
    turns = Turns().take(turn(1, 0, 5, lease_s=2.0))
    assert watch.run_out(turns, 100.0) == set()
    assert watch.run_out(turns, 101.9) == set()
    assert watch.run_out(turns, 102.0) == {1}


def test_time_begins_anew_for_a_claim_under_another_token() -> None:
    watch = Watch()
    first = Turns().take(turn(1, 0, 5, lease_s=2.0))
    watch.run_out(first, 100.0)
    second = first.offer({1})
    assert watch.run_out(second, 101.0) == set()
    third = second.take(turn(2, 0, 5, lease_s=2.0))
    assert watch.run_out(third, 102.5) == set()
    assert watch.run_out(third, 104.5) == {2}


@given(st.integers(0, 2**32))
def test_every_place_is_claimed_by_one_holder_at_a_time_and_none_is_left_out(seed: int) -> None:
    rng = random.Random(seed)
    turns, end, token, done = Turns(), 200, 0, set[int]()
    for _ in range(400):
        held = [one for one in turns.turns if one.by is not None]
        step = rng.random()
        if step < 0.5:
            offered = turns.offered
            first = (offered.first if offered else turns.head).offset
            last = offered.end.offset if offered else end
            if first < last:
                token += 1
                turns = turns.take(turn(token, first, min(last, first + rng.randrange(1, 9))))
        elif held and step < 0.8:
            one = rng.choice(held)
            done.update(range(one.first.offset, one.end.offset))
            turns = turns.drop(one.token)
        elif held:
            turns = turns.offer({rng.choice(held).token})
        ranges = [range(one.first.offset, one.end.offset) for one in turns.turns]
        claimed = [place for one in ranges for place in one]
        assert len(claimed) == len(set(claimed)), "two claims of one place"
        assert not done & set(claimed), "done, and claimed again"
        assert done | set(claimed) == set(range(turns.head.offset)), "a place is left out"

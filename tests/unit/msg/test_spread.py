"""Which logger messages go to, and what is a crowd."""

from random import Random

import pytest

from rmi_msg.spread import CALL_MESSAGES, CROWD_HALVED_S, CROWD_MESSAGES, Spread

NAMES = ["a", "b", "c"]


@pytest.fixture
def crowd() -> Spread:
    """Return a spread that a crowd has come to, and whose clock stands still."""
    spread = Spread(Random(7), lambda: 7.0)
    spread.places(CROWD_MESSAGES + 1, NAMES)
    return spread


def test_every_message_has_one_place_and_a_logger_of_its_own_choice() -> None:
    places = Spread(Random(7)).places(900, NAMES)
    assert sorted(place for some in places.values() for place in some) == list(range(900))
    assert all(250 < len(places[name]) < 350 for name in NAMES)
    assert places["a"] != list(range(len(places["a"])))  # not simply dealt out in blocks


@pytest.mark.parametrize(
    ("count", "loggers"), [(1, 1), (CALL_MESSAGES, 1), (CALL_MESSAGES + 1, 2), (900, 3)]
)
def test_in_a_crowd_a_call_goes_to_as_few_loggers_as_it_is_worth_picked_at_random(
    count: int, loggers: int, crowd: Spread
) -> None:
    picked = [crowd.places(count, NAMES) for _ in range(20)]
    assert {len(places) for places in picked} == {loggers}
    assert all(sum(map(len, places.values())) == count for places in picked)
    assert {name for places in picked for name in places} == set(NAMES)


def test_in_a_crowd_no_more_loggers_are_picked_than_there_are(crowd: Spread) -> None:
    assert crowd.places(1024, ["a"]) == {"a": list(range(1024))}


@pytest.mark.parametrize(("pause", "loggers"), [(1.9, 1), (2.1, 3)])
def test_a_crowd_is_over_when_few_of_its_messages_are_remembered(
    pause: float, loggers: int
) -> None:
    now_s = 7.0
    spread = Spread(Random(7), lambda: now_s)
    count = 4 * CROWD_MESSAGES
    assert len(spread.places(count, NAMES)) == 3  # nothing came before
    now_s += pause * CROWD_HALVED_S
    assert len(spread.places(count, NAMES)) == loggers

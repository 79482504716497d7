"""The balancer: fair choices, back-off, draining, and a view that survives a blind name server."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rmi_runtime.balance.balancer import Balancer, Endpoint, Policy
from rmi_runtime.registry.nametable import DRAINING, Entry
from tests.support import Clock


def uri(name: str, generation: int = 0) -> str:
    return f"PYRO:{name}@127.0.0.1:{2000 + generation}"


def listing(*names: str, draining: str = "") -> dict[str, Entry]:
    return {
        name: Entry(uri(name), frozenset({DRAINING} if name == draining else ())) for name in names
    }


def new(clock: Clock, policy: Policy = "random", seed: int = 1) -> Balancer:
    return Balancer(policy, clock=clock, rng=Random(seed))


def picks(balancer: Balancer, count: int = 300) -> Counter[str]:
    found = (balancer.pick() for _ in range(count))
    return Counter(endpoint.name for endpoint in found if endpoint)


def one(balancer: Balancer, name: str) -> Endpoint:
    return next(endpoint for endpoint in balancer.endpoints if endpoint.name == name)


def test_nobody_is_picked_when_nobody_is_known(clock: Clock) -> None:
    balancer = new(clock)
    assert balancer.pick() is None
    balancer.update({})
    assert balancer.pick() is None
    assert balancer.next_due() == math.inf


@pytest.mark.parametrize("policy", ["random", "less_busy"])
def test_choices_are_spread_evenly(clock: Clock, policy: Policy) -> None:
    balancer = new(clock, policy)
    balancer.update(listing("a", "b", "c"))
    counts = picks(balancer, 3000)
    assert set(counts) == {"a", "b", "c"}
    assert all(800 < count < 1200 for count in counts.values())


def test_ten_choices_reach_more_than_one_endpoint_whatever_the_seed(clock: Clock) -> None:
    for seed in range(200):
        balancer = new(clock, "random", seed)
        balancer.update(listing("a", "b", "c"))
        assert len(picks(balancer, 10)) > 1


def test_less_busy_never_picks_the_busier_of_two(clock: Clock) -> None:
    balancer = new(clock, "less_busy")
    balancer.update(listing("a", "b"))
    one(balancer, "a").inflight = 3
    one(balancer, "b").inflight = 2
    assert set(picks(balancer)) == {"b"}


def test_less_busy_keeps_the_load_even(clock: Clock) -> None:
    balancer = new(clock, "less_busy")
    balancer.update(listing("a", "b", "c", "d"))
    for _ in range(400):
        endpoint = balancer.pick()
        assert endpoint is not None
        endpoint.inflight += 1
    loads = [endpoint.inflight for endpoint in balancer.endpoints]
    assert max(loads) - min(loads) <= 6


def test_random_pays_no_heed_to_load(clock: Clock) -> None:
    balancer = new(clock, "random")
    balancer.update(listing("a", "b"))
    one(balancer, "a").inflight = 1000
    assert picks(balancer)["a"] > 100


def busy(balancer: Balancer, name: str, clock: Clock) -> Endpoint:
    endpoint = one(balancer, name)
    endpoint.inflight, endpoint.busy_since = 1, clock.now_s
    return endpoint


def test_an_endpoint_that_owes_answers_for_too_long_is_told_once(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a", "b"))
    a = busy(balancer, "a", clock)
    clock.now_s += 0.9
    assert balancer.silent() == []
    a.answered_at = clock.now_s  # one of its calls
    clock.now_s += 0.9
    assert balancer.silent() == []
    clock.now_s += 0.1
    assert balancer.silent() == [a]
    assert balancer.silent() == []  # it is being listened to
    balancer.listened(a, True)
    assert balancer.silent() == []
    a.uncut = 1  # it must not be made twice, but new ones come
    clock.now_s += 1.0
    assert balancer.silent() == [a]


def test_an_endpoint_found_silent_again_is_given_twice_the_time(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a", "b"))
    a = busy(balancer, "a", clock)
    for patience_s in (1.0, 2.0, 4.0):
        a.inflight, a.busy_since = 1, clock.now_s
        clock.now_s += patience_s - 0.1
        assert balancer.silent() == []
        clock.now_s += 0.1
        assert balancer.silent() == [a]
        balancer.listened(a, False)
        balancer.failed(a)
        a.inflight = 0  # its call was cut off
        assert balancer.silent() == []
        clock.now_s = balancer.next_due()
        balancer.probed(balancer.due()[0], True)


@pytest.mark.parametrize("leaving", [False, True])
def test_one_that_gets_no_calls_any_more_is_listened_to_for_those_it_has(
    clock: Clock, leaving: bool
) -> None:
    balancer = new(clock)
    balancer.update(listing("a", "b"))
    a = busy(balancer, "a", clock)
    if leaving:
        balancer.update(listing("a", "b", draining="a"))
    else:
        balancer.failed(a)
    clock.now_s += 2.0
    a.uncut = 1  # it must not be made twice, so there is nothing that could be done for it
    assert balancer.silent() == []
    a.uncut = 0
    assert balancer.silent() == [a]


def test_nobody_is_silent_who_has_nothing_to_answer_or_nobody_beside(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a"))
    busy(balancer, "a", clock)
    clock.now_s += 5.0
    assert balancer.silent() == []
    balancer.update(listing("a", draining="a"))
    assert balancer.silent() == []
    balancer.update(listing("a", "b"))
    assert balancer.silent() == [one(balancer, "a")]


def test_those_tried_are_not_picked(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a", "b"))
    a, b = one(balancer, "a"), one(balancer, "b")
    assert balancer.pick({a}) is b
    assert balancer.pick({a, b}) is None


def test_a_failing_endpoint_is_set_aside_and_back_only_after_a_probe(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a", "b"))
    a = one(balancer, "a")
    balancer.failed(a)
    assert set(picks(balancer)) == {"b"}
    assert balancer.due() == []
    assert balancer.next_due() == pytest.approx(clock.now_s + 0.1)
    clock.now_s += 0.1
    assert set(picks(balancer)) == {"b"}
    assert balancer.due() == [a]
    assert balancer.due() == []  # it is being probed
    balancer.probed(a, True)
    assert set(picks(balancer)) == {"a", "b"}


def test_pauses_double_up_to_a_bound_and_start_anew_after_a_success(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a"))
    a = one(balancer, "a")
    pauses = []
    balancer.failed(a)
    for _ in range(7):
        pauses.append(round(balancer.next_due() - clock.now_s, 3))
        clock.now_s = balancer.next_due()
        assert balancer.due() == [a]
        balancer.probed(a, False)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    clock.now_s = balancer.next_due()
    balancer.probed(balancer.due()[0], True)
    balancer.succeeded(a)
    balancer.failed(a)
    assert balancer.next_due() - clock.now_s == pytest.approx(0.1)


def test_answering_probes_but_no_calls_does_not_shorten_the_pauses(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a"))
    a = one(balancer, "a")
    pauses = []
    for _ in range(4):
        balancer.failed(a, reachable=True)
        pauses.append(round(balancer.next_due() - clock.now_s, 3))
        clock.now_s = balancer.next_due()
        balancer.probed(balancer.due()[0], True)
        assert balancer.pick() is a
    assert pauses == [0.1, 0.2, 0.4, 0.8]


def test_calls_that_fail_together_count_as_one_failure(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a"))
    for _ in range(100):
        balancer.failed(one(balancer, "a"))
    assert balancer.next_due() - clock.now_s == pytest.approx(0.1)


def test_a_call_that_succeeds_late_brings_its_endpoint_back(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a"))
    a = one(balancer, "a")
    balancer.failed(a)
    balancer.succeeded(a)
    assert balancer.pick() is a
    assert balancer.next_due() == math.inf


def test_draining_endpoints_get_nothing_new(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a", "b"))
    balancer.update(listing("a", "b", draining="a"))
    assert set(picks(balancer)) == {"b"}
    balancer.update(listing("a", "b"))
    assert set(picks(balancer)) == {"a", "b"}


def test_an_empty_name_server_does_not_wipe_the_view(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a", "b"))
    for _ in range(100):
        clock.now_s += 10
        assert balancer.update({}) == []
    assert set(picks(balancer)) == {"a", "b"}


def test_one_that_is_not_listed_gets_calls_only_if_there_is_no_other(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a", "b"))
    balancer.update(listing("b"))
    assert set(picks(balancer)) == {"b"}
    balancer.failed(one(balancer, "b"))
    assert set(picks(balancer)) == {"a"}


def test_one_that_is_not_listed_and_cannot_be_reached_is_forgotten(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a"))
    a = one(balancer, "a")
    balancer.update({})
    assert not balancer.failed(a, reachable=True)
    assert balancer.endpoints == [a]
    balancer.succeeded(a)
    assert balancer.failed(a)
    assert a.gone
    assert balancer.endpoints == []
    assert balancer.pick() is None


def test_a_probe_that_fails_forgets_one_that_is_not_listed(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a"))
    a = one(balancer, "a")
    balancer.failed(a)
    balancer.update({})
    clock.now_s += 1
    assert balancer.probed(balancer.due()[0], False)
    assert a.gone


def test_one_that_stays_unlisted_is_forgotten_after_a_while_if_others_are_listed(
    clock: Clock,
) -> None:
    balancer = new(clock)
    balancer.update(listing("a", "b"))
    a = one(balancer, "a")
    balancer.update(listing("b"))
    clock.now_s += 29
    assert balancer.update(listing("b")) == []
    clock.now_s += 1
    assert balancer.update(listing("b")) == [a]
    assert a.gone


def test_a_service_started_anew_takes_the_place_of_the_old_one_at_once(clock: Clock) -> None:
    balancer = new(clock)
    balancer.update(listing("a"))
    old = one(balancer, "a")
    balancer.failed(old)
    balancer.update({})  # for a moment nobody is listed
    assert balancer.update({"a": Entry(uri("a", 1))}) == [old]
    found = balancer.pick()
    assert found is not None
    assert found.uri == uri("a", 1)
    balancer.failed(old)  # calls of the old one end late
    balancer.succeeded(old)
    assert [e.uri for e in balancer.endpoints] == [uri("a", 1)]


def test_an_unknown_policy_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="less_busy"):
        Balancer("fastest", clock=clock, rng=Random(1))  # type: ignore[arg-type]


NAMES = ["a", "b", "c", "d"]


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens, a usable endpoint is found, and only usable ones are picked."""

    @initialize(policy=st.sampled_from(["random", "less_busy"]), seed=st.integers(0, 9))
    def begin(self, policy: Policy, seed: int) -> None:
        self.clock = Clock()
        self.balancer = new(self.clock, policy, seed)
        self.known: list[Endpoint] = []  # in order of appearance, so that histories repeat
        self.probes: list[Endpoint] = []

    @rule(
        entries=st.dictionaries(
            st.sampled_from(NAMES), st.tuples(st.integers(0, 2), st.booleans()), max_size=4
        )
    )
    def look(self, entries: dict[str, tuple[int, bool]]) -> None:
        found = {
            name: Entry(uri(name, generation), frozenset({DRAINING} if draining else ()))
            for name, (generation, draining) in entries.items()
        }
        for endpoint in self.balancer.update(found):
            assert endpoint.gone
        for name, entry in found.items():
            assert one(self.balancer, name).uri == entry.uri

    @rule(data=st.data(), reachable=st.booleans())
    def fail(self, data: st.DataObject, reachable: bool) -> None:
        if self.known:
            self.balancer.failed(data.draw(st.sampled_from(self.known)), reachable=reachable)

    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        if self.known:
            self.balancer.succeeded(data.draw(st.sampled_from(self.known)))

    @rule(wait_s=st.sampled_from([0.05, 0.5, 3, 40]))
    def wait(self, wait_s: float) -> None:
        self.clock.now_s += wait_s

    @rule()
    def probe(self) -> None:
        due = self.balancer.due()
        assert not set(due) & set(self.probes)
        self.probes += due

    @rule(answered=st.booleans())
    def end_probe(self, answered: bool) -> None:
        if self.probes:
            self.balancer.probed(self.probes.pop(), answered)

    @invariant()
    def only_usable_ones_are_picked(self) -> None:
        self.known += [e for e in self.balancer.endpoints if e not in self.known]
        usable = [e for e in self.balancer.endpoints if not (e.aside or e.draining)]
        picked = self.balancer.pick()
        assert (picked is None) == (not usable)
        if picked:
            assert picked in usable
            assert picked.listed or not any(e.listed for e in usable)
            assert not picked.gone

    @invariant()
    def nobody_is_set_aside_for_ever(self) -> None:
        for endpoint in self.balancer.endpoints:
            if endpoint.aside and not endpoint.probing:
                assert self.balancer.next_due() <= endpoint.aside_until <= self.clock.now_s + 2


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)

"""What befalls packets on their way to a host: late, lost, cut off, and how many there may be."""

from __future__ import annotations

from random import Random

import pytest

from rmi_torture.packets import CUT, DELAY, DELAY_S_MAX, DELAY_S_MIN, LOSS, Way

PACKETS = [b"%d" % number for number in range(1000)]


def way(*faults: str, seed: int = 7) -> Way:
    made = Way(Random(seed))
    made.suffer(faults)
    return made


def arrivals(of: Way, until_s: float) -> list[tuple[float, bytes]]:
    """What arrives by *until_s* and when, as the relay's process asks for it."""
    found = []
    while (at_s := of.next_s()) is not None and at_s <= until_s:
        found += [(at_s, packet) for packet in of.due(at_s)]
    return found


def test_without_faults_all_packets_arrive_at_once_and_in_order() -> None:
    free = way()
    for packet in PACKETS:
        free.take(packet, 5.0)
    assert free.next_s() == 5.0
    assert free.due(5.0) == PACKETS
    assert (free.next_s(), free.due(9.0)) == (None, [])


def test_a_late_packet_arrives_in_its_time_and_neither_earlier_nor_twice() -> None:
    slow = way(DELAY)
    sent_s = {packet: number * 0.001 for number, packet in enumerate(PACKETS)}
    for packet, at_s in sent_s.items():
        slow.take(packet, at_s)
    assert slow.due(DELAY_S_MIN - 0.001) == []
    found = arrivals(slow, 10.0)
    late_s = [at_s - sent_s[packet] for at_s, packet in found]
    assert DELAY_S_MIN <= min(late_s) < DELAY_S_MIN + 0.01
    assert DELAY_S_MAX - 0.01 < max(late_s) <= DELAY_S_MAX
    assert sorted(packet for _, packet in found) == sorted(PACKETS)
    assert [packet for _, packet in found] != PACKETS, "none has overtaken another one"
    assert [at_s for at_s, _ in found] == sorted(at_s for at_s, _ in found)


def test_a_fifth_is_lost_and_the_rest_arrives_at_once_and_in_order() -> None:
    lossy = way(LOSS)
    for packet in PACKETS:
        lossy.take(packet, 1.0)
    arrived = lossy.due(1.0)
    assert 720 < len(arrived) < 880
    assert arrived == sorted(arrived, key=int)


def test_packets_are_both_late_and_lost_if_both_faults_are_on() -> None:
    bad = way(DELAY, LOSS)
    for packet in PACKETS:
        bad.take(packet, 0.0)
    assert bad.due(DELAY_S_MIN - 0.001) == []
    assert 720 < len(bad.due(DELAY_S_MAX)) < 880


def test_the_same_seed_delays_and_loses_the_same_packets() -> None:
    def fate(seed: int) -> list[tuple[float, bytes]]:
        bad = way(DELAY, LOSS, seed=seed)
        for packet in PACKETS:
            bad.take(packet, 0.0)
        return arrivals(bad, 1.0)

    assert fate(1) == fate(1) != fate(2)


def test_nothing_arrives_during_a_cut_not_even_what_was_sent_before() -> None:
    bad = way(DELAY)
    bad.take(b"before", 0.0)
    bad.suffer((CUT,))
    bad.take(b"during", 0.0)
    assert bad.due(DELAY_S_MAX) == []
    bad.suffer(())
    bad.take(b"after", 1.0)
    assert bad.due(1.0) == [b"after"]


def test_what_is_sent_during_a_cut_is_lost_even_if_it_would_arrive_afterwards() -> None:
    bad = way(CUT, DELAY)
    bad.take(b"during", 0.0)
    bad.suffer((DELAY,))
    assert bad.due(DELAY_S_MAX) == []


def test_what_is_under_way_is_late_also_after_the_end_of_the_delay() -> None:
    bad = way(DELAY)
    bad.take(b"late", 0.0)
    bad.suffer(())
    bad.take(b"early", 0.0)
    assert bad.due(0.0) == [b"early"]
    assert bad.due(DELAY_S_MAX) == [b"late"]


@pytest.mark.parametrize("under_way_max", [1, 10])
def test_what_comes_when_there_is_no_room_is_lost(under_way_max: int) -> None:
    slow = Way(Random(1), under_way_max)
    slow.suffer((DELAY,))
    for packet in PACKETS:
        slow.take(packet, 0.0)
    assert sorted(slow.due(1.0)) == PACKETS[:under_way_max]
    slow.take(b"room again", 1.0)
    assert slow.due(2.0) == [b"room again"]

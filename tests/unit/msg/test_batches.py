"""How messages are cut and packed into calls, and results are handed back."""

from __future__ import annotations

from itertools import chain, pairwise

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmi_msg.batches import (
    BATCH_CHARS_MAX,
    USUAL,
    CallLimits,
    Group,
    Pair,
    packed,
    parts,
    put_groups,
)
from rmi_msg.checks import BATCH_MESSAGES_MAX, TEXT_SIZE_BYTES_MAX
from rmi_msg.stores import Word
from rmi_runtime import Settings, errors

SIZES = st.lists(st.integers(1, TEXT_SIZE_BYTES_MAX), max_size=60)


def group(sizes: list[int], name: str = "") -> list[Pair]:
    return [(f"{name}{place}", "x" * size) for place, size in enumerate(sizes)]


def fits(messages: list[Pair]) -> bool:
    return len(messages) == 1 or (
        len(messages) <= BATCH_MESSAGES_MAX
        and sum(len(text) for _, text in messages) <= BATCH_CHARS_MAX
    )


@given(SIZES)
def test_parts_keep_the_order_and_the_bounds(sizes: list[int]) -> None:
    messages = group(sizes)
    found = list(parts(messages))
    assert [pair for part in found for pair in part] == messages
    assert all(part and fits(list(part)) for part in found)


def test_parts_have_at_most_1024_messages_and_no_needless_cuts() -> None:
    small = group([1] * 2500)
    assert [len(part) for part in parts(small)] == [1024, 1024, 452]
    assert list(parts(small[:1024])) == [small[:1024]]
    assert list(parts([])) == []


@given(st.lists(st.lists(st.integers(1, TEXT_SIZE_BYTES_MAX), min_size=1, max_size=8), max_size=9))
def test_packed_groups_stay_whole_in_order_and_within_bounds(sizes: list[list[int]]) -> None:
    groups: list[Group] = [group(s, f"{n}.") for n, s in enumerate(sizes)]
    runs = list(packed(groups))
    assert [g for run in runs for g in run] == groups
    assert all(fits([pair for g in run for pair in g]) for run in runs)
    for run, following in pairwise(runs):
        assert not fits([pair for g in [*run, following[0]] for pair in g])  # no needless cut


def test_large_groups_travel_together_as_far_as_one_call_takes_their_characters() -> None:
    half = BATCH_CHARS_MAX // 2 // TEXT_SIZE_BYTES_MAX
    groups: list[Group] = [group([TEXT_SIZE_BYTES_MAX] * half, str(n)) for n in range(5)]
    assert [len(run) for run in packed(groups)] == [2, 2, 1]


@given(
    st.integers(64 * 1024, 64 * 1024 * 1024),
    st.lists(st.integers(1, TEXT_SIZE_BYTES_MAX // 4), min_size=2, max_size=40),
)
def test_calls_fit_a_message_of_whatever_size_is_taken(size_bytes: int, sizes: list[int]) -> None:
    limits = CallLimits.within(size_bytes)
    messages = [(f"{place:😀>200}", "😀" * size) for place, size in enumerate(sizes)]
    found = list(parts(messages, limits))
    assert [pair for part in found for pair in part] == messages
    calls = [list(chain(*run)) for run in packed(found, limits)]
    assert all(len(call) == 1 or len(msgpack.packb(call)) < size_bytes for call in calls)
    assert limits != USUAL or size_bytes > 32 * 1024 * 1024


def test_the_usual_calls_fit_a_message_of_the_usual_size() -> None:
    assert CallLimits.within(Settings().message_size_bytes_max) == USUAL
    assert CallLimits.within(64 * 1024).messages > 30


async def test_words_go_back_to_their_groups() -> None:
    async def put(messages: list[Pair]) -> list[Word]:
        return ["new" if id.startswith("a") else "same" for id, _ in messages]

    groups: list[Group] = [group([1, 1], "a"), group([1], "b"), group([1], "a")]
    assert await put_groups(put, groups) == [["new", "new"], ["same"], ["new"]]


async def test_a_failed_call_fails_its_own_groups_only() -> None:
    calls: list[int] = []

    async def put(messages: list[Pair]) -> list[Word]:
        calls.append(len(messages))
        if len(calls) == 2:
            raise errors.Unavailable("full")
        return ["new"] * len(messages)

    groups: list[Group] = [group([1] * 600, str(n)) for n in range(3)]
    results = await put_groups(put, groups)
    assert calls == [600, 600, 600]
    assert results[0] == results[2] == ["new"] * 600
    assert isinstance(results[1], errors.Unavailable)


async def test_cancelling_is_not_an_answer() -> None:
    async def put(messages: list[Pair]) -> list[Word]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await put_groups(put, [group([1])])

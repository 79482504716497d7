"""What belongs to ids in the order is there: a member that says otherwise is asked again."""

from __future__ import annotations

import asyncio
import logging

import pytest

from rmi_msg.hazelcast.blocks import Place
from rmi_msg.hazelcast.fetching import Fetching
from rmi_msg.hazelcast.order import Listed

IDS = [f"id{n}" for n in range(100)]
LISTED = [Listed(id, Place(0, n)) for n, id in enumerate(IDS, 1)]


class LeftBehind:
    """Answers as a member that the others went on without, until it gives way.

    Args:
        missing: what it does not know.
        looks: how often it is asked for these in vain.
    """

    def __init__(self, missing: set[str], looks: int) -> None:
        self._missing = missing
        self._looks = looks
        self.asked: list[list[str]] = []

    async def fetch(self, ids: list[str]) -> dict[str, str]:
        self.asked.append(ids)
        known = [id for id in ids if len(self.asked) > self._looks or id not in self._missing]
        return {id: f"text of {id}" for id in known}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.missing.PAUSE_S", 0)


async def read(fetching: Fetching, member: LeftBehind) -> list[str]:
    return [one.id async for one, _ in fetching.fetched(LISTED, member.fetch)]


async def test_what_a_member_left_behind_does_not_know_is_asked_for_until_it_gives_way() -> None:
    member = LeftBehind({"id3", "id7"}, looks=4)
    assert await read(Fetching(), member) == IDS
    assert member.asked[1] == ["id3", "id7"]


async def test_what_is_lost_is_reported_once_left_out_and_not_waited_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", -1.0)
    fetching, member = Fetching(), LeftBehind({"id3", "id99"}, looks=1_000)
    kept = [id for id in IDS if id not in {"id3", "id99"}]
    with caplog.at_level(logging.ERROR):
        assert await read(fetching, member) == kept
    assert [record.args for record in caplog.records] == [(1, "id3"), (1, "id99")]
    caplog.clear()
    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", 3600.0)
    assert await read(fetching, member) == kept
    assert not caplog.records


async def test_calls_that_are_cut_short_one_after_the_other_find_out_what_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", 0.2)
    fetching, member = Fetching(), LeftBehind({"id3"}, looks=1_000_000)

    async def cut_short() -> list[str] | None:
        try:
            async with asyncio.timeout(0.02):  # less than it takes
                return await read(fetching, member)
        except TimeoutError:
            return None

    assert await cut_short() is None
    async with asyncio.timeout(30):
        while (there := await cut_short()) is None:
            pass
    assert there == [id for id in IDS if id != "id3"]


async def test_what_was_found_by_a_call_that_is_cut_short_is_not_held_against_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[set[str] | TimeoutError] = [
        {"id3", "id7"},
        {"id7"},
        TimeoutError(),
        {"id3"},
    ]  # what is not there, each time

    async def fetch(ids: list[str]) -> dict[str, str]:
        absent = answers.pop(0) if answers else set()
        if isinstance(absent, TimeoutError):
            raise absent
        return {id: f"text of {id}" for id in ids if id not in absent}

    fetching = Fetching()
    with pytest.raises(TimeoutError):
        [one async for one in fetching.fetched(LISTED, fetch)]
    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", 0.0)  # by now it is a long time ago
    assert [one.id async for one, _ in fetching.fetched(LISTED, fetch)] == IDS


async def test_a_page_with_many_lost_entries_waits_for_the_first_of_them_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [f"id{n}" for n in range(1_000)]
    lost = {id for id in ids if id.endswith("0")}
    waited_for: set[str] = set()

    async def fetch(asked: list[str]) -> dict[str, str]:
        if lost.issuperset(asked):
            waited_for.update(asked)
        return {id: f"text of {id}" for id in asked if id not in lost}

    monkeypatch.setattr("rmi_msg.hazelcast.missing.ABSENT_S", 0.05)
    listed = [Listed(id, Place(0, n)) for n, id in enumerate(ids, 1)]
    there = [one.id async for one, _ in Fetching().fetched(listed, fetch)]
    assert there == [id for id in ids if id not in lost]
    assert waited_for == {"id0", "id10", "id20", "id30", "id40", "id50", "id60"}


async def test_many_who_read_long_pages_fetch_little_at_the_same_time() -> None:
    listed = [Listed(f"id{n}", Place(0, n)) for n in range(1, 1001)]
    fetching = Fetching()
    now = most = 0

    async def fetch(ids: list[str]) -> dict[str, str]:
        nonlocal now, most
        now += len(ids)
        most = max(most, now)
        await asyncio.sleep(0)
        now -= len(ids)
        return dict.fromkeys(ids, "text")

    async def read_all() -> int:
        return len([one async for one, _ in fetching.fetched(listed, fetch)])

    assert await asyncio.gather(*(read_all() for _ in range(20))) == [1000] * 20
    assert most <= 512, "each may have 256 KiB"

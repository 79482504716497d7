"""What a cluster is doing, in words."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from rmi_msg.cluster_state import common_state, judge
from rmi_msg.hazelcast import watch as watch_module
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.map_stats import MapRow, MapStatistics, Safety
from rmi_msg.hazelcast.room import Room
from rmi_msg.hazelcast.watch import SETTLE_S, ClusterWatch
from rmi_runtime.errors import StoreFull

THREE = ("h:1", "h:2", "h:3")


@pytest.mark.parametrize(
    ("present", "losses", "options", "state", "safe", "says"),
    [
        (THREE, 2, {}, "safe", True, "3 of 3 members, safe for the next loss: any 2 may be lost"),
        (THREE, None, {}, "migrating", False, "3 of 3 members, not safe for the next loss yet"),
        (THREE, 2, {"silent": True}, "silent", False, "a member does not answer"),
        (THREE[:1], 0, {}, "joining", False, "1 of 3 members (not there: h:2, h:3), joining"),
        (THREE[:2], 1, {}, "joining", True, "joining, safe for the next loss"),
        (THREE[:2], 1, {"was_whole": True}, "lost", True, "(not there: h:3), lost a member, safe"),
        (THREE[:2], None, {"was_whole": True}, "migrating", False, "data is being moved"),
        (THREE[:1], 0, {"was_whole": True}, "lost", False, "nobody has a backup"),
        ((), None, {"was_whole": True}, "unreachable", False, "none of 3 members"),
    ],
)
def test_a_state_has_a_word_a_sentence_and_says_whether_the_next_loss_is_survived(
    present: tuple[str, ...],
    losses: int | None,
    options: dict[str, bool],
    state: str,
    safe: bool,
    says: str,
) -> None:
    found = judge(present, THREE, losses, **options)
    assert (found.state, found.safe) == (state, safe)
    assert says in found.says
    assert (found.members, found.expected) == (len(present), 3)


def test_one_member_that_is_all_there_should_be_is_alone_and_not_safe() -> None:
    found = judge(["h:1"], ["h:1"], 0)
    assert (found.state, found.safe) == ("alone", False)
    assert found.says == "1 of 1 members, not safe for the next loss: nobody has a backup"


def test_members_that_call_themselves_otherwise_are_counted_not_named() -> None:
    found = judge(["10.0.0.1:1"], ["one:1", "two:1"], 0)
    assert (found.members, found.expected, found.absent) == (1, 2, ())
    more = judge(["h:1", "h:2"], ["h:1"], 1)
    assert (more.members, more.expected, more.state) == (2, 2, "safe")


def row(present: tuple[str, ...], losses: int | None) -> dict[str, Any]:
    return {"store": msgspec.to_builtins(judge(present, THREE, losses, was_whole=True))}


@pytest.mark.parametrize(
    ("rows", "members", "losses"),
    [
        ([row(THREE, 2), row(THREE, 2)], 3, 2),
        ([row(THREE, 2), row(THREE, None)], 3, None),  # the worst of those that agree
        ([row(THREE, 2), row((), None)], 3, 2),  # one that has no connection sees nothing
        ([row(THREE[:1], 0), row(THREE[1:], 1), row(THREE[1:], 1)], 2, 1),  # what most see
        ([row(THREE, 2), row(THREE[:2], 1)], 2, 1),  # of two, the one that sees fewer
        ([row(THREE, None), row(THREE[:2], 1)], 2, 1),
        ([row((), None), {"store": None}, {"name": "x"}], 0, None),
    ],
)
def test_many_states_become_one(
    rows: list[dict[str, Any]], members: int, losses: int | None
) -> None:
    found = common_state(rows)
    assert found is not None
    assert (found["members"], found["losses"]) == (members, losses)


def test_services_without_a_cluster_tell_of_none() -> None:
    assert common_state([{"name": "bank.data"}, {"store": None}]) is None


def figures(members: int, losses: int, missing: int = 0, entries: int = 0) -> MapStatistics:
    rows = tuple(MapRow(f"h:{n}") for n in range(1, members + 1))
    safety = Safety(members, losses, False, missing)
    return MapStatistics("messages", rows, safety, 0.25, 1000, entries)


class Seen:
    """A watch, and a clock to go with it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.room = Room()
        self.watch = ClusterWatch(THREE, lambda: self.now_s, self.room)

    @property
    def state(self) -> tuple[str, int, int | None]:
        state = self.watch.state()
        return state.state, state.members, state.losses

    def look(self, found: MapStatistics, wait_s: float = SETTLE_S) -> None:
        self.now_s += wait_s
        self.watch.on_statistics(found, self.now_s)


def test_the_watch_follows_the_cluster_from_joining_to_a_loss_and_back() -> None:
    seen = Seen()
    assert seen.state == ("unreachable", 0, None)
    seen.watch.on_members(THREE[:1])
    seen.look(figures(1, 0))
    assert seen.state == ("joining", 1, 0)
    seen.watch.on_members(THREE)
    assert seen.state == ("migrating", 3, None)
    seen.look(figures(3, 0, missing=7))
    assert seen.state == ("migrating", 3, None)
    seen.look(figures(3, 2))
    assert seen.state == ("safe", 3, 2)
    with pytest.raises(StoreFull, match="25% of a Hazelcast member's heap"):
        seen.room.take(1000)
    seen.watch.on_members(THREE[:2])
    assert seen.state == ("migrating", 2, None)
    seen.look(figures(2, 1))
    assert seen.state == ("lost", 2, 1)
    seen.watch.on_silence()
    assert seen.state == ("silent", 2, None)
    seen.watch.on_members(())
    assert seen.state == ("unreachable", 0, None)


async def test_the_watch_goes_on_after_figures_that_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    seen.watch.on_members(THREE)
    looks = [figures(3, 2), ValueError("odd figures")]
    looked = asyncio.Event()

    async def gather(client: object, name: str, *, fresh_s: float) -> MapStatistics:
        seen.now_s += SETTLE_S
        if not looks:
            await asyncio.Event().wait()  # that is all there is to see
        if isinstance(found := looks.pop(), Exception):
            raise found
        looked.set()
        return found

    async def client() -> object:
        return None

    monkeypatch.setattr(watch_module, "gather_map_statistics", gather)
    monkeypatch.setattr(watch_module, "LOOK_S", 0.0)
    async with seen.watch.watching(cast(Link, SimpleNamespace(client=client))):
        async with asyncio.timeout(10):
            await looked.wait()
    assert seen.state == ("safe", 3, 2)
    assert "odd figures" in caplog.text


def test_figures_from_before_a_loss_do_not_make_it_safe() -> None:
    seen = Seen()
    seen.watch.on_members(THREE)
    seen.look(figures(3, 2))
    seen.watch.on_members(THREE[:2])
    seen.look(figures(2, 1), wait_s=1.0)  # collected before, and looking well
    assert seen.state == ("migrating", 2, None)
    seen.look(figures(3, 2))  # of three, while there are two
    assert seen.state == ("migrating", 2, None)


def test_a_safe_cluster_stays_so_while_messages_come() -> None:
    seen = Seen()
    seen.watch.on_members(THREE)
    seen.look(figures(3, 2, entries=1000))
    for second in range(1, 9):  # the owners counted a little later than those with the backups
        seen.look(figures(3, 0, missing=600, entries=1000 + 300 * second), wait_s=1.0)
        assert seen.state == ("safe", 3, 2)
    for _ in range(3):  # nothing comes any more, and they are missing all the same
        seen.look(figures(3, 0, missing=600, entries=3400), wait_s=1.0)
    assert seen.state == ("migrating", 3, None)


def test_backups_that_are_missing_while_messages_come_count_until_all_were_seen() -> None:
    seen = Seen()
    seen.watch.on_members(THREE)
    seen.look(figures(3, 2, entries=1000))
    seen.watch.on_members(THREE[:2])
    seen.look(figures(2, 0, missing=300, entries=1300))
    seen.look(figures(2, 0, missing=300, entries=1600), wait_s=1.0)
    assert seen.state == ("migrating", 2, None)
    seen.look(figures(2, 1, entries=1900), wait_s=1.0)
    seen.watch.on_silence()
    seen.look(figures(2, 0, missing=300, entries=2200), wait_s=1.0)
    assert seen.state == ("migrating", 2, None)


def test_the_log_tells_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = Seen()
    seen.watch.on_members(THREE)
    for _ in range(3):
        seen.look(figures(3, 2))
    seen.watch.on_members(THREE[:2])
    for _ in range(3):
        seen.look(figures(2, 1))
    seen.watch.on_members(())
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [text for _, text in told[:3]] == [f"the cluster has member {m}: 3 of 3" for m in THREE]
    assert [(level, text.partition(",")[0]) for level, text in told[3:]] == [
        ("INFO", "Hazelcast: 3 of 3 members"),
        ("INFO", "Hazelcast: 3 of 3 members"),
        ("WARNING", "the cluster has lost member h:3: 2 of 3 are left"),
        ("WARNING", "Hazelcast: 2 of 3 members (not there: h:3)"),
        ("INFO", "Hazelcast: 2 of 3 members (not there: h:3)"),
        ("WARNING", "Hazelcast: none of 3 members can be reached; nothing is accepted"),
    ]

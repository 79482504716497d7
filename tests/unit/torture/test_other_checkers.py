"""The checkers of messages, queue and locks, and the history file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rmi_torture.checkers import (
    Ledger,
    Line,
    Verdict,
    all_valid,
    check_locks,
    check_messages,
    check_queue,
    check_raw_commits,
)
from rmi_torture.history import Operation, Recorder, operations, read_history


def post(number: int, **more: Any) -> Operation:
    text = f"text {number}"
    asked = {"text": text, "key": f"key {number}"}
    return Operation(
        number, 0, "post", asked, 10 * number, 10 * number + 5, "ok", {"id": f"id {number}"}, **more
    )


POSTS = [post(n) for n in range(5)]
KEPT = [(f"id {n}", f"text {n}") for n in range(5)]


def test_messages_kept_once_are_valid() -> None:
    verdict = check_messages(POSTS, KEPT)
    assert verdict.valid
    assert verdict.checked == 5


@pytest.mark.parametrize(
    ("kept", "kind"),
    [
        (KEPT[:-1], "lost"),
        ([*KEPT, KEPT[0]], "duplicated"),
        ([*KEPT, ("id 9", "text 1")], "duplicated"),
        ([*KEPT[:-1], ("id 4", "another text")], "altered"),
        ([*KEPT, ("id 9", "who wrote this?")], "unexpected"),
    ],
)
def test_each_wrong_set_of_messages_is_caught(kept: list[tuple[str, str]], kind: str) -> None:
    assert check_messages(POSTS, kept).counts[kind] >= 1


def test_a_post_of_unknown_end_may_be_there_or_not() -> None:
    unknown = Operation(9, 1, "post", {"text": "maybe"}, 0)
    assert check_messages([*POSTS, unknown], KEPT).valid
    assert check_messages([*POSTS, unknown], [*KEPT, ("id 9", "maybe")]).valid


def test_a_read_that_lacks_what_was_acknowledged_before_it_is_caught() -> None:
    late = Operation(9, 1, "read", {}, 100, 110, "ok", {"ids": [f"id {n}" for n in range(4)]})
    early = Operation(8, 1, "read", {}, 42, 110, "ok", {"ids": [f"id {n}" for n in range(4)]})
    assert check_messages([*POSTS, late], KEPT).counts["stale"] == 1
    assert check_messages([*POSTS, early], KEPT).valid


def read(*ids: str) -> Operation:
    return Operation(9, 1, "read", {}, 42, 110, "ok", {"ids": list(ids)})


def test_reads_in_the_order_of_the_last_one_are_valid() -> None:
    reads = [read(), read("id 0", "id 1", "id 2", "id 3", "id 4"), read("id 0", "id 9", "id 3")]
    for one in reads:
        verdict = check_messages([*POSTS[:1], one], [*KEPT])
        assert not verdict.counts["disordered"]
        assert not verdict.counts["duplicated"]


def test_a_read_in_another_order_than_the_last_one_is_caught() -> None:
    verdict = check_messages([*POSTS, read("id 0", "id 1", "id 3", "id 2", "id 4")], KEPT)
    assert verdict.counts["disordered"] == 1
    assert not verdict.counts["duplicated"]


def test_a_read_that_has_a_message_twice_is_caught() -> None:
    verdict = check_messages([*POSTS, read("id 0", "id 1", "id 1", "id 2")], KEPT)
    assert verdict.counts["duplicated"] == 1


UNKNOWN = Operation(7, 2, "post", {"text": "maybe"}, 0)
ALL_IDS = [f"id {n}" for n in range(5)]


def test_a_message_of_unknown_end_that_was_read_and_is_gone_is_caught() -> None:
    history = [*POSTS, UNKNOWN, read(*ALL_IDS, "id 7")]
    assert check_messages(history, [*KEPT, ("id 7", "maybe")]).valid
    verdict = check_messages(history, KEPT)
    assert verdict.counts["vanished"] == 1
    assert verdict.first == 9


def test_a_message_of_unknown_end_that_a_later_read_lacks_is_caught() -> None:
    first = Operation(8, 1, "read", {}, 100, 110, "ok", {"ids": [*ALL_IDS, "id 7"]})
    at_once = Operation(9, 2, "read", {}, 105, 115, "ok", {"ids": ALL_IDS})
    later = Operation(9, 2, "read", {}, 120, 130, "ok", {"ids": ALL_IDS})
    kept = [*KEPT, ("id 7", "maybe")]
    assert check_messages([*POSTS, UNKNOWN, first, at_once], kept).valid
    assert check_messages([*POSTS, UNKNOWN, first, later], kept).counts["stale"] == 1


def test_a_message_that_appears_before_a_place_that_a_read_has_passed_is_caught() -> None:
    verdict = check_messages([*POSTS, read("id 0", "id 1", "id 2", "id 4")], KEPT)
    assert verdict.counts["skipped"] == 1
    assert check_messages([*POSTS, read("id 0", "id 1", "id 2", "id 3")], KEPT).valid


def refused(number: int, text: str, key: str) -> Operation:
    asked = {"text": text, "key": key}
    return Operation(number, 1, "post", asked, 200, 210, "fail", {}, {"code": "overloaded"})


def test_a_message_that_was_refused_and_is_there_is_caught() -> None:
    verdict = check_messages([*POSTS, refused(9, "never", "key 9")], [*KEPT, ("id 9", "never")])
    assert verdict.counts["unexpected"] == 1


def test_a_message_that_was_refused_once_and_tried_again_may_be_there() -> None:
    unknown = Operation(8, 1, "post", {"text": "maybe", "key": "key 9"}, 0)
    posts = [*POSTS, unknown, refused(9, "maybe", "key 9")]
    assert check_messages(posts, [*KEPT, ("id 9", "maybe")]).valid
    assert check_messages(posts, KEPT).valid


def test_a_key_used_for_another_text_that_takes_its_place_is_caught() -> None:
    posts = [*POSTS, refused(9, "not text 0", "key 0")]
    assert check_messages(posts, KEPT).valid
    taken = [("id 0", "not text 0"), *KEPT[1:]]
    assert check_messages(posts, taken).counts["altered"] == 1
    assert check_messages(posts, taken).counts["unexpected"] == 1


def test_one_key_with_two_messages_is_caught() -> None:
    again = Operation(9, 1, "post", POSTS[0].asked, 100, 110, "ok", {"id": "id 9"})
    verdict = check_messages([*POSTS, again], [*KEPT, ("id 9", "text 0")])
    assert verdict.counts["duplicated"] >= 1


@pytest.mark.parametrize(
    ("consumed", "kind"),
    [
        ({"a": ["id 0", "id 1"], "b": ["id 2", "id 3"]}, "lost"),
        ({"a": ["id 0", "id 1", "id 2"], "b": ["id 2", "id 3", "id 4"]}, "doubled"),
        ({"a": [f"id {n}" for n in range(6)]}, "unexpected"),
    ],
)
def test_each_wrong_consumption_is_caught(consumed: dict[str, list[str]], kind: str) -> None:
    assert check_queue(POSTS, consumed).counts[kind] == 1


def test_messages_consumed_once_are_valid() -> None:
    consumed = {"a": ["id 0", "id 3"], "b": ["id 1", "id 2", "id 4"]}
    assert check_queue(POSTS, consumed).valid


CONSUMED = {"a": ["id 0", "id 3"], "b": ["id 1", "id 2", "id 4"]}


def seen_consumed(index: int, began: int, ended: int, *numbers: int) -> Operation:
    ids = [f"id {number}" for number in numbers]
    return Operation(index, index, "consumed", {}, began, ended, "ok", {"ids": ids})


def test_reads_of_what_was_consumed_that_only_grow_are_valid() -> None:
    reads = [
        *(seen_consumed(5, 50, 60, 0, 1), seen_consumed(6, 55, 65, 0)),
        *(seen_consumed(7, 70, 80, 0, 1, 2), seen_consumed(8, 90, 95, 0, 1, 2, 3, 4)),
    ]
    verdict = check_queue([*POSTS, *reads], CONSUMED)
    assert verdict.valid
    assert verdict.checked == len(POSTS) + len(reads)


@pytest.mark.parametrize(
    ("reads", "kind"),
    [
        ([seen_consumed(5, 50, 60, 0, 1, 7)], "vanished"),
        ([seen_consumed(5, 50, 60, 0, 1, 1)], "doubled"),
        ([seen_consumed(4, 50, 60, 0, 1), seen_consumed(5, 70, 80, 0)], "stale"),
    ],
)
def test_each_wrong_read_of_what_was_consumed_is_caught(reads: list[Operation], kind: str) -> None:
    verdict = check_queue([*POSTS, *reads], CONSUMED)
    assert verdict.counts[kind] == 1
    assert verdict.first == 5


def lock(index: int, lease: int, began: int, ended: int, *accounts: int) -> Operation:
    asked = {"accounts": list(accounts)}
    return Operation(index, index, "lock", asked, began, ended, "ok", {"lease": lease})


def commit(index: int, lease: int, began: int, ended: int) -> Operation:
    return Operation(
        index, index, "commit", {"lease": lease}, began, ended, "ok", {"commit": index}
    )


def test_locks_taken_in_turn_are_valid() -> None:
    history = [lock(0, 1, 0, 1, 7), commit(1, 1, 2, 3), lock(2, 2, 2, 4, 7), commit(3, 2, 5, 6)]
    assert check_locks(history).valid


@pytest.mark.parametrize(
    ("history", "kind"),
    [
        ([lock(0, 5, 0, 1, 7), lock(1, 4, 2, 3, 8)], "numbers"),
        ([lock(0, 5, 0, 1, 7), lock(1, 5, 0, 3, 8)], "numbers"),
        ([lock(0, 1, 0, 1, 7), lock(1, 2, 2, 3, 7), commit(2, 1, 4, 5)], "stale commit"),
        ([lock(0, 1, 0, 1, 7), commit(1, 1, 2, 3), commit(2, 1, 4, 5)], "two commits"),
    ],
)
def test_each_misuse_of_a_lock_is_caught(history: list[Operation], kind: str) -> None:
    assert check_locks(history).counts[kind] == 1


def test_a_verdict_on_nothing_is_not_enough() -> None:
    assert not all_valid([Verdict("idle")])
    assert all_valid([Verdict("busy", checked=1)])


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with path.open("wb") as file:
        recorder = Recorder(file)
        recorder.invoke(1, "post", {"text": "grüße"}, "HTTP")
        recorder.info("nemesis", "kill", {"service": "bank.data"})
        recorder.fail(1, "post", {"text": "grüße"}, {"code": "overloaded"})
        recorder.invoke(2, "post", {"text": "never ended"})
    assert [(e.index, e.process, e.type) for e in read_history(path)] == [
        (0, 1, "invoke"),
        (1, "nemesis", "info"),
        (2, 1, "fail"),
        (3, 2, "invoke"),
    ]
    assert recorder.count == 4
    assert recorder.ends["fail", "post"] == 1
    first, second = operations(read_history(path))
    assert (first.outcome, first.code) == ("fail", "overloaded")
    assert (first.way, second.way) == ("HTTP", "")
    assert second.outcome == "info"
    assert second.ended_ns > first.ended_ns


def test_a_broken_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"index": 0}\n')
    with pytest.raises(ValueError, match="line 1"):
        list(read_history(path))
    recorder = Recorder()
    recorder.ok(1, "post", {})
    with pytest.raises(ValueError, match="ends nothing"):
        operations(recorder.events)


def test_a_commit_from_another_connection_after_a_hang_up_is_caught() -> None:
    gone = Operation(1, 0, "hang_up", {"lease": 1}, 2, 3, "ok")
    history = [lock(0, 1, 0, 1, 7), gone, commit(2, 1, 4, 5)]
    assert check_locks(history).counts["foreign commit"] == 1
    refused = Operation(2, 2, "commit", {"lease": 1}, 4, 5, "fail")
    assert check_locks([history[0], gone, refused]).valid


@pytest.mark.parametrize(
    ("outcome", "lines", "kind"),
    [
        ("ok", [], "lost"),
        ("ok", [Line(1, 9, 1, 2, 1, "r")], "lost"),
        ("ok", [Line(1, 5, 1, 2, 1, "r"), Line(2, 6, 1, 2, 1, "r")], "doubled"),
        ("fail", [Line(1, 5, 1, 2, 1, "r")], "refused but done"),
        ("ok", [Line(1, 5, 1, 2, 9, "r")], "altered"),
        ("ok", [Line(1, 5, 1, 3, 1, "r")], "altered"),
    ],
)
def test_each_wrong_raw_commit_is_caught(outcome: Any, lines: list[Line], kind: str) -> None:
    asked = {"lease": 1, "request_id": "0:r", "source": 1, "target": 2}
    tried = Operation(3, 0, "commit", asked, 0, 1, outcome, {"commit": 5})
    verdict = check_raw_commits([tried], Ledger(lines))
    assert verdict.counts[kind] == 1
    assert verdict.first == 3


def test_raw_commits_that_are_there_once_are_valid() -> None:
    asked = {"lease": 1, "request_id": "0:r", "source": 1, "target": 2}
    done = Operation(0, 0, "commit", asked, 0, 1, "ok", {"commit": 5})
    unknown = Operation(1, 1, "commit", {**asked, "request_id": "0:u"}, 0)
    assert check_raw_commits([done, unknown], Ledger([Line(1, 5, 1, 2, 1, "r")])).valid


def test_a_posting_that_no_raw_commit_asked_for_is_caught() -> None:
    asked = {"lease": 1, "request_id": "0:r", "source": 1, "target": 2}
    done = Operation(0, 0, "commit", asked, 0, 1, "ok", {"commit": 5})
    lines = [Line(1, 1, 0, 1, 1000, ""), Line(2, 5, 1, 2, 1, "r")]
    assert check_raw_commits([done], Ledger(lines)).valid
    verdict = check_raw_commits([done], Ledger([*lines, Line(3, 6, 1, 2, 1, "s")]))
    assert verdict.counts["invented"] == 1

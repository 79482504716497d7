"""How the facade spreads messages, joins failures and chooses whom to let in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from rmi_msg.batches import CallLimits
from rmi_msg.facade import FacadeObject
from rmi_msg.lines import LineLog
from rmi_msg.spread import Spread
from rmi_runtime import (
    ANONYMOUS,
    SERVICE,
    Connection,
    Endpoints,
    EndpointView,
    Identity,
    call_as,
    errors,
)

Answer = Callable[[Sequence[tuple[str, str]]], list[str]]


class Loggers:
    """Stands in for the endpoints of the loggers; notes who was asked for what."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.put: list[tuple[str | None, list[tuple[str, str]]]] = []
        self.answers: dict[str | None, Answer] = {}
        self.waited_s: list[float] = []

    def view(self) -> list[EndpointView]:
        return [
            EndpointView(name, "", 0, name == "aside", name == "leaving") for name in self.names
        ]

    async def ready(self, timeout_s: float) -> None:
        self.waited_s.append(timeout_s)

    async def call(
        self, method: str, messages: list[tuple[str, str]], *, prefer: str | None, **options: Any
    ) -> list[str]:
        assert method == "put_many"
        assert options["repeatable"] is True
        self.put.append((prefer, messages))
        answer = self.answers.get(prefer)
        return answer(messages) if answer else ["new"] * len(messages)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., FacadeObject]]:
    with LineLog(tmp_path / "facade.log") as log:

        def build(loggers: Loggers, **options: Any) -> FacadeObject:
            endpoints = cast(Endpoints, loggers)
            options = {"spread": Spread(Random(7), lambda: 7.0)} | options
            return FacadeObject(endpoints, endpoints, log, **options)

        yield build


Make = Callable[..., FacadeObject]

MANY = [(str(n), f"text {n}") for n in range(900)]


async def test_every_message_goes_to_a_logger_picked_at_random(make: Make) -> None:
    loggers = Loggers("a", "b", "c", "aside", "leaving")
    facade = make(loggers)
    with call_as(SERVICE):
        assert await facade.post_many(MANY) == ["new"] * 900
    assert sorted(name or "" for name, _ in loggers.put) == ["a", "b", "c"]  # one call each
    shares = Counter({name: len(messages) for name, messages in loggers.put})
    assert all(250 < share < 350 for share in shares.values())
    assert sorted(pair for _, messages in loggers.put for pair in messages) == sorted(MANY)
    a = next(messages for name, messages in loggers.put if name == "a")
    assert a != MANY[: len(a)]  # not simply dealt out in blocks


async def test_in_a_crowd_what_comes_in_one_call_stays_together(make: Make) -> None:
    loggers = Loggers("a", "b", "c")
    facade = make(loggers)
    with call_as(SERVICE):
        for _ in range(20):
            await facade.post_many(MANY[:100])
    assert len(loggers.put) == 3 + 19  # nothing came before the first
    assert {name for name, _ in loggers.put} == {"a", "b", "c"}


async def test_words_come_back_in_the_callers_order(make: Make) -> None:
    loggers = Loggers("a", "b", "c")
    for name, word in (("a", "new"), ("b", "same"), ("c", "other")):
        loggers.answers[name] = lambda messages, word=word: [word] * len(messages)
    facade = make(loggers)
    with call_as(SERVICE):
        words = await facade.post_many(MANY)
    by_id = dict(zip((id for id, _ in MANY), words, strict=True))
    for name, messages in loggers.put:
        expected = {"a": "new", "b": "same", "c": "other"}[name or ""]
        assert {by_id[id] for id, _ in messages} == {expected}


async def test_a_logger_is_waited_for_only_while_none_is_known(make: Make) -> None:
    loggers = Loggers("aside", "leaving")
    facade = make(loggers, timeout_s=20.0)
    with call_as(SERVICE):
        assert await facade.post("text", "1") == {"id": "1"}
        assert loggers.waited_s == [18.0]  # early enough for the caller to hear
        assert loggers.put == [(None, [("1", "text")])]  # it has gone again: whoever comes
        loggers.names = ("a",)
        await facade.post("text", "2")
    assert loggers.waited_s == [18.0]
    assert loggers.put[1:] == [("a", [("2", "text")])]


def refuse(error: errors.RmiError) -> Answer:
    def answer(messages: Sequence[tuple[str, str]]) -> list[str]:
        raise error

    return answer


async def test_what_no_logger_took_failed_definitely(make: Make) -> None:
    loggers = Loggers("a", "b")
    loggers.answers = {name: refuse(errors.Unavailable("down")) for name in "ab"}
    with call_as(SERVICE), pytest.raises(errors.Unavailable):
        await make(loggers).post_many(MANY)


async def test_what_some_loggers_took_failed_indefinitely(make: Make) -> None:
    loggers = Loggers("a", "b")
    loggers.answers = {"b": refuse(errors.Unavailable("down"))}
    with call_as(SERVICE), pytest.raises(errors.Interrupted, match="same ids"):
        await make(loggers).post_many(MANY)


@pytest.mark.parametrize("sure", ["a", "b"])
async def test_one_doubt_makes_the_whole_request_doubtful(make: Make, sure: str) -> None:
    loggers = Loggers("a", "b")
    loggers.answers = {name: refuse(errors.CallTimeout("no reply")) for name in "ab"}
    loggers.answers[sure] = refuse(errors.Unavailable("down"))
    with call_as(SERVICE), pytest.raises(errors.CallTimeout):
        await make(loggers).post_many(MANY)


async def test_what_finds_no_room_failed_definitely_unless_some_of_it_was_stored(
    make: Make,
) -> None:
    loggers = Loggers("a")
    facade = make(loggers, queue_max=1, limits=CallLimits(messages=10))
    with call_as(SERVICE):
        with pytest.raises(errors.Interrupted):
            await facade.post_many(MANY[:20])  # two calls' worth, and there is room for one
        assert [len(messages) for _, messages in loggers.put] == [10]
        first = asyncio.create_task(facade.post_many(MANY[:10]))
        await asyncio.sleep(0)  # it is in the queue now
        with pytest.raises(errors.Overloaded):
            await facade.post_many(MANY[10:20])
        assert await first == ["new"] * 10
    assert [len(messages) for _, messages in loggers.put] == [10, 10]


@pytest.mark.parametrize(
    ("b", "told"),
    [
        (["full"], {"new", "full"}),
        (errors.StoreFull("no room at b"), {"new", "full"}),
        (errors.Unavailable("down"), errors.Interrupted),
        (errors.CallTimeout("no reply"), errors.CallTimeout),
    ],
)
async def test_what_found_no_room_is_told_from_what_was_stored(
    make: Make, b: list[str] | errors.RmiError, told: set[str] | type[errors.RmiError]
) -> None:
    loggers = Loggers("a", "b", "c")
    loggers.answers["b"] = answer_of(b)
    loggers.answers["c"] = refuse(errors.StoreFull("no room at c"))
    with call_as(SERVICE):
        if isinstance(told, set):
            words = await make(loggers).post_many(MANY)
            assert set(words) == told
            stored = {id for name, messages in loggers.put if name == "a" for id, _ in messages}
            assert stored == {
                id for (id, _), word in zip(MANY, words, strict=True) if word == "new"
            }
        else:
            with pytest.raises(told):
                await make(loggers).post_many(MANY)


@pytest.mark.parametrize(
    ("a", "told"),
    [
        (errors.StoreFull("no room at a"), "no room at a"),
        (["full"], "no room for it"),  # others of the call were there
        (errors.Unavailable("down"), "down"),
    ],
)
async def test_where_nothing_found_room_nothing_was_done(
    make: Make, a: list[str] | errors.RmiError, told: str
) -> None:
    loggers = Loggers("a", "b")
    loggers.answers = {"a": answer_of(a), "b": answer_of(["full"])}
    facade = make(loggers)
    with call_as(SERVICE):
        with pytest.raises(errors.Definite, match=told):
            await facade.post_many(MANY)
        loggers.names = ("a",)
        with pytest.raises(errors.Definite, match=told):
            await facade.post("text", "1")
        assert await facade.post_many([]) == []


def answer_of(told: list[str] | errors.RmiError) -> Answer:
    if isinstance(told, errors.RmiError):
        return refuse(told)
    return lambda messages: told * len(messages)


async def test_whoever_left_the_id_to_us_is_told_the_one_to_repeat_a_doubtful_post_with(
    make: Make,
) -> None:
    loggers = Loggers("a")
    lost = errors.Interrupted("no reply; send the same ids again", why="lost")
    loggers.answers = {"a": refuse(lost)}
    facade = make(loggers)
    with call_as(SERVICE):
        ended = await asyncio.gather(*(facade.post(text) for text in "xyz"), return_exceptions=True)
    told = {end.fields.get("id") for end in ended if isinstance(end, errors.Interrupted)}
    assert told == {id for _, messages in loggers.put for id, _ in messages}
    assert len(told) == 3, "each its own, although one error has failed them all"
    assert lost.fields == {"why": "lost"}


class Peer:
    """A connection from some address."""

    def __init__(self, peer: object) -> None:
        self.peer = peer


@pytest.mark.parametrize(
    ("peer", "identity", "let_in"),
    [
        (("127.0.0.1", 5), ANONYMOUS, True),
        (("127.1.2.3", 5), ANONYMOUS, True),
        (("::1", 5, 0, 0), ANONYMOUS, True),
        (("::ffff:127.0.0.1", 5, 0, 0), ANONYMOUS, True),
        ("", ANONYMOUS, True),  # a Unix domain socket
        (("192.0.2.7", 5), ANONYMOUS, False),
        (("2001:db8::1", 5, 0, 0), ANONYMOUS, False),
        (("192.0.2.7", 5), Identity("client", 4, "customer"), True),
        (("192.0.2.7", 5), SERVICE, True),
    ],
)
async def test_strangers_are_let_in_from_this_machine_only(
    make: Make, peer: object, identity: Identity, let_in: bool
) -> None:
    facade = make(Loggers("a"))
    with call_as(identity) as call:
        call.connection = cast(Connection, Peer(peer))
        if let_in:
            assert await facade.post("text", "1") == {"id": "1"}
            return
        for request in (facade.post("a"), facade.post_many([]), facade.page(), facade.consumed()):
            with pytest.raises(errors.Unauthenticated):
                await request

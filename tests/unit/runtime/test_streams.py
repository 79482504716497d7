"""Item streams: their bounds, their life-times, and who may read them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from Pyro5.errors import PyroError

from rmi_runtime import errors
from rmi_runtime.daemon.endings import Endings
from rmi_runtime.daemon.streams import StreamTable
from rmi_runtime.limits import DaemonLimits
from tests.support import Clock, eventually


class Items(Generator[int, None, None]):
    """Numbers, and whether they were closed."""

    def __init__(self, count: int = 3) -> None:
        self._left = iter(range(count))
        self.closed = False

    def send(self, value: None) -> int:
        return next(self._left)

    def throw(self, *error: Any) -> int:
        raise AssertionError("nobody throws anything in")

    def close(self) -> None:
        """Note it."""
        self.closed = True


def _table(clock: Clock, **bounds: Any) -> StreamTable:
    return StreamTable(
        DaemonLimits(**{"streams_max": 10, "connection_streams_max": 5, **bounds}), clock
    )


def test_items_come_in_order_and_the_end_forgets_the_stream(clock: Clock) -> None:
    table = _table(clock)
    stream = table.open("owner", iter("ab"))
    assert [table.next(stream, "owner"), table.next(stream, "owner")] == ["a", "b"]
    with pytest.raises(StopIteration):
        table.next(stream, "owner")
    assert len(table) == 0
    with pytest.raises(PyroError, match="terminated"):
        table.next(stream, "owner")


def test_an_iterator_that_fails_is_forgotten(clock: Clock) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("no more")

    table = _table(clock)
    stream = table.open("owner", failing())
    assert table.next(stream, "owner") == 1
    with pytest.raises(KeyError):
        table.next(stream, "owner")
    assert len(table) == 0


def test_streams_are_bounded_in_all_and_for_each_owner(clock: Clock) -> None:
    table = _table(clock, streams_max=3, connection_streams_max=2)
    kept = [table.open("one", Items()) for _ in range(2)]
    with pytest.raises(errors.Overloaded, match="on this connection"):
        table.open("one", Items())
    table.open("other", Items())
    with pytest.raises(errors.Overloaded, match="3 item streams"):
        table.open("third", Items())
    table.close(kept[0])
    table.open("third", Items())


def test_a_closed_stream_closes_its_items_and_closing_twice_is_no_error(clock: Clock) -> None:
    table, items = _table(clock), Items()
    stream = table.open("owner", items)
    table.close(stream)
    table.close(stream)
    assert items.closed


def test_a_stream_that_is_read_for_a_connection_which_has_ended_lingers_no_longer(
    clock: Clock,
) -> None:
    table, owner = _table(clock, stream_linger_s=30.0), Endings()
    stream = table.open("owner", iter("ab"))
    table.orphan("owner")
    owner.over = True  # before the thread came to its call
    assert table.next(stream, owner) == "a"
    table.sweep()
    clock.now_s += 29
    table.sweep()
    assert len(table) == 1
    clock.now_s += 2
    table.sweep()
    assert len(table) == 0


def test_an_iterator_that_is_no_generator_is_dropped_and_not_closed(
    clock: Clock, tmp_path: Path
) -> None:
    (tmp_path / "lines").write_text("one\ntwo\n")
    with (tmp_path / "lines").open() as lines:
        table = _table(clock)
        stream = table.open("owner", lines)
        assert table.next(stream, "owner") == "one\n"
        table.close(stream)
        assert next(lines) == "two\n"  # whoever opened the file goes on with it


def test_a_stream_outlives_its_connection_for_a_while(clock: Clock) -> None:
    table, items = _table(clock, stream_linger_s=30.0), Items()
    stream = table.open("gone", items)
    table.orphan("gone")
    clock.now_s += 29
    table.sweep()
    assert table.next(stream, "came back") == 0
    clock.now_s += 100
    table.sweep()
    assert table.next(stream, "came back") == 1  # it has an owner again
    table.orphan("came back")
    clock.now_s += 31
    table.sweep()
    assert items.closed
    assert len(table) == 0


def test_without_lingering_a_stream_ends_with_its_connection(clock: Clock) -> None:
    table, items = _table(clock, stream_linger_s=0.0), Items()
    table.open("gone", items)
    table.open("stays", Items())
    table.orphan("gone")
    assert items.closed
    assert len(table) == 1


def test_the_life_time_ends_a_stream_that_is_read(clock: Clock) -> None:
    table, items = _table(clock, stream_lifetime_s=10.0), Items()
    stream = table.open("owner", items)
    clock.now_s += 9
    table.sweep()
    table.next(stream, "owner")
    clock.now_s += 2
    table.sweep()
    assert items.closed


async def test_asynchronous_items_and_their_end(clock: Clock) -> None:
    async def two() -> AsyncIterator[int]:
        yield 1
        yield 2

    table = _table(clock)
    stream = table.open("owner", two())
    assert [await table.next(stream, "owner"), await table.next(stream, "owner")] == [1, 2]
    with pytest.raises(StopAsyncIteration):
        await table.next(stream, "owner")
    assert len(table) == 0


async def test_asynchronous_items_that_fail_or_are_closed_leave_nothing_behind(
    clock: Clock,
) -> None:
    class Failing(AsyncIterator[int]):
        async def __anext__(self) -> int:
            raise KeyError("no more")

        async def aclose(self) -> None:
            """End."""

    table = _table(clock)
    with pytest.raises(KeyError):
        await table.next(table.open("owner", Failing()), "owner")
    assert len(table) == 0
    for _ in range(3):
        table.close(table.open("owner", Failing()))
    await eventually(lambda: not table._closing)


async def test_asking_twice_at_once_does_not_lose_the_stream(clock: Clock) -> None:
    gate = asyncio.Event()

    async def gated() -> AsyncIterator[int]:
        await gate.wait()
        yield 1
        yield 2

    table = _table(clock)
    stream = table.open("owner", gated())
    first = asyncio.ensure_future(table.next(stream, "owner"))
    second = asyncio.ensure_future(table.next(stream, "owner"))  # before the first has begun
    with pytest.raises(PyroError, match="being fetched already"):
        await second
    gate.set()
    assert await first == 1
    assert await table.next(stream, "owner") == 2


def test_asking_twice_at_once_on_threads_does_not_lose_the_stream(clock: Clock) -> None:
    fetching, gate = threading.Event(), threading.Event()

    def gated() -> Iterator[int]:
        fetching.set()
        gate.wait(10)
        yield 1
        yield 2

    table = _table(clock)
    stream = table.open("owner", gated())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(table.next, stream, "owner")
        assert fetching.wait(10)
        with pytest.raises(PyroError, match="being fetched already"):
            table.next(stream, "owner")
        gate.set()
        assert first.result(10) == 1
    assert table.next(stream, "owner") == 2


def test_a_stream_may_end_on_a_thread_while_another_is_opened(clock: Clock) -> None:
    table = _table(clock)
    ending = table.open("owner", iter(()))

    class Owner:
        """Stands where the other thread gets its turn, in the midst of the counting."""

        @property
        def owner(self) -> str:
            table._streams.pop(ending, None)
            return "other"

    table._streams["midst"] = Owner()  # type: ignore[assignment]
    table._streams["last"] = Owner()  # type: ignore[assignment]
    assert table.open("owner", Items()) in table._streams
    assert ending not in table._streams


async def test_closing_all_waits_for_asynchronous_clean_up(clock: Clock) -> None:
    cleaned = []

    async def tidy(number: int) -> AsyncIterator[int]:
        try:
            yield number
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)
            if number == 1:
                raise ValueError("clean-up failed")

    table = _table(clock)
    for number in range(3):
        await table.next(table.open("owner", tidy(number)), "owner")
    await table.close_all(5.0)
    assert sorted(cleaned) == [0, 1, 2]
    assert len(table) == 0

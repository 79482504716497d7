"""Single steps: repeated until their outcome is known, and meaning the same however often."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hazelcast.core import HazelcastJsonValue
from hazelcast.errors import (
    IndeterminateOperationStateError,
    TargetDisconnectedError,
)

from rmi_msg.hazelcast import acknowledged
from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.records import in_flight
from rmi_msg.hazelcast.table import HazelcastTable
from rmi_runtime import errors

LOST = IndeterminateOperationStateError("backup acks are missed")


class FailingMap:
    """A client's map; its steps fail as told, before or after their effect."""

    def __init__(self, *failures: tuple[str, BaseException]) -> None:
        self.values: dict[Any, str] = {}
        self.failures = list(failures)

    def _fail(self, when: str) -> None:
        if self.failures and self.failures[0][0] == when:
            raise self.failures.pop(0)[1]

    async def put_if_absent(self, key: Any, value: HazelcastJsonValue) -> HazelcastJsonValue | None:
        self._fail("before")
        there = self.values.get(key)
        self.values.setdefault(key, value.to_string())
        self._fail("after")
        return None if there is None else HazelcastJsonValue(there)

    async def replace_if_same(
        self, key: Any, old: HazelcastJsonValue, new: HazelcastJsonValue
    ) -> bool:
        self._fail("before")
        same = self.values.get(key) == old.to_string()
        if same:
            self.values[key] = new.to_string()
        self._fail("after")
        return same

    async def get_all(self, keys: Iterable[Any]) -> dict[Any, HazelcastJsonValue]:
        if self.failures:
            # As a TaskGroup may, before Python 3.13: it fails, and a cancellation stays behind.
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            self._fail("before")
        return {key: HazelcastJsonValue(self.values[key]) for key in keys if key in self.values}


class OneMap(Link):
    """A link that has one map, or none."""

    def __init__(self, one: FailingMap | None) -> None:
        super().__init__(["127.0.0.1:1"], "rmi")
        self._one = one
        self.doubts: list[BaseException] = []

    async def client(self, wait_s: float = 0.0) -> Any:
        if self._one is None:
            raise errors.Unavailable("nobody is there")

    async def map(self, name: str) -> Any:
        return self._one

    async def put_if_absent(self, table: Any, key: object, value: HazelcastJsonValue) -> Any:
        return await table.put_if_absent(key, value)

    async def replace(
        self, table: Any, key: object, old: HazelcastJsonValue, new: HazelcastJsonValue
    ) -> bool:
        found: bool = await table.replace_if_same(key, old, new)
        return found

    def doubt(self, why: BaseException) -> None:
        self.doubts.append(why)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.table.PAUSE_S", 0)


def table(*failures: tuple[str, BaseException]) -> tuple[HazelcastTable[str], FailingMap]:
    one = FailingMap(*failures)
    return HazelcastTable(OneMap(one), "m"), one


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_put_whose_answer_was_lost_is_still_ours(when: str) -> None:
    steps, one = table((when, LOST), (when, TargetDisconnectedError("gone")))
    assert await steps.put_if_absent("a", "x") is None
    assert one.values == {"a": "x"}
    assert not one.failures


async def test_a_put_into_a_part_of_the_cluster_that_gave_way_is_made_again() -> None:
    steps, one = table(("after", LOST))
    usual = one.replace_if_same

    async def after_the_others_took_over(
        key: Any, old: HazelcastJsonValue, new: HazelcastJsonValue
    ) -> bool:
        one.values.clear()  # they never heard of it
        one.replace_if_same = usual  # type: ignore[method-assign]
        return await usual(key, old, new)

    one.replace_if_same = after_the_others_took_over  # type: ignore[method-assign]
    assert await steps.put_if_absent("a", "x") is None
    assert one.values == {"a": "x"}


async def test_a_put_that_finds_another_value_returns_it() -> None:
    steps, one = table(("before", LOST))
    one.values["a"] = "y"
    assert await steps.put_if_absent("a", "x") == "y"


async def test_a_replacement_whose_answer_was_lost_says_false_rather_than_guess() -> None:
    steps, one = table(("after", LOST))
    one.values["a"] = "x"
    assert not await steps.replace("a", "x", "y")
    assert one.values == {"a": "y"}


async def test_a_cancellation_that_the_client_leaves_behind_does_not_hit_us() -> None:
    steps, one = table(("before", BaseExceptionGroup("g", [OSError("member gone")])))
    one.values["a"] = "x"
    assert await steps.get_all(["a", "b"]) == {"a": "x"}
    for _ in range(3):
        await asyncio.sleep(0)


async def test_another_callers_cancellation_is_only_a_failed_attempt() -> None:
    steps, _ = table(("before", asyncio.CancelledError()))
    assert await steps.put_if_absent("a", "x") is None


async def test_our_own_cancellation_ends_the_step() -> None:
    steps, one = table()
    one.values["a"] = "x"

    async def forever(keys: Iterable[Any]) -> dict[Any, HazelcastJsonValue]:
        await asyncio.Event().wait()
        return {}

    one.get_all = forever  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await steps.get_all(["a"])


async def test_an_error_that_is_no_trouble_of_the_cluster_is_not_repeated() -> None:
    steps, _ = table(("before", BaseExceptionGroup("g", [OSError("x"), KeyError("bug")])))
    with pytest.raises(BaseExceptionGroup):
        await steps.get_all(["a"])


async def test_writing_without_a_connection_is_refused_as_certainly_without_effect() -> None:
    with pytest.raises(errors.Unavailable):
        async with Cluster(OneMap(None), 1.0).writing():
            pytest.fail("it was let in")


async def test_writing_that_takes_too_long_may_have_happened() -> None:
    with pytest.raises(errors.Interrupted, match="same ids"):
        async with Cluster(OneMap(FailingMap()), 0.01).writing():
            await asyncio.Event().wait()


async def test_a_connection_lost_half_way_may_have_written() -> None:
    with pytest.raises(errors.Interrupted):
        async with Cluster(OneMap(FailingMap()), 1.0).writing():
            raise errors.Unavailable("lost")


async def test_steps_in_flight_are_bounded_and_come_back_in_order() -> None:
    running = most = 0

    async def step(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return -item

    assert await in_flight(step, range(50), 7) == [-item for item in range(50)]
    assert most == 7


async def test_one_failed_step_ends_the_others_and_is_the_error() -> None:
    ended = []

    async def step(item: int) -> None:
        if item == 2:
            raise errors.Unavailable("gone")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(item)

    with pytest.raises(errors.Unavailable):
        await in_flight(step, range(10), 4)
    assert sorted(ended) == [0, 1, 3]


class Answer:
    """A response's header."""

    def __init__(self, backups: int) -> None:
        self._backups = backups

    def get_number_of_backup_acks(self) -> int:
        return self._backups


class Knows:
    """A client that knows of some members."""

    def __init__(self, members: int) -> None:
        self.cluster_service = self
        self._members = members

    def get_members(self) -> list[int]:
        return [0] * self._members


@pytest.mark.parametrize(
    ("members", "backups", "counts"),
    [(3, 2, True), (3, 1, True), (3, 0, False), (2, 0, False), (2, 1, True), (1, 0, True)],
)
def test_a_change_that_no_other_member_knows_of_does_not_count(
    members: int, backups: int, counts: bool
) -> None:
    client: Any = Knows(members)
    if counts:
        acknowledged._check_backups(client, Answer(backups))
    else:
        with pytest.raises(acknowledged.NoBackup):
            acknowledged._check_backups(client, Answer(backups))

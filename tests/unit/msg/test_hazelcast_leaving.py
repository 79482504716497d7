"""When a member that is told to leave does."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from rmi_msg.hazelcast.leaving import RETURN_S, Leaving
from tests.support import Clock, eventually, turns

THREE = ("h:1", "h:2", "h:3")


class World:
    """What the members of one machine can know of each other.

    Args:
        directory: for the lock.
        expected: how many members there should be.
    """

    def __init__(self, directory: Path, expected: int = 3) -> None:
        self.clock = Clock()
        self.running: set[str] = set()
        self._turn_file = directory / "leaving.lock"
        self._expected = tuple(f"h:{n}" for n in range(1, expected + 1))
        self._leaving: list[Leaving] = []

    def member(self, address: str) -> Leaving:
        """Return what looks whether the member at *address* may leave."""
        one = Leaving(
            address, self._expected, lambda: self.running, self._turn_file, 6.0, self.clock
        )
        one.on_members(self._expected)
        self._leaving.append(one)
        return one

    def members(self, *present: str) -> None:
        """Tell who is in the cluster now."""
        for one in self._leaving:
            one.on_members(present)

    def close(self) -> None:
        for one in self._leaving:
            one.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_if_all_are_there_nobody_waits(world: World) -> None:
    leaving = [world.member(address) for address in THREE]
    for one in leaving:
        await one.wait()


def test_one_that_runs_and_has_not_joined_is_waited_for(world: World) -> None:
    own = world.member("h:2")
    world.members("h:2", "h:3")
    world.running = {"h:1", "h:2", "h:3"}
    assert own.awaited() == ["h:1"]
    world.members("h:3", "h:2", "h:1")
    assert own.awaited() == []


def test_one_that_has_just_gone_may_be_started_again(world: World) -> None:
    own = world.member("h:2")
    world.members("h:2", "h:3")
    assert own.awaited() == ["h:1"]
    world.clock.now_s += RETURN_S
    assert own.awaited() == []


def test_nobody_waits_for_one_that_never_was_there(world: World) -> None:
    own = Leaving("h:2", THREE, lambda: (), Path("unused"), 6.0)
    own.on_members(("h:2",))
    assert own.awaited() == []


def test_nobody_waits_outside_of_the_cluster(world: World) -> None:
    own = world.member("h:2")
    world.running = set(THREE)
    world.members("h:1")
    assert own.awaited() == []
    world.members()
    assert own.awaited() == []


def test_if_enough_are_left_nobody_waits(tmp_path: Path) -> None:
    world = World(tmp_path, 5)
    own = world.member("h:2")
    world.running = {"h:1"}
    world.members("h:2", "h:3", "h:4", "h:5")
    assert own.awaited() == []
    world.members("h:2", "h:3", "h:4")
    assert own.awaited() == ["h:1", "h:5"]


async def test_of_two_that_waited_for_the_same_one_stays_for_the_other(world: World) -> None:
    second, third = world.member("h:2"), world.member("h:3")
    world.running = set(THREE)
    world.members("h:2", "h:3")
    waits = [asyncio.create_task(one.wait()) for one in (second, third)]
    await turns()
    assert not any(wait.done() for wait in waits)
    world.members("h:2", "h:3", "h:1")
    await eventually(lambda: any(wait.done() for wait in waits))
    assert [wait.done() for wait in waits].count(True) == 1
    first, later = (second, third) if waits[0].done() else (third, second)
    world.members(*(m for m in THREE if m != ("h:2" if first is second else "h:3")))
    first.close()
    assert later.awaited()
    world.members(*THREE)
    await asyncio.gather(*waits)
    world.close()


async def test_the_wait_has_a_bound(world: World) -> None:
    own = world.member("h:2")
    world.running = set(THREE)
    world.members("h:2", "h:3")
    waiting = asyncio.create_task(own.wait())
    await turns()
    world.clock.now_s += 6.1
    await waiting
    world.members("h:2")
    await own.wait()  # it has waited already


async def test_who_cannot_look_for_others_leaves(world: World) -> None:
    def none_left() -> set[str]:
        raise OSError(errno.EMFILE, "too many open files")

    own = Leaving("h:2", THREE, none_left, Path("unused"), 6.0)
    own.on_members(("h:2", "h:3"))
    await own.wait()
    nowhere = Leaving("h:2", THREE, lambda: world.running, Path("missing/leaving.lock"), 6.0)
    world.running = {"h:1"}
    nowhere.on_members(("h:2", "h:3"))
    waiting = asyncio.create_task(nowhere.wait())
    await turns()
    assert not waiting.done()
    nowhere.on_members(THREE)
    await waiting

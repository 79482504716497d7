"""The nemesis: carries out its schedule, notes it, and heals everything however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from rmi_torture.faults.nemesis import Nemesis
from rmi_torture.history import Recorder
from rmi_torture.schedule import Step
from tests.support import eventually


class Trouble:
    """A fault that only remembers what was asked of it.

    Args:
        done: what it says was done; None: there was nothing to do it to.
    """

    def __init__(self, done: Mapping[str, Any] | None = None) -> None:
        self.asked: list[str] = []
        self.allowed = asyncio.Event()
        self.allowed.set()
        self._done = done

    async def begin(self, target: str) -> Mapping[str, Any] | None:
        await self.allowed.wait()
        self.asked.append(f"begin {target}")
        return self._done

    async def end(self, target: str) -> Mapping[str, Any] | None:
        self.asked.append(f"end {target}")
        return None

    async def heal(self) -> None:
        self.asked.append("heal")


async def test_what_is_done_is_counted_noted_ended_and_healed() -> None:
    pause, kill = Trouble({"pid": 5}), Trouble({"pid": 6})
    recorder = Recorder()
    nemesis = Nemesis({"pause": pause, "kill": kill}, recorder)
    steps = [Step(0.0, "pause", "a", 0.01), Step(0.0, "kill", "b", 0.0)]
    await nemesis.run(steps, asyncio.Event())
    assert pause.asked == ["begin a", "end a", "heal"]
    assert kill.asked == ["begin b", "heal"]
    assert nemesis.made == {"pause": 1, "kill": 1}
    assert [(e.f, e.value["target"], e.value["phase"]) for e in recorder.events] == [
        ("pause", "a", "begin"),
        ("kill", "b", "begin"),
        ("pause", "a", "end"),
    ]


async def test_what_found_no_target_does_not_count() -> None:
    nowhere = Trouble()
    recorder = Recorder()
    nemesis = Nemesis({"kill": nowhere}, recorder)
    await nemesis.run([Step(0.0, "kill", "a", 0.0)], asyncio.Event())
    assert nowhere.asked == ["begin a", "heal"]
    assert nemesis.made.total() == recorder.count == 0


async def test_when_it_is_stopped_no_new_fault_begins_and_what_lasts_ends_at_once() -> None:
    pause = Trouble({})
    nemesis = Nemesis({"pause": pause}, Recorder())
    stop = asyncio.Event()
    steps = [Step(0.0, "pause", "a", 3600.0), Step(3600.0, "pause", "b", 1.0)]
    running = asyncio.create_task(nemesis.run(steps, stop))
    await eventually(lambda: pause.asked == ["begin a"])
    stop.set()
    await running
    assert pause.asked == ["begin a", "end a", "heal"]


async def test_when_it_is_cancelled_it_heals() -> None:
    pause = Trouble({})
    nemesis = Nemesis({"pause": pause}, Recorder())
    running = asyncio.create_task(nemesis.run([Step(0.0, "pause", "a", 3600.0)], asyncio.Event()))
    await eventually(lambda: pause.asked == ["begin a"])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert pause.asked == ["begin a", "heal"]


async def test_others_do_not_wait_for_members_that_may_not_die_yet() -> None:
    members, kill = Trouble({"members": [1, 2]}), Trouble({"pid": 6})
    members.allowed.clear()
    nemesis = Nemesis({"members": members, "kill": kill}, Recorder())
    steps = [Step(0.0, "members", "hazelcast", 0.0), Step(0.0, "kill", "b", 0.0)]
    running = asyncio.create_task(nemesis.run(steps, asyncio.Event()))
    await eventually(lambda: kill.asked == ["begin b"])
    assert members.asked == []
    members.allowed.set()
    await running
    assert members.asked == ["begin hazelcast", "heal"]
    assert nemesis.made == {"members": 1, "kill": 1}

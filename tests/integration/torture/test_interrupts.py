"""Signals while a run is under way, and the end of all of a system's processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from rmi_torture.belongings import VARIABLE, end_all, marked
from rmi_torture.interrupts import SIGNALS, Interrupts
from tests.support import eventually

CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_first_signal_asks_and_the_second_cancels(number: signal.Signals) -> None:
    told: list[str] = []
    interrupts = Interrupts(lambda: told.append("told"))
    began = asyncio.Event()

    async def work() -> None:
        with interrupts.watching() as stop:
            began.set()
            await stop.wait()
            assert told == ["told"]
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await began.wait()
    assert not interrupts.asked
    os.kill(os.getpid(), number)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert interrupts.asked


@pytest.mark.parametrize("under_nohup", [False, True])
async def test_the_end_of_the_terminal_cancels_but_not_under_nohup(under_nohup: bool) -> None:
    ours = signal.signal(signal.SIGHUP, signal.SIG_IGN if under_nohup else _nothing)
    interrupts = Interrupts()
    began = asyncio.Event()

    async def work() -> None:
        with interrupts.watching():
            began.set()
            await asyncio.Event().wait()

    try:
        task = asyncio.create_task(work())
        await began.wait()
        os.kill(os.getpid(), signal.SIGHUP)
        if under_nohup:
            os.kill(os.getpid(), signal.SIGINT)
            await eventually(lambda: interrupts.asked)
            assert not task.done()
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        assert interrupts.asked
    finally:
        signal.signal(signal.SIGHUP, ours)


def _nothing(number: int, frame: object) -> None:
    pass


async def test_who_was_asked_to_end_does_not_begin_the_next_run() -> None:
    interrupts = Interrupts()
    with interrupts.watching() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
    with interrupts.watching() as stop:
        assert stop.is_set()


def test_between_runs_the_first_signal_lets_things_be_finished_and_the_second_does_not() -> None:
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    with interrupts.guarding():
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_after_a_run_the_guard_is_there_again() -> None:
    interrupts = Interrupts()

    async def run() -> None:
        with interrupts.watching():
            pass

    with interrupts.guarding():
        guard = signal.getsignal(signal.SIGINT)
        asyncio.run(run())
        assert signal.getsignal(signal.SIGINT) == guard


async def test_all_that_have_the_mark_are_ended_also_the_orphans() -> None:
    mark = f"test-{os.getpid()}"
    waits_on, held_open = os.pipe()  # asyncio's own would be closed with the parent, and end both
    try:
        parent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD),
            stdin=waits_on,
            env={**os.environ, VARIABLE: mark},
        )
        await eventually(lambda: len(marked(mark)) == 2)
        parent.kill()
        await parent.wait()
        [orphan] = marked(mark)
        assert await end_all(mark) == [orphan]
        assert marked(mark) == []
        assert marked("nobody's") == []
    finally:
        os.close(waits_on)
        os.close(held_open)

"""A service process as the supervisor sees it: what came, and in which order."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rmi_launch.processes import ServiceProcess, ZygoteProcess
from rmi_launch.zygote import Zygote
from tests.support import eventually

NOTE = {"location": "127.0.0.1:5"}


@pytest.fixture
async def parts() -> AsyncIterator[tuple[ServiceProcess, Any, int]]:
    """A process that has said that it is ready, its zygote, and the end of its pipe."""
    zygote = SimpleNamespace(lost=asyncio.Event())
    process = ServiceProcess(cast(ZygoteProcess, zygote), 1, "quick")
    says_fd = process.open_pipe()
    os.write(says_fd, b'{"location": "127.0.0.1:5"}\n')
    await eventually(lambda: process._said)
    yield process, zygote, says_fd
    os.close(says_fd)
    process.end(0)


async def test_a_service_quicker_than_the_news_of_its_pid_is_ready_with_that(
    parts: tuple[ServiceProcess, Any, int],
) -> None:
    process, _, _ = parts
    assert not process.ready.done()
    process.spawned(77)
    assert (process.pid, await process.ready) == (77, NOTE)


async def test_without_a_zygote_nobody_waits_for_a_pid(
    parts: tuple[ServiceProcess, Any, int],
) -> None:
    process, zygote, _ = parts
    zygote.lost.set()
    process.zygote_lost()
    assert (process.pid, await process.ready) == (None, NOTE)


async def test_one_that_ends_before_its_pid_is_known_was_never_ready(
    parts: tuple[ServiceProcess, Any, int],
) -> None:
    process, _, _ = parts
    process.end(1)
    assert process.ready.cancelled()
    assert await process.exited == 1


def test_a_zygote_that_can_neither_fork_nor_write_why_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    ours, theirs = socket.socketpair()
    ready_fd, ready_write_fd = os.pipe()
    with ours, theirs, os.fdopen(ready_fd) as ready:
        zygote = Zygote(theirs, lifeline_fd=-1, grace_s=1.0)
        request = {"id": 7, "name": "a.thing"}
        zygote._spawn(request, ready_write_fd, os.open("/dev/full", os.O_WRONLY))
        assert json.loads(ours.recv(4096)) == {"event": "exited", "id": 7, "status": 1}
        assert "a.thing cannot be forked" in json.loads(ready.readline())["failed"]
        for fd in (zygote._wake_fd, zygote._wake_write_fd):
            os.close(fd)

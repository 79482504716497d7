"""The name server as a process of its own: ready, killed, started again, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rmi_runtime import Announcer, NameServers, load_or_create_cluster_key
from rmi_runtime.errors import Unavailable
from tests.support import eventually

A = "PYRO:a@127.0.0.1:1001"

SCRIPT = """
import asyncio, sys
from pathlib import Path
from rmi_bank import run_nameserver
from rmi_runtime import Settings
asyncio.run(run_nameserver(Settings(data_dir=Path(sys.argv[1]), ns=(sys.argv[2],))))
"""

Start = Callable[[str], Awaitable[tuple[asyncio.subprocess.Process, dict[str, Any]]]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a name server at a location; returns its process and what it said when ready."""
    processes = []

    async def run(location: str) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
        read_fd, write_fd = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, str(tmp_path), location),
            env={**os.environ, "RMI_READY_FD": str(write_fd)},
            pass_fds=[write_fd],
        )
        processes.append(process)
        os.close(write_fd)
        with os.fdopen(read_fd) as pipe:
            line = await asyncio.to_thread(pipe.readline)
        return process, json.loads(line)

    yield run
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_says_when_it_is_ready_and_stops_when_told(start: Start) -> None:
    process, ready = await start("127.0.0.1:0")
    assert ready["name"] == "Pyro.NameServer"
    assert ready["uri"] == f"PYRO:Pyro.NameServer@{ready['location']}"
    async with NameServers([ready["location"]]) as known:
        assert list(await known.list()) == ["Pyro.NameServer"]
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_killed_and_started_again_it_knows_all_and_is_announced_to(
    start: Start, tmp_path: Path
) -> None:
    process, ready = await start("127.0.0.1:0")
    location = ready["location"]
    handshake = {"cluster_key": load_or_create_cluster_key(tmp_path)}
    async with (
        NameServers([location], handshake=handshake) as known,
        Announcer(known, "x", A, lease_s=1.0) as announcer,
    ):
        await asyncio.wait_for(announcer.announced.wait(), 10)
        await known.call_at(location, "register", "y", A, False, ["red"])
        process.kill()
        await process.wait()
        with pytest.raises(Unavailable):
            await known.lookup("x")
        await start(location)
        assert await known.lookup("y") == A

        async def renewed() -> bool:
            return "x" in await known.list()

        await eventually(renewed)
    async with NameServers([location]) as known:
        assert set(await known.list()) == {"Pyro.NameServer", "y"}


async def test_an_address_for_others_needs_tls_or_the_word_insecure(start: Start) -> None:
    with pytest.raises(json.JSONDecodeError):  # it ends without having been ready
        await start("0.0.0.0:0")

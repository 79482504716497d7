"""What the harness puts into the services' processes: nowhere else, and with effect."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rmi_torture.faults.machine import ClockJump
from rmi_torture.faults.network import NetworkProxy
from rmi_torture.hook import ZYGOTE, environment

# The clock of the system itself is not replaced; the answer is by how much time.time() is off.
CLOCK = """
import sys, time
for _ in sys.stdin:
    print(round(time.time() - time.clock_gettime(time.CLOCK_REALTIME)),
          round((time.time_ns() - time.clock_gettime_ns(time.CLOCK_REALTIME)) / 1e9), flush=True)
"""

ANNOUNCER = """
import sys
from rmi_runtime import Announcer, NameServers
for port in sys.stdin:
    uri = f"PYRO:echo@127.0.0.1:{port.strip()}"
    print(Announcer(NameServers(["127.0.0.1:1"]), "echo", uri).uri, flush=True)
"""


@asynccontextmanager
async def process(
    code: str, variables: dict[str, str], argument: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, argument),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **variables},
    )
    try:
        yield made
    finally:
        made.kill()
        await made.wait()


async def asked(of: asyncio.subprocess.Process, line: str = "") -> str:
    assert of.stdin is not None
    assert of.stdout is not None
    of.stdin.write(f"{line}\n".encode())
    return (await of.stdout.readline()).decode().strip()


async def test_the_clock_of_the_services_jumps_there_and_back(tmp_path: Path) -> None:
    jump = ClockJump(tmp_path / "clock", seed=1)
    variables = environment(tmp_path / "hook", clock=tmp_path / "clock")
    async with process(CLOCK, variables, ZYGOTE) as service:
        assert await asked(service) == "0 0"
        told = await jump.begin("everybody")
        assert told is not None
        assert told["jump_s"] != 0
        assert await asked(service) == f"{told['jump_s']} {told['jump_s']}"
        await jump.end("everybody")
        assert await asked(service) == "0 0"


async def test_other_processes_of_the_system_keep_their_clock(tmp_path: Path) -> None:
    jump = ClockJump(tmp_path / "clock", seed=1)
    variables = environment(tmp_path / "hook", clock=tmp_path / "clock")
    await jump.begin("everybody")
    async with process(CLOCK, variables, "rmi_launch.cli") as other:
        assert await asked(other) == "0 0"


async def test_services_announce_the_address_of_the_proxy(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, NetworkProxy(tmp_path / "control", seed=1) as proxy:
        variables = environment(tmp_path / "hook", proxy=proxy.path)
        async with process(ANNOUNCER, variables, ZYGOTE) as service:
            uri = await asked(service, str(port))
        announced = int(uri.rpartition(":")[2])
        assert announced != port
        reader, writer = await asyncio.open_connection("127.0.0.1", announced)
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.close()


def test_without_anything_to_put_in_nothing_is_put_in(tmp_path: Path) -> None:
    assert environment(tmp_path / "hook") == {}
    assert not (tmp_path / "hook").exists()

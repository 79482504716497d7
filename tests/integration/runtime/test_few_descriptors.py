"""A daemon that may have few files open, and many who say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rmi_runtime import Proxy, client_context

DESCRIPTORS = 256
CROWD = 300

PROGRAM = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
import uvloop
from rmi_runtime import Daemon, server_context

async def main():
    certs = sys.argv[2]
    files = (f"{certs}/localhost.crt", f"{certs}/localhost.key", f"{certs}/ca.crt")
    async with Daemon(ssl=server_context(*files) if certs else None) as daemon:
        print(daemon.location, flush=True)
        await asyncio.Event().wait()

uvloop.run(main())
"""


@contextlib.asynccontextmanager
async def serving(certs: Path | None) -> AsyncIterator[str]:
    arguments = ("-c", PROGRAM, str(DESCRIPTORS), str(certs or ""))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_silent_sockets_lock_nobody_out(certs: Path, encrypted: bool) -> None:
    async with serving(certs if encrypted else None) as location:
        host, _, port = location.rpartition(":")
        with contextlib.ExitStack() as crowd:
            for _ in range(CROWD):
                crowd.enter_context(socket.create_connection((host, int(port))))
            ssl = client_context(certs / "ca.crt") if encrypted else None
            async with Proxy(f"PYRO:Pyro.Daemon@{location}", ssl=ssl, timeout_s=5) as proxy:
                assert await proxy.ping() is None

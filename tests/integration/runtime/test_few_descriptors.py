"""A daemon and an HTTP server that may have few files open, and many who say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rmi_runtime import Proxy, client_context
from tests.support import eventually

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

HTTP_PROGRAM = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
import uvloop
from rmi_runtime import server_context
from rmi_runtime.http import HttpServer, listen

async def main():
    certs = sys.argv[2]
    files = (f"{certs}/localhost.crt", f"{certs}/localhost.key", None)
    async with HttpServer(None) as server:
        await server.start(listen("127.0.0.1", 0), server_context(*files) if certs else None)
        print("%s:%d" % server.address, flush=True)
        await asyncio.Event().wait()

uvloop.run(main())
"""


@contextlib.asynccontextmanager
async def serving(certs: Path | None, program: str = PROGRAM) -> AsyncIterator[str]:
    arguments = ("-c", program, str(DESCRIPTORS), str(certs or ""))
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


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_silent_sockets_lock_nobody_out_over_http(certs: Path, encrypted: bool) -> None:
    async with serving(certs if encrypted else None, HTTP_PROGRAM) as location:
        host, _, port = location.rpartition(":")
        with contextlib.ExitStack() as crowd:
            for _ in range(CROWD):
                crowd.enter_context(socket.create_connection((host, int(port))))
            ssl = client_context(certs / "ca.crt") if encrypted else None

            async def answered() -> bool:
                reader, writer = await asyncio.open_connection(host, int(port), ssl=ssl)
                try:
                    writer.write(b"GET / HTTP/1.1\r\n\r\n")  # without a Host: refused by the server
                    return b" 400 " in await reader.readline()
                except OSError:
                    return False
                finally:
                    writer.transport.abort()

            await eventually(answered)  # once the crowd has been silent for a second

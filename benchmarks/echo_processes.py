"""Daemons that echo and clients that call them, ours and stock, each in a process of its own.

``python -m benchmarks.echo_processes server ours`` prints its URI and serves until its standard
input ends. ``python -m benchmarks.echo_processes client pipelined URI`` prints ``ready``, waits for
a line that tells for how many seconds to run, runs, and prints what it has measured as one line of
JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import Pyro5.api
import uvloop

import rmi_runtime
from benchmarks.helpers import start_helper

WARM_UP_CALLS = 200
GROUPS, GROUP = 4, 128  # pipelined: so many groups in flight, each of so many calls


@rmi_runtime.expose
class Echo:
    """What is called."""

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value

    def rss_bytes(self) -> int:
        """Return the server's resident memory."""
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """Return how many files and sockets the server has open."""
        return len(os.listdir("/proc/self/fd"))


@rmi_runtime.expose
class AsyncEcho(Echo):
    """The same with a coroutine."""

    async def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value


# -- in the processes


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stock_server() -> None:
    daemon = Pyro5.api.Daemon()
    print(daemon.register(Echo(), "echo"), flush=True)
    threading.Thread(target=daemon.requestLoop, daemon=True).start()
    sys.stdin.read()


async def _our_server(echo: Echo) -> None:
    async with rmi_runtime.Daemon() as daemon:
        print(daemon.register(echo, "echo"), flush=True)
        gc.freeze()
        await asyncio.to_thread(sys.stdin.read)


def told_to_start() -> float:
    """Say that this client is ready, and wait to be told for how many seconds to run."""
    print("ready", flush=True)
    return float(sys.stdin.readline())


def _one_at_a_time(call: Callable[[str], Any]) -> dict[str, Any]:
    for _ in range(WARM_UP_CALLS):
        call("warm")
    took: list[float] = []
    seconds = told_to_start()
    began = now = time.perf_counter()
    while now < began + seconds:
        call("hello")
        before, now = now, time.perf_counter()
        took.append(now - before)
    return _measured(took, now - began)


def _measured(took: list[float], seconds: float) -> dict[str, Any]:
    took.sort()
    return {
        "calls_per_s": len(took) / seconds,
        "calls": len(took),
        "p50_us": took[len(took) // 2] * 1e6,
        "p99_us": took[len(took) * 99 // 100] * 1e6,
    }


def _stock_client(uri: str) -> dict[str, Any]:
    with Pyro5.api.Proxy(uri) as proxy:
        return _one_at_a_time(proxy.echo)


def _sync_client(uri: str) -> dict[str, Any]:
    with rmi_runtime.SyncProxy(uri) as proxy:
        return _one_at_a_time(proxy.echo)


async def _async_client(uri: str) -> dict[str, Any]:
    async with rmi_runtime.Proxy(uri) as proxy:
        for _ in range(WARM_UP_CALLS):
            await proxy.echo("warm")
        took: list[float] = []
        seconds = await asyncio.to_thread(told_to_start)
        began = now = time.perf_counter()
        while now < began + seconds:
            await proxy.echo("hello")
            before, now = now, time.perf_counter()
            took.append(now - before)
        return _measured(took, now - began)


async def _pipelined_client(uri: str) -> dict[str, Any]:
    async with rmi_runtime.Proxy(uri) as proxy:
        for _ in range(WARM_UP_CALLS):
            await proxy.echo("warm")
        seconds = await asyncio.to_thread(told_to_start)
        began = time.perf_counter()

        async def keep_calling() -> int:
            calls = 0
            while time.perf_counter() < began + seconds:
                await asyncio.gather(*[proxy.echo("hello") for _ in range(GROUP)])
                calls += GROUP
            return calls

        calls = sum(await asyncio.gather(*[keep_calling() for _ in range(GROUPS)]))
        taken = time.perf_counter() - began
        return {"calls_per_s": calls / taken, "calls": calls}


async def _idle_client(uri: str, count: int) -> None:
    """Hold *count* greeted connections until standard input ends."""
    _raise_file_limit()
    proxies: list[rmi_runtime.Proxy] = []
    for start in range(0, count, 200):
        some = [rmi_runtime.Proxy(uri, timeout_s=60) for _ in range(min(200, count - start))]
        await asyncio.gather(*[proxy._bind() for proxy in some])
        proxies += some
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main(arguments: list[str]) -> None:
    """Be the server or client that the arguments name."""
    role, kind, *rest = arguments
    servers: dict[str, Callable[[], Any]] = {
        "stock": _stock_server,
        "ours": lambda: uvloop.run(_our_server(Echo())),
        "ours-async": lambda: uvloop.run(_our_server(AsyncEcho())),
    }
    plain = {"stock": _stock_client, "sync": _sync_client}
    loops: dict[str, Callable[[str], Awaitable[dict[str, Any]]]] = {
        "async": _async_client,
        "pipelined": _pipelined_client,
    }
    if role == "server":
        _raise_file_limit()
        servers[kind]()
    elif kind == "idle":
        uvloop.run(_idle_client(rest[0], int(rest[1])))
    elif kind in plain:
        print(json.dumps(plain[kind](rest[0])), flush=True)
    else:
        print(json.dumps(uvloop.run(loops[kind](rest[0]))), flush=True)  # type: ignore[arg-type]


# -- to start them


class Peer:
    """One of these processes.

    Args:
        arguments: as on the command line.
        module: which program.
    """

    def __init__(self, *arguments: str, module: str = "benchmarks.echo_processes") -> None:
        self.process = start_helper(module, *arguments)

    def line(self) -> str:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended early")
        return line.strip()

    def start(self, seconds: float) -> None:
        """Tell a client to run."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()

    def cpu_s(self) -> float:
        """Return how much processor time it has used."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """End it and wait for that; nobody waits any more for what it may be measuring."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def server(kind: str) -> Iterator[tuple[str, Peer]]:
    """Run a server (``stock``, ``ours`` or ``ours-async``); yields its URI and itself."""
    peer = Peer("server", kind)
    try:
        yield peer.line(), peer
    finally:
        peer.end()


def run_clients(kind: str, uri: str, count: int, seconds: float) -> list[dict[str, Any]]:
    """Run so many clients of one kind at the same time; return what each measured."""
    return run_peers([Peer("client", kind, uri) for _ in range(count)], seconds)


def run_peers(peers: list[Peer], seconds: float) -> list[dict[str, Any]]:
    """Run clients at the same time and end them; return what each measured."""
    try:
        for peer in peers:
            assert peer.line() == "ready"
        for peer in peers:
            peer.start(seconds)
        return [json.loads(peer.line()) for peer in peers]
    finally:
        for peer in peers:
            peer.end()


if __name__ == "__main__":
    main(sys.argv[1:])

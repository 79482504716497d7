"""Sixteen stock clients in several arrangements, for ``benchmarks.runtime``.

``python -m benchmarks.runtime_clients KIND URI SERIALIZER COUNT`` is one process, COUNT clients:

``threads``
    Pyro5 proxies, each in a thread of its own.
``recorded``
    Connections on which the bytes of a stock client's calls are sent, each when the reply to the
    last one has come: what a server sees of stock clients whose own work is done elsewhere, such as
    on other machines.

It prints ``ready``, waits for a line that tells for how many seconds to run, runs, and prints what
it has measured as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any

import Pyro5.api
import uvloop
from Pyro5 import protocol, serializers

from benchmarks.echo_processes import Peer, run_peers, told_to_start

WARM_UP_CALLS = 100
HEADER_BYTES = 40
LENGTHS = slice(12, 20)


def _print_figures(calls: int, seconds: float, cpu_s: float) -> None:
    figures = {"calls": calls, "calls_per_s": calls / seconds, "cpu_us": cpu_s / calls * 1e6}
    print(json.dumps(figures), flush=True)


def _threads(uri: str, serializer: str, count: int) -> None:
    Pyro5.api.config.SERIALIZER = serializer
    warm, begin = threading.Barrier(count + 1), threading.Event()
    until, calls = [0.0], [0] * count

    def keep_calling(number: int) -> None:
        with Pyro5.api.Proxy(uri) as proxy:
            for _ in range(WARM_UP_CALLS):
                proxy.echo("warm")
            warm.wait()
            begin.wait()
            while time.perf_counter() < until[0]:
                proxy.echo("hello")
                calls[number] += 1

    clients = [threading.Thread(target=keep_calling, args=(n,)) for n in range(count)]
    for client in clients:
        client.start()
    warm.wait()
    seconds = told_to_start()
    used_s, began = time.process_time(), time.perf_counter()
    until[0] = began + seconds
    begin.set()
    for client in clients:
        client.join()
    _print_figures(sum(calls), time.perf_counter() - began, time.process_time() - used_s)


class _Recorded(asyncio.Protocol):
    """One connection: the handshake, then the same call again and again."""

    def __init__(self, object_id: str, serializer: str) -> None:
        self.replies = 0
        self.keep_on = True
        self._kept = b""
        known = serializers.serializers[serializer]
        handshake = known.dumps({"handshake": "hello", "object": object_id})
        call = known.dumpsCall(object_id, "echo", ("hello",), {})
        self._expected = known.dumps("hello")
        self._connect, self._call = (
            protocol.SendingMessage(kind, 0, 0, known.serializer_id, payload).data
            for kind, payload in ((protocol.MSG_CONNECT, handshake), (protocol.MSG_INVOKE, call))
        )

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._connect)

    def data_received(self, data: bytes) -> None:
        data = self._kept + data
        lengths = data[LENGTHS]
        whole = (
            HEADER_BYTES + int.from_bytes(lengths[:4], "big") + int.from_bytes(lengths[4:], "big")
        )
        if len(data) < HEADER_BYTES or len(data) < whole:
            self._kept = data
            return
        self._kept = b""
        if self.replies and not data.endswith(self._expected):
            raise RuntimeError(f"not the reply that was expected: {data!r}")
        self.replies += 1
        if self.keep_on:
            self._transport.write(self._call)


async def _recorded(uri: str, serializer: str, count: int) -> None:
    where = Pyro5.api.URI(uri)
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(count):
        _, client = await loop.create_connection(
            lambda: _Recorded(where.object, serializer), where.host, where.port
        )
        clients.append(client)
    seconds = await asyncio.to_thread(told_to_start)
    before, used_s, began = sum(c.replies for c in clients), time.process_time(), loop.time()
    await asyncio.sleep(seconds)
    calls = sum(c.replies for c in clients) - before
    _print_figures(calls, loop.time() - began, time.process_time() - used_s)
    for client in clients:
        client.keep_on = False


def run_stock(
    kind: str, uri: str, serializer: str, processes: int, each: int, seconds: float
) -> list[dict[str, Any]]:
    """Run so many processes with so many clients each; return what each process measured."""
    arguments = (kind, uri, serializer, str(each))
    peers = [Peer(*arguments, module="benchmarks.runtime_clients") for _ in range(processes)]
    return run_peers(peers, seconds)


def main(kind: str, uri: str, serializer: str, count: str) -> None:
    """Be the clients that the arguments name."""
    if kind == "recorded":
        uvloop.run(_recorded(uri, serializer, int(count)))
    else:
        _threads(uri, serializer, int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])

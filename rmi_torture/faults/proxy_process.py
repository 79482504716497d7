"""A TCP proxy between all services, in a process of its own: ``python -m …`` with a control path.

Each service that starts tells it its name and port, and announces the port that it gets instead. So
every connection between two services, and from a client to one, passes through here, where it can
be cut, slowed down or reset. The control socket (Unix, one JSON object a line each way):

    {"do": "forward", "name": "bank.data", "port": 4711}      -> {"port": 4712}
    {"do": "set", "name": "bank.data", "fault": "delay"}      -> {"known": true}
    {"do": "heal", "name": "bank.data", "fault": "delay"}     -> {"known": true}

A service is known once it has told its port.

It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from random import Random
from typing import Any

CHUNK_SIZE_BYTES = 256 * 1024
DELAY_S = 0.3
RESET_EVERY_S = 0.4
HOST = "127.0.0.1"


class Gate:
    """All connections to one service, and what befalls them.

    Args:
        rng: chooses which connections are reset.
    """

    def __init__(self, rng: Random) -> None:
        self.port = 0
        self._faults: set[str] = set()
        self._calm = {True: asyncio.Event(), False: asyncio.Event()}  # by direction: to the service
        for event in self._calm.values():
            event.set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._rng = rng
        self._resetting: asyncio.Task[None] | None = None
        self.server: asyncio.Server | None = None

    def set(self, fault: str) -> None:
        """Begin a fault."""
        self._faults.add(fault)
        self._update()
        if fault == "loss" and self._resetting is None:
            self._resetting = asyncio.create_task(self._reset_now_and_then())

    def heal(self, fault: str) -> None:
        """End a fault."""
        self._faults.discard(fault)
        self._update()
        if fault == "loss" and self._resetting is not None:
            self._resetting.cancel()
            self._resetting = None

    def _update(self) -> None:
        stopped = {
            True: bool(self._faults & {"partition", "deaf"}),
            False: bool(self._faults & {"partition", "mute"}),
        }
        for inwards, event in self._calm.items():
            event.clear() if stopped[inwards] else event.set()

    async def _reset_now_and_then(self) -> None:
        while True:
            for pair in list(self._pairs):
                if self._rng.random() < 0.5:
                    for writer in pair:
                        writer.transport.abort()
            await asyncio.sleep(RESET_EVERY_S * self._rng.uniform(0.3, 1.7))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the service and back."""
        # In a partition even the handshake of TCP would not come through.
        await self._calm[True].wait()
        try:
            inner_reader, inner_writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, inner_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pump(reader, inner_writer, True), self._pump(inner_reader, writer, False)
            )
        except OSError:
            pass
        finally:
            self._pairs.discard(pair)
            for one in pair:
                one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inwards: bool
    ) -> None:
        try:
            while data := await reader.read(CHUNK_SIZE_BYTES):
                if "delay" in self._faults:
                    await asyncio.sleep(DELAY_S * self._rng.uniform(0.2, 1.8))
                await self._calm[inwards].wait()
                writer.write(data)
                await writer.drain()
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()


class ProxyServer:
    """All gates, and the control socket.

    Args:
        seed: of the resets.
    """

    def __init__(self, seed: int) -> None:
        self._gates: dict[str, Gate] = {}
        self._rng = Random(seed)  # noqa: S311 (repeatable on purpose)

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry out orders."""
        try:
            while line := await reader.readline():
                answer = await self._obey(json.loads(line))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        name = order["name"]
        gate = self._gates.get(name)
        if order["do"] == "forward":
            return {"port": await self._forward(name, int(order["port"]))}
        if gate is not None:
            (gate.set if order["do"] == "set" else gate.heal)(order["fault"])
        return {"known": gate is not None}

    async def _forward(self, name: str, port: int) -> int:
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = Gate(Random(self._rng.random()))  # noqa: S311
        gate.port = port
        # A service that is started again gets another port here too, as it would without us.
        if gate.server is not None:
            gate.server.close()
        gate.server = await asyncio.start_server(gate.serve, HOST, 0, limit=CHUNK_SIZE_BYTES)
        found: int = gate.server.sockets[0].getsockname()[1]
        return found


async def _main(path: str, seed: int) -> None:
    proxy = ProxyServer(seed)
    server = await asyncio.start_unix_server(proxy.control, path)
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def on_input() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin)
            over.set()

    loop.add_reader(sys.stdin, on_input)
    print("ready", flush=True)
    async with server:
        await over.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(sys.argv[1], int(sys.argv[2])))

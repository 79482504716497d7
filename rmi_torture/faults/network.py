"""Faults of the network: the means are a proxy that every connection passes through."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rmi_runtime.errors import Unavailable
from rmi_torture.faults.base import Value

START_S = 20.0
STOP_S = 5.0


class NetworkProxy:
    """The proxy process, and the way to give it orders; an async context manager.

    Args:
        path: where its control socket goes.
        seed: of what it leaves to chance.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self._seed = seed
        self._process: asyncio.subprocess.Process | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> NetworkProxy:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rmi_torture.faults.proxy_process"),
            *(str(self.path), str(self._seed)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C on the terminal is the harness' to act on. It ends with its input.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                if not await self._process.stdout.readline():
                    raise Unavailable("the proxy of the network faults did not start")
                self._streams = await asyncio.open_unix_connection(str(self.path))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def order(self, **order: Any) -> dict[str, Any]:
        """Have an order carried out."""
        assert self._streams is not None
        reader, writer = self._streams
        async with self._turn:
            writer.write(json.dumps(order).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline())
            return answer


class NetworkFault:
    """One kind of fault, at the services' doors.

    Args:
        proxy: carries it out.
        fault: ``partition``, ``deaf``, ``mute``, ``delay`` or ``loss``.
    """

    def __init__(self, proxy: NetworkProxy, fault: str) -> None:
        self._proxy = proxy
        self._fault = fault
        self._struck: set[str] = set()

    async def begin(self, target: str) -> Value | None:
        """Begin it; nothing is done to a service that does not go through the proxy."""
        answer = await self._proxy.order(do="set", name=target, fault=self._fault)
        if not answer["known"]:
            return None
        self._struck.add(target)
        return {}

    async def end(self, target: str) -> Value | None:
        """End it."""
        self._struck.discard(target)
        await self._proxy.order(do="heal", name=target, fault=self._fault)
        return {}

    async def heal(self) -> None:
        """End it everywhere."""
        for target in list(self._struck):
            await self.end(target)

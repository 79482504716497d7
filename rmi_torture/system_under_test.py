"""The real system, as its users start it: ``rmi up`` in its own directory, on free ports.

Nothing in here knows what the services do. Faults act on their processes, by the ids that
``rmi up`` writes down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Any

from rmi_runtime.errors import Unavailable
from rmi_torture import belongings

START_S = 120.0
STOP_S = 60.0
POLL_S = 0.02
LINES_KEPT = 200


@dataclass(frozen=True)
class Service:
    """One service as ``rmi up`` last wrote it down.

    Attributes:
        name: its Pyro name, or ``gateway``.
        pid: its process, or None between two.
        state: ``ready``, ``starting``, ``waiting``, …
        restarts: how often it was started again.
    """

    name: str
    pid: int | None
    state: str
    restarts: int


class RunningSystem(ABC):
    """What faults and workloads know of a system, however it was started.

    Args:
        data_dir: where the data object's data are.
        environment: more variables for all its services.

    Attributes:
        name_server: ``host:port``.
        ssl: client context for TLS, or None if it has none.
        output: the last lines it printed.
    """

    ssl: SSLContext | None = None

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self.name_server = ""
        self.output: list[str] = []
        self._mark = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._environment = {**environment, belongings.VARIABLE: self._mark}

    @abstractmethod
    def url(self) -> str:
        """Return where the gateway is: started again, it may have moved."""

    @abstractmethod
    def services(self) -> dict[str, Service]:
        """Return the services, by name."""

    def _printed(self, line: bytes) -> str:
        """Keep a line, and return its text."""
        text = line.decode(errors="replace").rstrip()
        self.output = [*self.output, text][-LINES_KEPT:]
        return text

    def _let_go_on(self) -> None:
        """Wake all services: who is stopped cannot be asked to end."""
        for service in self.services().values():
            if service.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(service.pid, signal.SIGCONT)

    def pid(self, name: str) -> int | None:
        """Return the process of a service, None while it has none."""
        service = self.services().get(name)
        return service.pid if service is not None and service.state == "ready" else None

    def signal(self, name: str, number: signal.Signals) -> int | None:
        """Send a signal to a service.

        Returns:
            The process it went to; None if there was none.
        """
        pid = self.pid(name)
        if pid is None:
            return None
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return None
        return pid

    async def until(self, holds: Callable[[], bool], timeout_s: float = START_S) -> bool:
        """Wait until *holds*; return whether it did in time."""
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def all_ready(self, timeout_s: float = START_S) -> bool:
        """Wait until every service is ready; return whether it was in time."""
        return await self.until(
            lambda: all(service.state == "ready" for service in self.services().values()),
            timeout_s,
        )

    def tokens(self) -> dict[int, str]:
        """Return the demonstration's tokens, by client."""
        entries = json.loads((self.data_dir / "demo-tokens.json").read_text())
        return {int(entry["client"]): str(entry["token"]) for entry in entries}

    def setting(self, variable: str, default: str) -> str:
        """Return what an environment variable of the system is."""
        return self._environment.get(variable, default)

    def cluster_key(self) -> str:
        """Return the key by which services know each other."""
        return (self.data_dir / "cluster.key").read_text().strip()


class SystemUnderTest(RunningSystem):
    """A running ``rmi up --demo``; an async context manager.

    Args:
        data_dir: its data directory; must exist and should be empty.
        arguments: more arguments for ``rmi up``.
        environment: more variables for it and all its services.
    """

    def __init__(
        self,
        data_dir: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir, environment or {})
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def __aenter__(self) -> SystemUnderTest:
        command = [str(Path(sys.executable).with_name("rmi")), "up", "--demo"]
        command += ["--data-dir", str(self.data_dir), "--http", "127.0.0.1:0"]
        command += ["--ns", "127.0.0.1:0", *self._arguments]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(START_S):
                await self._ready.wait()
            if self._process.returncode is not None or not self._running()["services"]:
                raise TimeoutError
            self.name_server = str(self._running()["ns"][0])
        except TimeoutError:
            await self.stop()
            said = "\n".join(self.output)
            raise Unavailable(f"the system did not become ready; it said:\n{said}") from None
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self.end()
        else:
            await self.stop()

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if self._printed(line).startswith("ready: "):
                self._ready.set()
        self._ready.set()

    async def end(self) -> None:
        """Kill all of it, at once."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await belongings.end_all(self._mark)
            await process.wait()
            if self._reading is not None:
                await self._reading

    async def stop(self) -> int:
        """Stop it as Ctrl-C does; if that does not help, or the caller is cancelled, end it.

        Returns:
            Its exit code.
        """
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            return await self._stop_gently(process)
        finally:
            # Nobody is to be left, however it ended.
            await belongings.end_all(self._mark)
            await process.wait()
            if self._reading is not None:
                await self._reading

    async def _stop_gently(self, process: asyncio.subprocess.Process) -> int:
        self._let_go_on()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(STOP_S):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

    def _running(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.data_dir / "running.json").read_text())
        except FileNotFoundError:
            return {"services": []}
        return found

    def url(self) -> str:
        """Return where the gateway is: started again, it may have moved."""
        return f"http://{self._running().get('http', '127.0.0.1:1')}"

    def services(self) -> dict[str, Service]:
        """Return the services, by name."""
        return {
            entry["name"]: Service(entry["name"], entry["pid"], entry["state"], entry["restarts"])
            for entry in self._running()["services"]
        }

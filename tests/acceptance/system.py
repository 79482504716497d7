"""The whole system in real processes, as a user starts it, on free ports, in its own directory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import sync_eventually

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
READY_S = 60.0
STOP_S = 40.0


class System:
    """A running ``rmi up``.

    Args:
        data_dir: its data directory.
        arguments: more arguments for ``rmi up``.

    Attributes:
        url: of the gateway.
        name_server: ``host:port``.
        output: what ``rmi up`` has printed so far, in lines.
    """

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        self.arguments = arguments
        self.url = ""
        self.output: list[str] = []
        self._ready = threading.Event()

    def start(self) -> System:
        """Start it and wait until it says that it is ready."""
        command = [str(BIN / "rmi"), "up", "--data-dir", str(self.data_dir)]
        command += ["--http", "127.0.0.1:0", "--ns", "127.0.0.1:0", *self.arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.data_dir
        )
        threading.Thread(target=self._read, daemon=True).start()
        if not self._ready.wait(READY_S) or not self.url:
            self.kill()
            raise AssertionError("the system did not become ready:\n" + "\n".join(self.output))
        return self

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line.rstrip())
            if line.startswith("ready: "):
                self.url = line.split()[1].strip()
                self._ready.set()
        self._ready.set()

    def stop(self) -> int:
        """Stop it as Ctrl-C does, and return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """End it at once, if it runs; its services follow by themselves."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def running(self) -> dict[str, Any]:
        """Return what ``rmi up`` wrote down of the services."""
        found: dict[str, Any] = json.loads((self.data_dir / "running.json").read_text())
        return found

    @property
    def name_server(self) -> str:
        """Where the name server listens."""
        return str(self.running()["ns"][0])

    def service(self, name: str) -> dict[str, Any]:
        """Return one service's entry: name, address, pid, state, restarts."""
        found: dict[str, Any] = next(s for s in self.running()["services"] if s["name"] == name)
        return found

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of the services that begin with *prefix*."""
        return [s["name"] for s in self.running()["services"] if s["name"].startswith(prefix)]

    def kill_service(self, name: str) -> int:
        """Kill one service with SIGKILL and return its process id."""
        pid = int(self.service(name)["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_restarted(self, name: str, old_pid: int, timeout_s: float = 20.0) -> None:
        """Wait until another process serves under *name*."""

        def restarted() -> bool:
            service = self.service(name)
            assert service["state"] == "ready", service
            assert service["pid"] not in (None, old_pid), service
            return True

        sync_eventually(restarted, timeout_s=timeout_s, every_s=0.05)

    def tokens(self) -> dict[int, str]:
        """Return the demonstration's tokens by client."""
        entries = json.loads((self.data_dir / "demo-tokens.json").read_text())
        return {entry["client"]: entry["token"] for entry in entries}

    def log(self, name: str) -> list[str]:
        """Return the lines of a service's operation log."""
        return (self.data_dir / "log" / f"{name}.log").read_text().splitlines()

    def run(self, *command: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, from this project's root, in this project's environment."""
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=timeout_s, check=False
        )

    def client(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts of ``clients/``."""
        return self.run(sys.executable, f"clients/{script}.py", *arguments)

    def rmi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``rmi`` against this system."""
        return self.run(str(BIN / "rmi"), *arguments, "--data-dir", str(self.data_dir))


@contextlib.contextmanager
def running_system(data_dir: Path, *arguments: str) -> Iterator[System]:
    """Yield a system that is ready; it is stopped afterwards, whatever happens."""
    system = System(data_dir, *arguments)
    try:
        yield system.start()
    finally:
        system.kill()

"""A real ``rmi up`` in a process of its own, on free ports, and the commands that ask it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.processes import alive

RMI = [sys.executable, "-P", "-c", "from rmi_launch.cli import main; main()"]
SMALL = ["--business", "1", "--loggers", "1", "--messages", "1"]


class Up:
    """A running ``rmi up`` on free ports."""

    def __init__(self, process: subprocess.Popen[str], data_dir: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self.lines: list[str] = []

    def until(self, start: str) -> str:
        """Read on until a line begins with *start*; return the rest of that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return line.removeprefix(start).strip()
        raise AssertionError(f"no line {start!r} in:\n" + "\n".join(self.lines))

    def running(self) -> dict[str, Any]:
        """What it wrote about itself."""
        running: dict[str, Any] = json.loads((self.data_dir / "running.json").read_text())
        return running

    def service(self, name: str) -> dict[str, Any]:
        """What it wrote about one of its services."""
        found: dict[str, Any] = next(s for s in self.running()["services"] if s["name"] == name)
        return found

    def pids(self) -> list[int]:
        """The processes of its services."""
        return [service["pid"] for service in self.running()["services"]]


def rmi(*args: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [*RMI, *args, "--data-dir", str(data_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@contextlib.contextmanager
def up(
    data_dir: Path, *args: str, before: Sequence[str] = (), cwd: Path | None = None
) -> Iterator[Up]:
    """Start ``rmi up``, and leave nothing of it behind."""
    command = [*before, *RMI, "up", "--http", "127.0.0.1:0", "--ns", "127.0.0.1:0"]
    command += ["--data-dir", str(data_dir), *SMALL, *args]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd
    ) as process:
        try:
            yield Up(process, data_dir)
        finally:
            process.kill()


def gone(pids: list[int]) -> bool:
    """Say whether none of *pids* runs (a zombie does not)."""
    return not any(alive(pid) for pid in pids)

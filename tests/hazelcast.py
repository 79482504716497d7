"""Real Hazelcast members for tests: three of them, started by ``rmi hazelcast member``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rmi_msg.hazelcast.install import install_hazelcast, lib_dir
from rmi_runtime import errors
from tests.ports import free_member_ports

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
START_S = 90.0


def fetched() -> Path:
    """Return the directory of the jars, fetched once into the checkout's own data directory.

    Where that is impossible, the test is skipped; it fails if RMI_REQUIRE_HAZELCAST is 1.
    """
    try:
        return install_hazelcast(ROOT / "var")
    except errors.RmiError as error:
        if os.environ.get("RMI_REQUIRE_HAZELCAST") == "1":
            pytest.fail(f"Hazelcast is required here: {error}")
        pytest.skip(f"no Hazelcast here: {error.message.partition('.')[0]}")


def link_jars(data_dir: Path) -> None:
    """Let *data_dir* use the jars that were fetched already."""
    lib = lib_dir(data_dir)
    lib.parent.mkdir(parents=True, exist_ok=True)
    lib.symlink_to(fetched(), target_is_directory=True)


class Members:
    """Three members. One that dies is started again by the process that owns it.

    Args:
        data_dir: for their files.
        count: how many.
    """

    def __init__(self, data_dir: Path, count: int = 3) -> None:
        link_jars(data_dir)
        base = free_member_ports(count)
        self.data_dir = data_dir
        self.addresses = tuple(f"127.0.0.1:{base + n}" for n in range(count))
        self._owners: dict[int, subprocess.Popen[str]] = {}

    def start(self) -> Members:
        for number in self.numbers:
            self.start_owner(number)
        for number in self.numbers:
            self.wait_ready(number)
        return self

    @property
    def numbers(self) -> range:
        return range(1, len(self.addresses) + 1)

    def start_owner(self, number: int) -> None:
        """Start the process that starts, or takes over, member *number*."""
        command = [str(BIN / "rmi"), "hazelcast", "member", "--id", str(number)]
        command += ["--listen", self.addresses[number - 1], "--data-dir", str(self.data_dir)]
        command += ["--hazelcast-members", ",".join(self.addresses), "--start-wait-s", str(START_S)]
        self._owners[number] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.data_dir
        )

    def wait_ready(self, number: int) -> None:
        owner = self._owners[number]
        assert owner.stdout is not None
        said = []
        for line in owner.stdout:
            said.append(line)
            if line.startswith("member ") and line.rstrip().endswith("ready"):
                # What it says from now on must not fill the pipe.
                threading.Thread(target=owner.stdout.read, daemon=True).start()
                return
        raise AssertionError("the member did not become ready:\n" + "".join(said))

    def kill_owner(self, number: int) -> None:
        self._owners[number].kill()
        self._owners[number].wait()

    def wait_ended(self, number: int) -> None:
        """Wait until the process that owns member *number* has ended, as it was told to."""
        assert self._owners[number].wait(START_S) == 0

    def note(self, number: int) -> dict[str, int]:
        """Return what the member file says: the processes ``keeper`` and ``member``."""
        path = self.data_dir / "hazelcast" / f"member-{number}.lock"
        for tries_left in range(100, -1, -1):
            try:
                note: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:  # it is being written
                if not tries_left:
                    raise
            else:
                return note
        raise AssertionError("not reached")

    def signal(self, number: signal.Signals, *members: int) -> None:
        """Send a signal to the JVMs of *members*, one directly after the other."""
        pids = [self.note(member)["member"] for member in members]
        for pid in pids:
            os.kill(pid, number)

    def signal_owner(self, number: signal.Signals, member: int) -> None:
        """Send a signal to the process that owns *member*."""
        self._owners[member].send_signal(number)

    def stop(self) -> None:
        for owner in self._owners.values():
            owner.terminate()
        deadline = time.monotonic() + START_S
        for owner in self._owners.values():
            owner.wait(max(1.0, deadline - time.monotonic()))

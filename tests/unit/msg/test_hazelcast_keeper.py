"""The keeper of a member, with another program in place of Java."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rmi_msg.hazelcast import keeper, locks
from rmi_msg.hazelcast.member import (
    find_members,
    running_members,
)
from rmi_runtime import Settings
from tests.support import eventually

GRACE_S = 0.5
LIVES_ON = "import signal, time; print('up', flush=True); time.sleep(600)"
LEAVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('leaving', flush=True), sys.exit(0)))
print('up', flush=True)
time.sleep(600)
"""


class Kept:
    """A keeper with a program, owned by this process."""

    def __init__(self, directory: Path, program: str) -> None:
        self.member_file = directory / "member-1.lock"
        self.owner_file = directory / "member-1.owner"
        self.output = directory / "output"
        self.owner_fd = os.open(self.owner_file, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self.owner_fd, fcntl.LOCK_EX)
        command = [sys.executable, "-I", keeper.__file__]
        command += ["--member-file", str(self.member_file), "--owner-file", str(self.owner_file)]
        command += ["--note", '{"address": "a:1"}', "--grace-s", str(GRACE_S), "--"]
        command += [sys.executable, "-c", program]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def note(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.member_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    async def up(self) -> int:
        """Wait until the program runs; return its process id."""
        await eventually(lambda: "up" in self.output.read_text(encoding="utf-8"))
        return int(self.note()["member"])

    async def ended(self) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), 20)


@pytest.fixture
def kept(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Kept]:
    one = Kept(tmp_path, getattr(request, "param", LIVES_ON))
    try:
        yield one
    finally:
        pid = one.note().get("member", 0)
        if one.process.poll() is None:
            os.kill(pid, signal.SIGKILL)
            one.process.wait()
        os.close(one.owner_fd)


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"
    except OSError:
        return False


async def test_the_keeper_ends_with_its_member(kept: Kept) -> None:
    os.kill(await kept.up(), signal.SIGKILL)
    assert await kept.ended() == 128 + signal.SIGKILL


@pytest.mark.parametrize("kept", [LEAVES], indirect=True)
async def test_a_stop_is_passed_on_to_the_member(kept: Kept) -> None:
    await kept.up()
    kept.process.terminate()
    assert await kept.ended() == 0
    assert "leaving" in kept.output.read_text(encoding="utf-8")


@pytest.mark.parametrize("kept", [LEAVES], indirect=True)
async def test_a_member_that_nobody_owns_is_stopped(kept: Kept) -> None:
    await kept.up()
    fcntl.flock(kept.owner_fd, fcntl.LOCK_UN)  # as the kernel does for a logger that died
    assert await kept.ended() == 0
    assert "leaving" in kept.output.read_text(encoding="utf-8")


@pytest.mark.parametrize("kept", [LEAVES], indirect=True)
async def test_a_new_owner_within_the_grace_keeps_the_member(kept: Kept) -> None:
    await kept.up()
    fcntl.flock(kept.owner_fd, fcntl.LOCK_UN)
    fcntl.flock(kept.owner_fd, fcntl.LOCK_EX)
    with pytest.raises(subprocess.TimeoutExpired):
        await asyncio.to_thread(kept.process.wait, 3 * GRACE_S)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_killed_keeper_leaves_no_member_behind(kept: Kept) -> None:
    pid = await kept.up()
    kept.process.kill()
    await kept.ended()
    await eventually(lambda: not exists(pid))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk here is always full")
async def test_a_member_whose_file_finds_no_room_on_the_disk_ends_and_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "member-1.lock").symlink_to("/dev/full")
    kept = Kept(tmp_path, LIVES_ON)
    try:
        assert await kept.ended() == 1
    finally:
        kept.process.kill()  # its program ends with it
        os.close(kept.owner_fd)
    assert "member-1.lock cannot be written: " in kept.output.read_text(encoding="utf-8")


async def test_running_members_are_found_by_their_files(kept: Kept, tmp_path: Path) -> None:
    await kept.up()
    data_dir = tmp_path / "data"
    (data_dir / "hazelcast").mkdir(parents=True)
    (data_dir / "hazelcast" / "member-1.lock").hardlink_to(kept.member_file)
    settings = Settings(data_dir=data_dir)
    assert find_members(settings) == (("a:1",), "rmi")
    assert running_members(data_dir) == {"a:1"}
    kept.process.kill()
    await kept.ended()
    assert find_members(settings) == ((), "rmi")
    assert running_members(data_dir) == set()


def test_who_only_looks_at_the_lock_keeps_no_member_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, starting = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    fcntl.flock(looking, fcntl.LOCK_EX)

    def pause(pause_s: float) -> None:
        fcntl.flock(looking, fcntl.LOCK_UN)

    monkeypatch.setattr(keeper, "time", SimpleNamespace(sleep=pause))
    assert keeper._lock(starting)
    os.close(looking)
    os.close(starting)


@pytest.mark.parametrize("before", ["", '{"member": 1}', json.dumps({"address": "a" * 2000})])
def test_a_note_is_written_over_whatever_was_there(tmp_path: Path, before: str) -> None:
    path = tmp_path / "member-1.lock"
    path.write_text(before, encoding="utf-8")
    with path.open("r+b") as file:
        keeper._write_over(file.fileno(), b'{"member": 22}')
    assert path.read_bytes() == b'{"member": 22}'


def test_who_looks_at_the_lock_is_no_member_to_others_who_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.touch()
    close = os.close
    at_the_same_time: list[bool] = []

    def look_once_more(fd: int) -> None:
        monkeypatch.setattr(os, "close", close)
        at_the_same_time.append(locks.is_locked(path))
        close(fd)

    monkeypatch.setattr(os, "close", look_once_more)
    assert not locks.is_locked(path)
    assert at_the_same_time == [False]

"""Faults of the machine: its disk is full, its clock jumps, its power is gone."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
from pathlib import Path
from random import Random

from rmi_runtime.errors import Unavailable
from rmi_torture.faults.base import Value
from rmi_torture.system_under_test import RunningSystem

DISK_SIZE_MIB = 4096
JUMP_S_MAX = 86_400 * 400
_CLONE_NEWNS = 0x00020000


def may_mount() -> bool:
    """Tell whether this process may mount a disk of its own."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


def own_mounts() -> None:
    """Let what this process mounts be seen by it and its children only, and end with them.

    Raises:
        Unavailable: the system does not allow it.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNS) != 0:
        why = os.strerror(ctypes.get_errno())
        raise Unavailable(f"no mounts of our own: {why}; run as root, or without the fault 'full'")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def mount_small_disk(directory: Path) -> None:
    """Mount a disk of bounded size, in memory, on *directory*."""
    size = f"size={DISK_SIZE_MIB}m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(directory)], check=True)


def unmount(directory: Path) -> None:
    """Take away what :func:`mount_small_disk` mounted, with all that is on it."""
    # Lazily: somebody may still have a file open there. What is left goes with this process.
    subprocess.run(["umount", "--lazy", str(directory)], check=False)


class DiskFull:
    """The system's disk has no room left, for every process and every file: real ENOSPC.

    Args:
        directory: on a disk of its own, made by :func:`mount_small_disk`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._full = False

    async def begin(self, target: str) -> Value | None:
        """Shrink the disk to what is on it."""
        self._full = True
        for slack_kib in (16, 64, 256, 1024):
            # It may have grown between the look and the shrinking, and then it cannot be shrunk.
            found = os.statvfs(self._directory)
            used_kib = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
            if await self._resize(f"{used_kib + slack_kib}k"):
                return {"used_kib": used_kib, "slack_kib": slack_kib}
        return None

    async def end(self, target: str) -> Value | None:
        """Make room again."""
        self._full = False
        await self._resize(f"{DISK_SIZE_MIB}m")
        return {}

    async def heal(self) -> None:
        """Make room again."""
        if self._full:
            await self.end("")

    async def _resize(self, size: str) -> bool:
        options = f"remount,size={size}"
        process = await asyncio.create_subprocess_exec(
            *("mount", "-o", options, str(self._directory)),
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait() == 0


class ClockJump:
    """The time of day jumps, by up to a year, there and back; the monotonic clock goes on.

    The hook in the services adds what the file says to ``time.time`` and ``time.time_ns``.
    (libfaketime would do it without a hook; but under it, Python's threads miss their wake-ups.)

    Args:
        file: eight bytes: the jump in seconds, little-endian.
        seed: of the jumps.
    """

    def __init__(self, file: Path, seed: int) -> None:
        self._file = file
        self._rng = Random(f"clock/{seed}")  # noqa: S311 (repeatable on purpose)
        self._file.write_bytes(bytes(8))

    async def begin(self, target: str) -> Value | None:
        """Jump, often a little, seldom far."""
        jump_s = int(self._rng.choice((-1, 1)) * JUMP_S_MAX ** self._rng.random())
        self._set(jump_s)
        return {"jump_s": jump_s}

    async def end(self, target: str) -> Value | None:
        """Jump back."""
        self._set(0)
        return {}

    async def heal(self) -> None:
        """Jump back."""
        self._set(0)

    def _set(self, jump_s: int) -> None:
        with self._file.open("r+b", buffering=0) as file:
            file.write(jump_s.to_bytes(8, "little", signed=True))


class PowerCut:
    """SIGKILL to the data object, whose disk forgets what was not synced.

    Args:
        system: started with the hook of a forgetful disk.
    """

    def __init__(self, system: RunningSystem) -> None:
        self._system = system

    async def begin(self, target: str) -> Value | None:
        """Cut."""
        pid = self._system.signal(target, signal.SIGKILL)
        return None if pid is None else {"pid": pid}

    async def end(self, target: str) -> Value | None:
        """Nothing: the supervisor starts it again."""
        return None

    async def heal(self) -> None:
        """Nothing."""

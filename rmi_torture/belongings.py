"""All processes of a system, also those whose parents have died: by a mark in their environment.

A process inherits its parent's environment, and Linux shows the one it was started with. So the
mark finds services, members and their keepers, wherever they hang by now.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

VARIABLE = "TORTURE_MARK"
GONE_S = 10.0
POLL_S = 0.02


def marked(mark: str) -> list[int]:
    """Return the ids of the living processes that have *mark*; none where there is no ``/proc``."""
    entry = f"{VARIABLE}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        # It may have ended since, or be a zombie, or somebody else's.
        with contextlib.suppress(OSError):
            if entry in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


async def end_all(mark: str) -> list[int]:
    """Kill all processes that have *mark*, and wait until they are gone.

    Returns:
        Those that there were.
    """
    struck: set[int] = set()
    deadline_s = time.monotonic() + GONE_S
    while (left := marked(mark)) and time.monotonic() < deadline_s:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        struck.update(left)
        await asyncio.sleep(POLL_S)
    return sorted(struck)

"""Locks on files, by which processes of one machine know of each other."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def try_lock(fd: int) -> bool:
    """Take the lock on an open file, unless another has it; return whether it was taken."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Say whether somebody has the lock on a file.

    For that, it is shared for a moment: who looks is not taken for an owner by others who look.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)

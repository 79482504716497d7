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
    """Say whether somebody has the lock on a file. For that, it is taken for a moment."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd)
    finally:
        os.close(fd)

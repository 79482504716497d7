"""Who may write a file that takes one writer: whoever has locked the file beside it."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from rmi_runtime.errors import Conflict

log = logging.getLogger(__name__)


def lock_beside(path: Path, why_one: str) -> int:
    """Become the one writer of *path*, by a lock on ``PATH.lock`` that ends with the process.

    The lock's file is never renamed or removed, so there is one lock for the name, whatever happens
    to *path* itself.

    Args:
        path: what is to be written.
        why_one: what two writers would do, for the one that is refused.

    Returns:
        A descriptor: *path* is this process's until it is closed.

    Raises:
        Conflict: another process is the writer.
        OSError: the lock's file cannot be opened.
    """
    fd = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Conflict(
            f"{path} is being written by another process, and {why_one}; is the same service "
            "running twice?",
            path=str(path),
        ) from None
    except OSError as error:
        # Some network file systems cannot lock; the file can be written there as well.
        log.warning("cannot lock %s: %s", path, error)
    return fd

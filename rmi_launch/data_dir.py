"""The data directory as the launcher uses it.

    DATA_DIR/rmi.lock          held (flock) by ``rmi up`` and every process it started
    DATA_DIR/running.json      where the running system is; absent when none runs
    DATA_DIR/log/NAME.out      what a process printed; NAME.out.1 is the part before
    DATA_DIR/log/NAME.log      what a service logged, in its own line format; NAME.log.1 and so on
                               are the older files, NAME.log.lock is held by the one writer

The databases, the cluster key and the demonstration tokens beside them belong to the services.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict, cast

import msgspec

from rmi_runtime.errors import Conflict, InvalidRequest

LOCK_POLL_S = 0.05

PATH_BYTES_MAX = 480
"""SQLite opens files whose whole path has 504 bytes at most: room for the longest name is left."""


class DataDirUnusable(InvalidRequest):
    """The data directory cannot be made or written."""

    code = "data_dir_unusable"


class DataDirInUse(Conflict):
    """Another ``rmi up`` runs on this data directory. ``fields['pid']`` is its process, or 0."""

    code = "data_dir_in_use"


def prepare(data_dir: Path) -> Path:
    """Make *data_dir* and its log directory, readable by their owner only.

    Returns:
        The log directory.

    Raises:
        DataDirUnusable: it cannot be made, or not be written.
    """
    log_dir = data_dir / "log"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_dir.mkdir(mode=0o700, exist_ok=True)
        size_bytes = len(os.fsencode(os.path.realpath(data_dir)))
    except (FileExistsError, NotADirectoryError) as error:
        raise DataDirUnusable(
            f"data directory {data_dir} cannot be used: {_in_the_way(error.filename)}",
            path=str(data_dir),
        ) from None
    except OSError as error:
        raise _unusable(data_dir, error) from None
    if size_bytes > PATH_BYTES_MAX:
        raise DataDirUnusable(
            f"data directory {data_dir} cannot be used: its whole path has {size_bytes} bytes, and "
            f"the databases in it take {PATH_BYTES_MAX}; choose a shorter one with --data-dir",
            path=str(data_dir),
        )
    for directory in (data_dir, log_dir):
        if not os.access(directory, os.W_OK | os.X_OK):
            raise _unusable(directory, PermissionError(0, "no permission to write there"))
    return log_dir


def _in_the_way(path: str) -> str:
    """Return what is where a directory should be, and what to do about it."""
    if os.path.islink(path) and not os.path.exists(path):
        return (
            f"{path} is a link to {os.readlink(path)}, which is not there; mount or make that, "
            "or choose another with --data-dir"
        )
    return f"{path} is a file, or below one; choose another with --data-dir, or move the file away"


def _unusable(path: Path, error: OSError) -> DataDirUnusable:
    return DataDirUnusable(
        f"data directory {path} cannot be used: {error.strerror}; "
        "choose another with --data-dir, or make this one writable",
        path=str(path),
    )


@contextlib.contextmanager
def locked(data_dir: Path, wait_s: float) -> Iterator[int]:
    """Hold *data_dir* for one running system.

    Every process that inherits the yielded descriptor holds the lock too: it is free only when
    the last of them has ended.

    Args:
        data_dir: directory made by :func:`prepare`.
        wait_s: how long to wait for what is left of a system whose ``rmi up`` has died.

    Yields:
        The descriptor of the lock file.

    Raises:
        DataDirInUse: somebody else holds it.
        DataDirUnusable: the lock file cannot be opened, or not be locked.
    """
    path = data_dir / "rmi.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        deadline = time.monotonic() + wait_s
        while not _try_lock(fd, data_dir):
            holder = _holder(fd)
            if _alive(holder):
                raise DataDirInUse(
                    f"data directory {data_dir} is in use by another rmi up (process {holder}); "
                    "stop that one, or choose another directory with --data-dir",
                    path=str(data_dir),
                    pid=holder,
                )
            if time.monotonic() > deadline:
                raise DataDirInUse(
                    f"data directory {data_dir} is in use by services of an rmi up that has ended "
                    f"(process {holder}); they have not ended within {wait_s:g} s: end them, or "
                    "choose another directory with --data-dir",
                    path=str(data_dir),
                    pid=holder,
                )
            time.sleep(LOCK_POLL_S)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield fd
    finally:
        os.close(fd)


def _try_lock(fd: int, data_dir: Path) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # as on some network file systems
        raise DataDirUnusable(
            f"data directory {data_dir} cannot be used: nothing can be locked there "
            f"({error.strerror}); choose one on a disk of this machine with --data-dir",
            path=str(data_dir),
        ) from None
    return True


def _holder(fd: int) -> int:
    digits = os.pread(fd, 20, 0)
    return int(digits) if digits.isdigit() else 0


def _alive(pid: int) -> bool:
    """Say whether the process *pid* runs (0 stands for none)."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:
        return False
    # One that has ended stays in the table until its parent asks; in a container that may be never.
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return not Path("/proc/self/stat").exists()
    return state not in "ZX"


class _Service(TypedDict):
    """What ``running.json`` says of a service."""

    name: str
    address: str
    pid: int | None
    state: str
    restarts: int


class _Running(TypedDict):
    """What ``running.json`` says."""

    pid: int
    ns: list[str]
    http: str
    tls: dict[str, str]
    services: list[_Service]


def write_running(data_dir: Path, running: dict[str, Any]) -> None:
    """Replace ``running.json``, whole or not at all.

    Args:
        data_dir: the data directory.
        running: ``pid`` of rmi up, ``ns`` (list of addresses), ``http``, ``tls`` (the settings for
            it that are not empty), and ``services``: a list of name, address, pid, state and
            restarts of each.
    """
    path = data_dir / "running.json"
    new = path.with_name("running.json.new")
    new.write_text(json.dumps(running, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def remove_running(data_dir: Path) -> None:
    """Remove ``running.json``: nothing runs any more."""
    (data_dir / "running.json").unlink(missing_ok=True)


def runner(data_dir: Path) -> int | None:
    """Return the process of the ``rmi up`` that runs on *data_dir*, 0 if unknown; None: none does.

    The lock tells it: a process id in a file may be somebody else's by now.
    """
    try:
        with (data_dir / "rmi.lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(lock.fileno())
    except OSError:
        pass
    return None


def read_running(data_dir: Path) -> dict[str, Any] | None:
    """Return what ``running.json`` says, or None if the ``rmi up`` that wrote it has ended."""
    if runner(data_dir) is None:
        return None
    try:
        text = (data_dir / "running.json").read_bytes()
        return cast(dict[str, Any], msgspec.json.decode(text, type=_Running))
    except (OSError, ValueError):  # not there yet, or damaged
        return None

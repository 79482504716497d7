"""Keeps one member's process: a small program of its own, between a logger and its JVM.

A logger that crashes must not take its member along, or three crashes would be the end of all data;
nor may a member live on for ever that nobody owns. So this program starts the JVM and waits:

- for the JVM to end: then it ends too, with the same status;
- for SIGTERM: it passes it on, and the member hands over its data and leaves;
- for its logger to die, which the kernel tells by freeing the lock on the owner file: if no other
  logger takes that lock within the grace, the member is stopped. A logger that was started again
  just takes the lock, and has its member back.

It holds the lock on the member file for as long as the member lives; the file names both processes.
Uses nothing but the standard library, and is run as a script, so that it stays small.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

STOP_S_MAX = 30.0
"""How long the member may take to hand over its data before it is killed."""

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.2
_TRIES = 10
_TRY_S = 0.02


def main() -> int:
    """Run the member until it ends; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--member-file", required=True, help="locked for as long as it lives")
    parser.add_argument("--owner-file", required=True, help="locked by the logger that owns it")
    parser.add_argument("--note", required=True, help="JSON object, part of the member file")
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    member_fd = os.open(options.member_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _lock(member_fd):
        print("this member is running already", file=sys.stderr)
        return 1
    # Blocked until there is a process to pass it on to.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # preexec_fn is safe here: there is no other thread yet.
    with subprocess.Popen(
        options.command,
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,  # noqa: PLW1509
    ) as jvm:
        note = json.loads(options.note) | {"keeper": os.getpid(), "member": jvm.pid}
        try:
            _write_over(member_fd, json.dumps(note).encode())
        except OSError as error:  # a member that nobody could find could not be stopped either
            jvm.kill()
            print(f"{options.member_file} cannot be written: {error}", file=sys.stderr, flush=True)
            return 1
        stopper = _Stopper(jvm)
        signal.signal(signal.SIGTERM, stopper.on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        threading.Thread(
            target=_watch_owner, args=(options.owner_file, options.grace_s), daemon=True
        ).start()
        status = jvm.wait()
    print(f"the member ended with status {status}", file=sys.stderr, flush=True)
    return status if status >= 0 else 128 - status


def _lock(fd: int) -> bool:
    """Take the lock, unless another has it; who only looks has it for no more than a moment."""
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_TRY_S)
    return False


def _write_over(fd: int, text: bytes) -> None:
    """Replace what a file says, without a moment in which it says nothing."""
    os.pwrite(fd, text.ljust(os.fstat(fd).st_size), 0)
    os.ftruncate(fd, len(text))


class _Stopper:
    """Stops the JVM on the first SIGTERM, and kills it if that takes too long."""

    def __init__(self, jvm: subprocess.Popen[bytes]) -> None:
        self._jvm = jvm
        self._stopping = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._jvm.send_signal(signal.SIGTERM)
        kill = threading.Timer(STOP_S_MAX, self._jvm.kill)
        kill.daemon = True
        kill.start()


def _end_with_parent() -> None:
    """Have the kernel end the JVM if this program is killed; only Linux can."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch_owner(owner_file: str, grace_s: float) -> None:
    """Wait until nobody has owned the member for the grace; then stop it."""
    fd = os.open(owner_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        fcntl.flock(fd, fcntl.LOCK_EX)  # returns when the owner is gone
        fcntl.flock(fd, fcntl.LOCK_UN)
        deadline = time.monotonic() + grace_s
        while _free(fd):
            if time.monotonic() > deadline:
                # Keep the lock: whoever comes now waits for the end, and starts afresh.
                fcntl.flock(fd, fcntl.LOCK_EX)
                print("nobody owns this member any more", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(_LOOK_S)


def _free(fd: int) -> bool:
    """Say whether nobody holds the lock now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


if __name__ == "__main__":
    sys.exit(main())

"""Whether an error means that the machine has no memory or no thread left. Loads nothing large.

Where memory is short (``ulimit -v``), what fails first is anybody's guess: a library that cannot be
mapped is an ImportError, one whose absence is put up with leads to a NameError or LookupError
elsewhere. So what counts is whether there is room, rather than what the error is called.
"""

from __future__ import annotations

import mmap

ROOM_BYTES = 32 * 1024 * 1024
"""What any command can be expected to find free when something fails."""

_MORE_MEMORY = "end other programs, or raise the limit with ulimit -v"
_MORE_THREADS = "end other processes, or raise the limits on them: ulimit -u, ulimit -v"


def shortage(error: BaseException) -> str | None:
    """Return one line on what there was none of, and what to do, or None if that is no reason."""
    if isinstance(error, MemoryError):
        return f"no memory is left; {_MORE_MEMORY}"
    said = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and "start new thread" in said:
        return f"no thread can be started ({said}); {_MORE_THREADS}"
    if isinstance(error, Exception) and not _is_room():
        return f"no memory is left ({type(error).__name__}: {said}); {_MORE_MEMORY}"
    return None


def _is_room() -> bool:
    try:
        mmap.mmap(-1, ROOM_BYTES).close()
    except (OSError, MemoryError):
        return False
    return True

"""Files that a running process prints to, kept within a bound.

Such a file is open in the process, so it cannot be replaced. It was opened for appending, though,
so it can be emptied: its end is copied to ``NAME.1`` first. What is printed between the copy and
the emptying is lost; these are words for people, and nothing else may be in such a file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO


def keep_end(path: Path, size_bytes_max: int) -> None:
    """Empty the file if it is too large, and keep its end as ``NAME.1``.

    The file is emptied also if its end cannot be kept, as on a full disk: the bound holds.

    Args:
        path: the file; nothing is done if it is missing.
        size_bytes_max: a file that has become larger is emptied; as much of its end is kept.

    Raises:
        OSError: the file can neither be looked at nor emptied.
    """
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return
    if size_bytes <= size_bytes_max:
        return
    with path.open("r+b") as file:
        with contextlib.suppress(OSError):
            path.with_name(f"{path.name}.1").write_bytes(last_lines(file, size_bytes_max))
        os.ftruncate(file.fileno(), 0)


def last_lines(file: BinaryIO, size_bytes_max: int) -> bytes:
    """Return the end of *file* from the beginning of a line, or of a part of one that is longer."""
    start = max(0, file.seek(0, os.SEEK_END) - size_bytes_max)
    file.seek(start)
    end = file.read(size_bytes_max)
    return end[end.find(b"\n") + 1 :] if start else end

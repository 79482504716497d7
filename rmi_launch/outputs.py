"""What the processes print: ``DATA_DIR/log/NAME.out``, bounded, and what was there before it.

A process that runs holds its file open, so the file cannot be replaced. It is opened for appending,
though, so it can be emptied: its end is copied to ``NAME.out.1`` first. Lines printed between the
copy and the emptying are lost; these are words for people, and all that a service must keep is in
its operation log and its database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

OUTPUT_SIZE_BYTES_MAX = 1024 * 1024
"""A file that has become larger is emptied; as much of its end is kept as ``NAME.out.1``."""

LOOK_S = 1.0
"""How often the sizes are looked at. Loggers print every message, so they may grow fast."""

_TAIL_SIZE_BYTES = 16 * 1024

log = logging.getLogger(__name__)


def open_output(log_dir: Path, name: str) -> BinaryIO:
    """Open ``log_dir/NAME.out`` for appending, within its bound."""
    bound_output(log_dir, name)
    return _path(log_dir, name).open("ab")


def bound_output(log_dir: Path, name: str) -> None:
    """Empty ``log_dir/NAME.out`` if it is too large, and keep its end as ``NAME.out.1``.

    The file is emptied also if its end cannot be kept, as on a full disk: the bound holds.

    Raises:
        OSError: the file can neither be looked at nor emptied.
    """
    path = _path(log_dir, name)
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return
    if size_bytes <= OUTPUT_SIZE_BYTES_MAX:
        return
    with path.open("r+b") as output:
        with contextlib.suppress(OSError):
            path.with_name(f"{path.name}.1").write_bytes(_tail(output, OUTPUT_SIZE_BYTES_MAX))
        os.ftruncate(output.fileno(), 0)


async def keep_bounded(log_dir: Path, names: Iterable[str]) -> None:
    """Keep the outputs of the processes *names* within their bound, until cancelled."""
    watched = list(names)
    said: set[str] = set()
    while True:
        for name in watched:
            try:
                bound_output(log_dir, name)
            except OSError as error:
                if name not in said:
                    said.add(name)
                    log.warning("the output of %s is not kept within its bound: %s", name, error)
        await asyncio.sleep(LOOK_S)


def output_tail(log_dir: Path, name: str, lines_max: int = 15) -> str:
    """Return the last lines that the process *name* printed, or an empty text."""
    try:
        with _path(log_dir, name).open("rb") as output:
            text = _tail(output, _TAIL_SIZE_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines_max:])


def _path(log_dir: Path, name: str) -> Path:
    return log_dir / f"{name}.out"


def _tail(output: BinaryIO, size_bytes: int) -> bytes:
    """Return the last *size_bytes* of a file, from the beginning of a line if it has one."""
    start = max(0, output.seek(0, os.SEEK_END) - size_bytes)
    output.seek(start)
    tail = output.read(size_bytes)
    return tail[tail.find(b"\n") + 1 :] if start else tail

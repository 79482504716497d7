"""What the processes print: ``DATA_DIR/log/NAME.out``, bounded, and the part before it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from rmi_runtime.files.printed import keep_end, last_lines

OUTPUT_SIZE_BYTES_MAX = 1024 * 1024

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

    Raises:
        OSError: the file can neither be looked at nor emptied.
    """
    keep_end(_path(log_dir, name), OUTPUT_SIZE_BYTES_MAX)


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


def output_size_bytes(log_dir: Path, name: str) -> int:
    """Return how much the process *name* has printed so far, as far as it was kept."""
    try:
        return _path(log_dir, name).stat().st_size
    except OSError:
        return 0


def output_tail(log_dir: Path, name: str, lines_max: int = 15, *, after_bytes: int = 0) -> str:
    """Return the last lines that the process *name* printed, or an empty text if none can be read.

    Args:
        log_dir: where its output is.
        name: of the process.
        lines_max: how many lines at most.
        after_bytes: the size of the output before; what was printed earlier is left out, unless it
            was emptied since.
    """
    try:
        with _path(log_dir, name).open("rb") as output:
            size_bytes = output.seek(0, os.SEEK_END)
            start = after_bytes if after_bytes <= size_bytes else 0
            if size_bytes - start > _TAIL_SIZE_BYTES:
                printed = last_lines(output, _TAIL_SIZE_BYTES)
            else:
                output.seek(start)
                printed = output.read(_TAIL_SIZE_BYTES)
    except OSError:  # there is none, or not for us: why the process did not start is told anyway
        return ""
    return "\n".join(printed.decode(errors="replace").splitlines()[-lines_max:])


def _path(log_dir: Path, name: str) -> Path:
    return log_dir / f"{name}.out"

"""The lines that loggers and messages services write, one for every message they got.

The format is the seed's: ``msg = msg1 UUID = 487e0156-a04c-5aeb-b42c-52c752bc2dd7``. The file
``DATA_DIR/log/<pyro name>.log`` has them all; standard output shows them to whoever is watching,
as far as they can keep up.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final

from rmi_runtime import LogLimits, OperationLog

_PIPE_BUF: Final = 4096
"""What a writable pipe or terminal takes without blocking, in bytes (POSIX: at least 512)."""

_LIMITS: Final = LogLimits()

_SHOWN_MAX: Final = 16384
"""Most characters whose look is remembered."""


def message_line(text: str, id: str) -> str:
    """Return the line, without its end, for one message.

    A character that cannot be printed is written as an escape (a line break as ``\\n``), and a
    backslash twice: a message stays one line, can be read back, and cannot command a terminal.
    """
    if not text.isprintable() or "\\" in text:
        # No call per character: a batch may have four million of them, of a stranger's choice.
        text = _escaped(text) if text.isascii() else text.translate(_SHOWN)
    return f"msg = {text} UUID = {id}"


def message_lines(messages: Sequence[tuple[str, str]]) -> list[str]:
    """Return the lines, without their ends, for (id, text) pairs: see :func:`message_line`."""
    texts = "".join([text for _, text in messages])
    if texts.isprintable() and "\\" not in texts:
        return [f"msg = {text} UUID = {id}" for id, text in messages]
    return [message_line(text, id) for id, text in messages]


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


class _Shown(dict[int, str]):
    """How characters are shown, by their code: a table for ``str.translate``."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if not char.isprintable() or char == "\\":
            char = _escaped(char)
        if len(self) >= _SHOWN_MAX:
            self.clear()  # whoever filled it with odd ones shall not slow down the usual ones
        self[code] = char
        return char


_SHOWN: Final = _Shown()


class LineLog:
    """A log of plain lines: a file, and a courtesy copy on a descriptor.

    Args:
        path: the file; it and its directory are made if missing.
        echo_fd: descriptor that gets a copy; None: no copy. If nobody reads there, the copy is
            dropped rather than waited for.
        limits: how much of the file is kept.

    Attributes:
        echo_dropped: lines that were not copied because the reader did not keep up.
    """

    def __init__(
        self, path: Path, echo_fd: int | None = None, *, limits: LogLimits = _LIMITS
    ) -> None:
        # These lines have no numbers: the log is wanted for its whole lines, its one writer and
        # its bounds.
        self._log: OperationLog[str] = OperationLog(
            path, _as_is, read_number=_no_number, limits=limits
        )
        self._echo_fd = echo_fd
        self._echo_ready = select.poll()
        if echo_fd is not None:
            self._echo_ready.register(echo_fd, select.POLLOUT)
        self.echo_dropped = 0

    def __enter__(self) -> LineLog:
        self._log.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._log.close()

    def write(self, lines: Iterable[str]) -> None:
        """Append lines in one write. Never fails and never waits for a reader.

        Args:
            lines: without line ends.
        """
        batch = list(lines)
        if not batch:
            return
        self._log.append(batch)
        if self._echo_fd is not None:
            self._echo(self._echo_fd, batch)

    def _echo(self, fd: int, lines: list[str]) -> None:
        # Whole lines only, and no more at once than a pipe takes without blocking.
        whole = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
        if len(whole) <= _PIPE_BUF:
            if not self._write_if_ready(fd, whole):
                self.echo_dropped += len(lines)
            return
        pending = b""
        shown = 0
        for count, line in enumerate(lines, 1):
            data = _echoed(line)
            if len(pending) + len(data) > _PIPE_BUF and pending:
                if not self._write_if_ready(fd, pending):
                    break
                shown, pending = count - 1, b""
            pending += data
        else:
            if self._write_if_ready(fd, pending):
                shown = len(lines)
        self.echo_dropped += len(lines) - shown

    def _write_if_ready(self, fd: int, data: bytes) -> bool:
        """Write *data* if that cannot block the event loop; return whether it was written."""
        try:
            ready = self._echo_ready.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT:
                return False
            return os.write(fd, data) == len(data)
        except OSError:  # standard output was closed: the file has the lines
            return False


def _echoed(line: str) -> bytes:
    data = line.encode("utf-8", "backslashreplace")
    if len(data) >= _PIPE_BUF:
        data = data[: _PIPE_BUF - 4].decode("utf-8", "ignore").encode() + "…".encode()
    return data + b"\n"


def _as_is(first: int, at: datetime, lines: Iterable[str]) -> list[str]:
    return list(lines)


def _no_number(line: str) -> int:
    return 0

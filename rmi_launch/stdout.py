"""Stdout, whose failures are told from those of all other files. Loads nothing large.

A full disk under ``rmi status > FILE`` is no trouble of the data directory, and a pipe whose reader
has gone (``rmi status | head``) is none at all.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_CHOOSY = ("strict", "surrogateescape")
"""How Python writes in most locales, and in the C locale: neither has what the encoding lacks."""


class StdoutFailed(Exception):
    """Stdout takes nothing more. No OSError: click would end the command for one, without a word.

    Args:
        number: the operating system's number for what is wrong.

    Attributes:
        unread: nobody reads it any more.
    """

    def __init__(self, number: int | None) -> None:
        super().__init__(
            f"stdout cannot be written: {os.strerror(number or errno.EIO)}; make room where it "
            "goes to, or send it elsewhere"
        )
        self.unread = number == errno.EPIPE


class _Stdout(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written = super().write(data)
        except OSError as error:
            raise StdoutFailed(error.errno) from None
        if written is None:  # it does not block, and is full
            raise StdoutFailed(errno.EAGAIN)
        return written


def own_stdout() -> None:
    """Have what cannot be written to stdout raise :class:`StdoutFailed` from now on."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # A path or an address need not be writable in the terminal's encoding.
        how = "backslashreplace" if out.errors in _CHOOSY else out.errors
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Stdout(out.fileno(), "wb", closefd=False)),
            encoding=out.encoding,
            errors=how,
            line_buffering=out.line_buffering or out.write_through,  # python -u
        )


def say(line: str) -> None:
    """Print *line* at once; whoever says it goes on if it cannot be printed."""
    with forgiving(sys.stdout):
        print(line, flush=True)


@contextlib.contextmanager
def forgiving(stream: TextIO) -> Iterator[None]:
    """Let everything more on *stream* go nowhere once it cannot be written."""
    try:
        yield
    except (OSError, StdoutFailed):
        forget(stream)


def forget(stream: TextIO) -> None:
    """Let everything more on *stream* go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)

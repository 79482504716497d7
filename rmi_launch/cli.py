"""Where the ``rmi`` command begins: what has to be in order before anything large is loaded."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from types import FrameType

from rmi_launch.shortage import shortage
from rmi_launch.stdout import own_stdout

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130
SIZE_MAX = 65535
"""Most columns and lines that a terminal has (``TIOCGWINSZ``)."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    os.umask(0o077)  # whatever is written is its owner's: books, logs, keys
    open_streams()
    # Loading takes half a second, and Ctrl-C is to end it as quietly as anything later.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _leave)
    raise_file_limit()
    try:
        from rmi_launch.commands import rmi  # noqa: PLC0415
        from rmi_launch.failures import run  # noqa: PLC0415
    except Exception as error:
        if short := shortage(error):
            print(f"rmi: {short}", file=sys.stderr)
            sys.exit(FAILED)
        if not (wrong := _wrong_for_pyro(error)):
            raise
        print(f"rmi: environment: {wrong}; correct it, or unset that variable", file=sys.stderr)
        sys.exit(WRONG_USE)
    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(lambda: rmi.main(standalone_mode=False)))


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _wrong_for_pyro(error: Exception) -> str | None:
    """Return what is wrong with a PYRO_* variable; Pyro5 reads them when it is loaded."""
    level = os.environ.get("PYRO_LOGLEVEL")
    if level and level not in (levels := logging.getLevelNamesMapping()):
        return f"PYRO_LOGLEVEL is {level!r}, and not one of {', '.join(levels)}"
    if level and isinstance(error, OSError):
        return f"PYRO_LOGFILE: {error}"
    if isinstance(error, ValueError) and any(name.startswith("PYRO_") for name in os.environ):
        return str(error)
    return None


def open_streams() -> None:
    """Let what was started without stdin, stdout or stderr (``rmi up >&-``) have them go nowhere.

    Otherwise the next file that is opened would be taken for the one that is missing.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(fd, True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    own_stdout()
    for name in ("COLUMNS", "LINES"):
        if not _is_count(os.environ.get(name, "1")):
            del os.environ[name]  # none is known: taken at its word, nothing would be shown


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text[:6]) <= SIZE_MAX


def raise_file_limit() -> None:
    """Raise the soft limit on open files to the hard one: a connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            # Some systems report a hard limit that they do not grant; then the soft one stays.
            return


if __name__ == "__main__":
    main()

"""From an error to an exit code and one readable line: the one place where this is decided.

0    done
1    it failed; the line on stderr says why
2    the command line, the environment or rmi.toml is wrong
3    the system is not running, or cannot be reached
130  interrupted
141  nobody reads its output any more (rmi status | head): a shell says the same of other commands
"""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import sys
from collections.abc import Callable

import click

from rmi_launch.shortage import shortage
from rmi_launch.stdout import StdoutFailed, forget, forgiving
from rmi_runtime import SettingsError
from rmi_runtime.errors import CallTimeout, ConnectionLost, RmiError, Unavailable

FAILED = 1
WRONG_USE = 2
NOT_RUNNING = 3
INTERRUPTED = 130
UNREAD = 141

_WITHOUT_NAME = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENFILE,
    errno.EFBIG,
    errno.EAGAIN,
    errno.ENOMEM,
)
"""Errors whose advice holds whichever file it was."""


UNUSABLE = (OSError, sqlite3.Error, MemoryError)
"""What the machine refuses. :func:`said` puts it into words."""


class NotRunning(Unavailable):
    """Nothing answers where the system should be."""

    code = "not_running"


def run(command: Callable[[], object]) -> int:
    """Run *command* and return the exit code; its errors become one line on stderr.

    An error that nobody foresaw is let through: its traceback is what its reporter needs.
    """
    try:
        command()
        sys.stdout.flush()
    except click.ClickException as error:
        with forgiving(sys.stderr):
            error.show()
        return error.exit_code
    except StdoutFailed as error:
        forget(sys.stdout)
        if error.unread:
            return UNREAD
        _complain(str(error))
        return FAILED
    except (RmiError, *UNUSABLE, click.Abort, KeyboardInterrupt) as error:
        exit_code, message = _judge(error)
        _complain(message)
        return exit_code
    except Exception as error:
        if not (short := shortage(error)):
            raise
        _complain(short)
        return FAILED
    return 0


def _complain(message: str) -> None:
    with forgiving(sys.stderr):  # the exit code tells as well
        print(f"rmi: {message}", file=sys.stderr, flush=True)


def _judge(error: BaseException) -> tuple[int, str]:
    match error:
        case SettingsError():
            return WRONG_USE, error.message
        case Unavailable() | ConnectionLost() | CallTimeout():
            return NOT_RUNNING, error.message
        case RmiError():
            return FAILED, error.message
        case OSError() | sqlite3.Error() | MemoryError():
            return FAILED, said(error)
        case _:
            return INTERRUPTED, "interrupted"


def said(error: OSError | sqlite3.Error | MemoryError) -> str:
    """Return one line on what the operating system or SQLite refused, and what to do about it."""
    notes = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    if isinstance(error, sqlite3.Error):
        return f"{notes}{error}; look at the disk's space, its rights, and the limits (ulimit -a)"
    if isinstance(error, MemoryError):
        return f"{notes}no memory is left{_advice(errno.ENOMEM)}"
    what = error.strerror or str(error)
    if error.filename is not None:
        what = f"{os.fsdecode(error.filename)}: {what}"
        return f"{notes}{what}{_advice(error.errno)}"
    return f"{notes}{what}{_advice(error.errno) if error.errno in _WITHOUT_NAME else ''}"


def _advice(number: int | None) -> str:
    """Return what to do about an error of the operating system, by its number."""
    advice = ""
    match number:
        case errno.ENOSPC | errno.EDQUOT:
            advice = "free some space on that disk, or choose another with --data-dir"
        case errno.EISDIR | errno.ENOTDIR:
            advice = "the one where the other is expected: move it away"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            advice = "whoever runs this needs the right to read and write there"
        case errno.EMFILE | errno.ENFILE:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            advice = f"{limit} are allowed here, and 1,024 will do: raise it with ulimit -n"
        case errno.EAGAIN:
            advice = "end other processes, or raise the limits on them: ulimit -u, ulimit -v"
        case errno.ENOMEM:
            advice = "end other programs, or raise the limit with ulimit -v"
        case errno.EFBIG:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            advice = f"files may have {limit:,} bytes here: raise it with ulimit -f"
    return advice and f"; {advice}"

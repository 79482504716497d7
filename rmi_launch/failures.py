"""From an error to an exit code and one readable line: the one place where this is decided.

0    done
1    it failed; the line on stderr says why
2    the command line, the environment or rmi.toml is wrong
3    the system is not running, or cannot be reached
130  interrupted
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from rmi_runtime import SettingsError
from rmi_runtime.errors import CallTimeout, ConnectionLost, RmiError, Unavailable

FAILED = 1
WRONG_USE = 2
NOT_RUNNING = 3
INTERRUPTED = 130


class NotRunning(Unavailable):
    """Nothing answers where the system should be."""

    code = "not_running"


def run(command: Callable[[], object]) -> int:
    """Run *command* and return the exit code; its errors become one line on stderr.

    An error that nobody foresaw is let through: its traceback is what its reporter needs.
    """
    try:
        command()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has had enough (rmi status | head): no reason to complain.
        forget_stdout()
        return FAILED
    except (RmiError, OSError, click.Abort, KeyboardInterrupt) as error:
        exit_code, message = _judge(error)
        print(f"rmi: {message}", file=sys.stderr)
        return exit_code
    return 0


def forget_stdout() -> None:
    """Let everything more on stdout go nowhere, because nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _judge(error: BaseException) -> tuple[int, str]:
    match error:
        case SettingsError():
            return WRONG_USE, error.message
        case Unavailable() | ConnectionLost() | CallTimeout():
            return NOT_RUNNING, error.message
        case RmiError():
            return FAILED, error.message
        case OSError():
            return FAILED, str(error)
        case _:
            return INTERRUPTED, "interrupted"

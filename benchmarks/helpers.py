"""Starts the benchmarks' other programs: servers and clients in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def start_helper(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start ``python -m MODULE``; it is told and asked over pipes, and ends with its input.

    It is found wherever ``rmi bench`` was started. It has a session of its own: Ctrl-C on the
    terminal reaches ``rmi bench`` alone, which then ends it.

    Args:
        module: which program, as in ``benchmarks.echo_processes``.
        arguments: of its command line; paths among them are absolute.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )

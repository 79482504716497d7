"""A PostgreSQL server of our own for the time of a measurement, as its package sets it up.

Its settings are the defaults: ``fsync`` and ``synchronous_commit`` on. It listens on loopback only.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

INSTALL = "apt-get install postgresql"
SCALE = 10
"""``pgbench``'s branches: more than its clients, so that they do not queue for one row."""

_USER = "postgres"


def find_programs() -> Path | None:
    """Return the directory with ``initdb``, ``postgres`` and ``pgbench``, or None."""
    debian = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)
    for found in (*debian, shutil.which("initdb")):
        if found and (Path(found).parent / "pgbench").exists():
            return Path(found).parent
    return None


@contextlib.contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """Run a new cluster.

    Args:
        directory: where its files go; must not exist. Removed at the end.

    Yields:
        The address, as in ``postgresql://postgres@127.0.0.1:PORT/postgres``.

    Raises:
        RuntimeError: it is not installed, or does not start.
    """
    programs = find_programs()
    if programs is None:
        raise RuntimeError(f"PostgreSQL is not installed: {INSTALL}")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    as_user = _as_other_user()
    directory.mkdir(parents=True)
    if as_user:
        owner = pwd.getpwnam(_USER)
        os.chown(directory, owner.pw_uid, owner.pw_gid)
    data = directory / "data"
    _run([*as_user, str(programs / "initdb"), "-D", str(data), "-U", _USER, "--auth=trust"])
    server = subprocess.Popen(
        [
            *as_user,
            *(str(programs / "postgres"), "-D", str(data), "-p", str(port)),
            *("-c", "listen_addresses=127.0.0.1"),
            *("-c", f"unix_socket_directories={directory}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=(directory / "log").open("w"),
    )
    try:
        _wait_until_ready(programs, port)
        yield f"postgresql://{_USER}@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # its "fast shutdown"
        server.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def _as_other_user() -> list[str]:
    """PostgreSQL refuses to run as root; its package has made a user for it."""
    return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--init-groups"] * (
        os.geteuid() == 0
    )


def _wait_until_ready(programs: Path, port: int) -> None:
    deadline_s = time.monotonic() + 30
    ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ready, check=False).returncode:
        if time.monotonic() > deadline_s:
            raise RuntimeError("PostgreSQL does not start")
        time.sleep(0.1)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[-1]} failed: {done.stderr or done.stdout}")
    return done.stdout


def _client(name: str) -> str:
    """Return the program of the server's own version: there may be several."""
    programs = find_programs()
    return name if programs is None else str(programs / name)


def prepare_pgbench(url: str) -> None:
    """Make ``pgbench``'s tables."""
    _run([_client("pgbench"), "-i", "-q", "-s", str(SCALE), url])
    _run([_client("psql"), "-q", url, "-c", "CHECKPOINT"])


def pgbench(url: str, seconds: float) -> float:
    """Run its TPC-B-like transactions, 8 clients, prepared; return how many a second."""
    clients = ["-c", "8", "-j", "2", "-M", "prepared"]
    said = _run([_client("pgbench"), "-n", *clients, "-T", str(max(1, round(seconds))), url])
    found = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pgbench said nothing of tps: {said}")
    return float(found[1])

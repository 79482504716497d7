"""What the harness does inside the processes of the system: the only way in, and from outside.

A system under torture is started with a directory of the harness at the head of ``PYTHONPATH``. In
it lies a ``sitecustomize.py``, which Python runs at its start, and which calls :func:`install`. In
the process that all services are forked from, and nowhere else, that replaces parts of the real
system by others: a planted bug, a network through the proxy, a disk that forgets. The product knows
nothing of this.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import sys
import time
from pathlib import Path

VARIABLE = "TORTURE_HOOKS"
ZYGOTE = "rmi_launch.zygote"

_SITECUSTOMIZE = """\
from rmi_torture.hook import install

install()
"""


def environment(
    directory: Path,
    *,
    bug: str = "",
    proxy: Path | None = None,
    clock: Path | None = None,
    forgetful: bool = False,
) -> dict[str, str]:
    """Return the variables that have the hooks installed in a system.

    Args:
        directory: a directory of the harness; the start-up file is written there.
        bug: name of a planted bug, or nothing.
        proxy: control socket of the network's proxy, or None.
        clock: file with the jump of the clock, or None.
        forgetful: give the data object a disk that forgets what was not synced.
    """
    if not (bug or proxy or clock or forgetful):
        return {}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    hooks = {"bug": bug, "proxy": _path(proxy), "clock": _path(clock), "forgetful": forgetful}
    path = os.pathsep.join(filter(None, (str(directory.absolute()), os.environ.get("PYTHONPATH"))))
    return {VARIABLE: json.dumps(hooks), "PYTHONPATH": path}


def _path(path: Path | None) -> str:
    return "" if path is None else str(path.absolute())


def install() -> None:
    """Install what the environment asks for, if this is the process that services come from."""
    given = os.environ.get(VARIABLE)
    if not given or ZYGOTE not in sys.orig_argv:
        return
    hooks = json.loads(given)
    if hooks["clock"]:
        _let_the_clock_jump(hooks["clock"])
    if hooks["forgetful"]:
        _give_forgetful_disk()
    if hooks["proxy"]:
        _announce_through_proxy(hooks["proxy"])
    if hooks["bug"]:
        from rmi_torture.planted import plant  # noqa: PLC0415 (imports all of the product)

        plant(hooks["bug"])


def _let_the_clock_jump(path: str) -> None:
    """Add what the file says to the time of day."""
    with open(path, "r+b") as file:
        jump = mmap.mmap(file.fileno(), 8)
    real_s, real_ns = time.time, time.time_ns

    def jump_s() -> int:
        return int.from_bytes(jump[:8], "little", signed=True)

    time.time = lambda: real_s() + jump_s()
    time.time_ns = lambda: real_ns() + jump_s() * 10**9


def _give_forgetful_disk() -> None:
    """Make the forgetful disk the default one, in the data object only."""
    from rmi_bank import SqliteLedger  # noqa: PLC0415 (only where it is asked for)
    from rmi_torture.disks import ForgetfulDisk  # noqa: PLC0415
    from rmi_torture.vfs import Vfs  # noqa: PLC0415

    start = SqliteLedger.start
    kept: list[Vfs] = []

    async def start_on_it(self: SqliteLedger) -> None:
        if not kept:
            kept.append(Vfs("rmi-forgetful", ForgetfulDisk(), default=True))
        await start(self)

    SqliteLedger.start = start_on_it  # type: ignore[method-assign]


def _announce_through_proxy(path: str) -> None:
    """Have every service announce the proxy's address in place of its own."""
    from rmi_runtime import Announcer  # noqa: PLC0415 (only where it is asked for)

    begin = Announcer.__init__

    def begin_elsewhere(
        self: Announcer, name_servers: object, name: str, uri: str, **options: object
    ) -> None:
        place, _, port = uri.rpartition(":")
        begin(self, name_servers, name, f"{place}:{_proxied(path, name, int(port))}", **options)  # type: ignore[arg-type]

    Announcer.__init__ = begin_elsewhere  # type: ignore[method-assign]


def _proxied(path: str, name: str, port: int) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(10)
        control.connect(path)
        order = {"do": "forward", "name": name, "port": port}
        control.sendall(json.dumps(order).encode() + b"\n")
        with control.makefile("rb") as answers:
            return int(json.loads(answers.readline())["port"])

"""Services without a daemon: what the supervisor sees of a service, and no more.

They tell what they do in ``DATA_DIR/events``, a line each.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys

from rmi_runtime.settings import Settings


def say(settings: Settings, event: str) -> None:
    """Append *event* to ``DATA_DIR/events``."""
    fd = os.open(settings.data_dir / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{event}\n".encode())
    os.close(fd)


async def serve(settings: Settings, name: str, address: str = "") -> None:
    """Be ready, and go on until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    line = json.dumps({"name": name, "location": address}) + "\n"
    os.write(int(os.environ["RMI_READY_FD"]), line.encode())
    await stop.wait()
    say(settings, f"{name} stopped")


async def run_ok(settings: Settings, number: int) -> None:
    """A good service."""
    await serve(settings, f"ok.{number}", f"127.0.0.1:{number}")


async def run_names(settings: Settings) -> None:
    """Stands for the name server: found its port itself."""
    await serve(settings, "nameserver", "127.0.0.1:4711")


async def run_tells_ns(settings: Settings) -> None:
    """Tells which name server it was given."""
    say(settings, f"ns {settings.ns[0]}")
    await serve(settings, "tells")


async def run_dies(settings: Settings) -> None:
    """Dies before it is ready."""
    print("the tiny service is about to die", file=sys.stderr)
    raise RuntimeError("broken on purpose")


async def run_mute(settings: Settings) -> None:
    """Dies of a full disk, on which its output is too."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "ledger")


async def run_silent(settings: Settings) -> None:
    """Is never ready."""
    await asyncio.Event().wait()


async def run_stubborn(settings: Settings) -> None:
    """Does not stop when it is asked to."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, say, settings, "stubborn was asked")
    os.write(int(os.environ["RMI_READY_FD"]), b'{"name": "stubborn"}\n')
    await asyncio.Event().wait()


async def run_dies_twice(settings: Settings) -> None:
    """Is ready at its first start, dies early at its second and third, then is good."""
    starts = settings.data_dir / "starts"
    count = len(starts.read_text().splitlines()) if starts.exists() else 0
    with starts.open("a") as file:
        file.write("start\n")
    if count in (1, 2):
        raise RuntimeError("not this time")
    await serve(settings, "dies_twice")

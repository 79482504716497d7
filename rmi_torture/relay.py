"""The relay between two hosts, seen from the harness: its TUN devices, its process, its orders."""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress

from rmi_runtime.errors import Unavailable

TUN = "tun0"
"""The device of each host."""

CLONE = "/dev/net/tun"
"""Who opens it has a new TUN device."""

ANSWER_S = 20.0
STOP_S = 5.0

# <linux/if_tun.h>: the device carries bare IP packets, without a header of its own.
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000


class Relay:
    """A process that passes packets between the devices ``tun0`` of two hosts, late or not at all.

    The devices are there as long as the process is, which ends with this one.

    Args:
        inside: context manager for a host: who is in it opens devices there.
        hosts: names of the two.
        seed: of what is left to chance.

    Raises:
        Unavailable: there can be no such devices here.
    """

    def __init__(
        self,
        inside: Callable[[str], AbstractContextManager[None]],
        hosts: Collection[str],
        seed: int,
    ) -> None:
        with ExitStack() as stack:
            words = [str(seed)]
            fds = []
            for host in hosts:
                with inside(host):
                    fds.append(_open_device())
                stack.callback(os.close, fds[-1])
                words += (host, str(fds[-1]))
            self._process = subprocess.Popen(
                (sys.executable, "-m", "rmi_torture.relay_process", *words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=fds,
                # Ctrl-C on the terminal is the harness' to act on. It ends with its input.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def order(self, faults: Mapping[str, Collection[str]]) -> None:
        """Let packets to each host have these faults, and no others; they have them on return.

        Args:
            faults: by host, as of :meth:`rmi_torture.packets.Way.suffer`.

        Raises:
            Unavailable: the relay is dead, or does not answer.
        """
        assert self._process.stdin is not None
        order = json.dumps({host: sorted(kinds) for host, kinds in faults.items()}) + "\n"
        with suppress(BrokenPipeError):
            self._process.stdin.write(order.encode())
        if self._answer() != order.encode():
            raise Unavailable("the relay between the hosts does not answer: the run is void")

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        answers = select.poll()
        answers.register(self._process.stdout, select.POLLIN)
        if not answers.poll(ANSWER_S * 1000):
            return b""
        return self._process.stdout.readline()

    def close(self) -> None:
        """End it; packets that are under way are lost."""
        # What Popen's own exit does not do: give up waiting.
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _open_device() -> int:
    """Make the device in the namespace that this thread is in; it ends with its descriptor."""
    try:
        fd = os.open(CLONE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"{CLONE} cannot be opened: {error.strerror}") from None
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", TUN.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        os.close(fd)
        raise Unavailable(f"no TUN device can be made: {error.strerror}") from None
    return fd

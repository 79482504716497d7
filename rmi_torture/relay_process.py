"""Passes IP packets between two TUN devices: ``python -m …`` with a seed and their descriptors.

What is read from one device is on its way (:mod:`rmi_torture.packets`) to the other one. Orders
come on the standard input, one JSON object a line, and say which faults each way has, by the host
it leads to. When an order holds, it is repeated on the standard output:

    {"a": ["cut"], "b": ["delay", "loss"]}

It ends when its standard input does: also when whoever started it was killed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import select
import sys
import time
from collections.abc import Mapping
from random import Random

from rmi_torture.packets import Way

PACKET_SIZE_BYTES_MAX = 4096
"""More than the devices' MTU."""

PACKETS_AT_ONCE_MAX = 64
ORDER_SIZE_BYTES_MAX = 4096
ORDERS_FD, ANSWERS_FD = 0, 1
_LOST = (errno.EAGAIN, errno.EIO)


class PacketRelay:
    """Both ways, and the devices at their ends.

    Args:
        devices: non-blocking file descriptors of two TUN devices, by host.
        seed: of what is left to chance.
    """

    def __init__(self, devices: Mapping[str, int], seed: int) -> None:
        self._ways = {
            host: Way(Random(f"relay/{seed}/{host}"))  # noqa: S311 (repeatable on purpose)
            for host in devices
        }
        one, other = devices
        self._devices = dict(devices)
        self._onward = {devices[one]: self._ways[other], devices[other]: self._ways[one]}
        self._said = b""

    def run(self) -> None:
        """Pass packets and carry out orders, until these end."""
        poll = select.poll()
        for fd in (ORDERS_FD, *self._onward):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll(self._wait_ms()):
                if fd != ORDERS_FD:
                    self._read_packets(fd)
                elif not self._obey():
                    return
            self._deliver()

    def _wait_ms(self) -> int | None:
        """Return for how long nothing needs to be done unless something comes."""
        dues_s = [due_s for way in self._ways.values() if (due_s := way.next_s()) is not None]
        if not dues_s:
            return None
        return max(0, math.ceil((min(dues_s) - time.monotonic()) * 1000))

    def _read_packets(self, device_fd: int) -> None:
        way, now_s = self._onward[device_fd], time.monotonic()
        with contextlib.suppress(BlockingIOError):
            for _ in range(PACKETS_AT_ONCE_MAX):
                way.take(os.read(device_fd, PACKET_SIZE_BYTES_MAX), now_s)

    def _deliver(self) -> None:
        now_s = time.monotonic()
        for host, way in self._ways.items():
            for packet in way.due(now_s):
                try:
                    os.write(self._devices[host], packet)
                except OSError as error:
                    # A host loses a packet that it has no memory for, or whose device is not up
                    # yet, as it does with a real one.
                    if error.errno not in _LOST:
                        raise

    def _obey(self) -> bool:
        """Carry out the orders that have come; return whether there may be more."""
        said = os.read(ORDERS_FD, ORDER_SIZE_BYTES_MAX)
        *orders, self._said = (self._said + said).split(b"\n")
        for order in orders:
            for host, faults in json.loads(order).items():
                self._ways[host].suffer(faults)
            os.write(ANSWERS_FD, order + b"\n")
        return bool(said)


def main() -> None:
    """Run a relay: seed, then host and descriptor of each device."""
    seed, one, one_fd, other, other_fd = sys.argv[1:]
    PacketRelay({one: int(one_fd), other: int(other_fd)}, int(seed)).run()


if __name__ == "__main__":
    main()

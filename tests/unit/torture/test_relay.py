"""The relay between two hosts, on descriptors that behave as devices do."""

from __future__ import annotations

import os
import socket

import pytest

from rmi_torture import relay_process
from rmi_torture.relay_process import PacketRelay


def _of_a_device_that_is_not_up() -> int:
    """Return a descriptor that fails as such a device does: EIO."""
    master, slave = os.openpty()
    os.close(master)
    return slave


def test_a_packet_to_a_device_that_is_not_up_is_lost_and_the_relay_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    down = _of_a_device_that_is_not_up()
    up, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    orders, ours = os.pipe()
    monkeypatch.setattr(relay_process, "ORDERS_FD", orders)
    relay = PacketRelay({"down": down, "up": up.fileno()}, 1)
    with up, host:
        up.setblocking(False)
        host.send(b"to the one that is down")
        relay._read_packets(up.fileno())
        relay._onward[down].take(b"to the other one", 0.0)
        relay._deliver()
        assert host.recv(100) == b"to the other one"
    os.close(ours)
    relay.run()  # until the orders end
    os.close(orders)
    os.close(down)

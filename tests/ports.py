"""Ports for services that must know theirs before they start, or keep it over a restart."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterable
from typing import Final

from rmi_msg.hazelcast.addresses import ports_taken

_PORTS: Final = range(10_000, 32_000)
"""Below those that systems give to outgoing connections: one of these could take a port that is
free for a moment."""

_TRIES_MAX: Final = 100


def free_ports(count: int = 1) -> int:
    """Return the first of *count* consecutive free ports on 127.0.0.1."""
    return _first(lambda first: range(first, first + count))


def free_member_ports(count: int) -> int:
    """Return the first free port on 127.0.0.1 for *count* Hazelcast members."""
    return _first(lambda first: ports_taken(first, count))


def _first(ports: Callable[[int], Iterable[int]]) -> int:
    for _ in range(_TRIES_MAX):
        first = random.choice(_PORTS)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in ports(first):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")

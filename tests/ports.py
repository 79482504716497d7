"""Ports for services that must know theirs before they start, or keep it over a restart."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

_PORTS: Final = range(10_000, 32_000)
"""Below those that systems give to outgoing connections: one of these could take a port that is
free for a moment."""

_TRIES_MAX: Final = 100


def free_ports(count: int = 1) -> int:
    """Return the first of *count* consecutive free ports on 127.0.0.1."""
    for _ in range(_TRIES_MAX):
        first = random.choice(_PORTS[: -count or None])
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError(f"no {count} free ports in a row")

"""Whether the members that are not in our cluster are gone, or may be going on without us.

A cluster that falls apart (a member is frozen, and taken to be dead) goes on in all its parts, and
when they meet, the smaller part gives way: what it alone has acknowledged would be lost. So a part
with no more than half of the expected members acknowledges nothing as long as one of the others
lives. It lives if its port takes a connection: that of a frozen process does, that of a dead one
does not. Two lost members do not stop the third; two frozen ones do, until they are back or dead.

One connection is kept per address, and not made again for each look: a frozen process accepts none,
and the queue of those that wait for it is short.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from rmi_runtime import split_address

FRESH_S: Final = 0.25
"""How old an answer may be that is given again, in seconds."""

CONNECT_S_MAX: Final = 1.0
"""How long an address may take to accept a connection before nobody is taken to be there."""

_KEEPALIVE_S: Final = (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3))
"""So a connection to a machine that is gone does not stand for ever, where the system has these."""


def enough(present: int, expected: int) -> bool:
    """Say whether *present* of *expected* members are more than all the others could be."""
    return 2 * present > expected


class Others:
    """Looks whether anybody lives at some addresses.

    Args:
        addresses: ``host:port`` of all expected members.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(dict.fromkeys(addresses))
        self._lines: dict[str, _Line] = {}
        self._asked: asyncio.Task[None] | None = None
        self._asked_s = 0.0

    @property
    def expected(self) -> int:
        """How many members are expected."""
        return len(self._addresses)

    async def living(self, present: Sequence[str]) -> list[str]:
        """Return the addresses where somebody lives who is not one of those *present*.

        Args:
            present: ``host:port`` of the members of our cluster, as these call themselves.
        """
        loop = asyncio.get_running_loop()
        asked = self._asked
        if asked is None or (asked.done() and loop.time() - self._asked_s > FRESH_S):
            asked = self._asked = asyncio.create_task(self._look())
        await asyncio.shield(asked)
        return [
            address
            for address, line in self._lines.items()
            if line.stands and address not in present and line.peer not in present
        ]

    def rest(self) -> None:
        """Close all connections, until somebody asks again."""
        self._asked = None
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    async def _look(self) -> None:
        missing = [a for a in self._addresses if a not in self._lines or not self._lines[a].stands]
        found = await asyncio.gather(*(_connect(address) for address in missing))
        if self._asked is not asyncio.current_task():  # nobody wants to know any more
            for unwanted in filter(None, found):
                unwanted.close()
            return
        for address, line in zip(missing, found, strict=True):
            self._lines.pop(address, None)
            if line is not None:
                self._lines[address] = line
        self._asked_s = asyncio.get_running_loop().time()


class _Line(asyncio.Protocol):
    """A connection on which nobody says anything.

    Attributes:
        stands: whether it is open.
        peer: ``host:port`` of the other end.
    """

    def __init__(self) -> None:
        self.stands = False
        self.peer = ""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        self.peer = f"{host}:{port}"
        self.stands = True
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE_S:
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def connection_lost(self, error: Exception | None) -> None:
        self.stands = False

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()


async def _connect(address: str) -> _Line | None:
    """Return an open connection, or None if nobody accepts one in time."""
    host, port = split_address(address)
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            _, line = await asyncio.get_running_loop().create_connection(_Line, host, port)
    except (OSError, TimeoutError):
        return None
    return line

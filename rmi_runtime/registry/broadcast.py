"""Answers stock clients that look for a name server by broadcast (``Pyro5.api.locate_ns()``).

The protocol is Pyro5's (``Pyro5.nameserver.BroadcastServer``): a datagram ``GET_NSURI`` to UDP port
9091 is answered with the name server's URI. Who asks is not known, and its address may be forged:
an answer is one small datagram, and there are only so many in a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, cast

from Pyro5.core import URI

log = logging.getLogger(__name__)

REQUEST: Final = b"GET_NSURI"
ANSWERS_PER_S_MAX: Final = 50
ANSWER_SIZE_BYTES_MAX: Final = 100
"""Stock clients read no more than this."""


class BroadcastResponder(asyncio.DatagramProtocol):
    """Answers requests for a name server's URI.

    Args:
        uri: the answer.
        clock: monotonic, in seconds.

    Attributes:
        answers: how many were sent.

    Raises:
        ValueError: the URI is longer than clients read.
    """

    def __init__(self, uri: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._answer = uri.encode("ascii")
        if len(self._answer) > ANSWER_SIZE_BYTES_MAX:
            raise ValueError(f"{uri} is longer than {ANSWER_SIZE_BYTES_MAX} bytes")
        self._clock = clock
        self._second = clock()
        self._answers_in_second = 0
        self._transport: asyncio.DatagramTransport | None = None
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop: the socket is open."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Called by the loop: a datagram has come."""
        if data != REQUEST or self._transport is None:
            return
        now = self._clock()
        if now - self._second >= 1.0:
            self._second, self._answers_in_second = now, 0
        if self._answers_in_second < ANSWERS_PER_S_MAX:
            self._answers_in_second += 1
            self.answers += 1
            self._transport.sendto(self._answer, addr)

    def error_received(self, exc: Exception) -> None:
        """Called by the loop: an answer could not be delivered. Nobody waits for it."""


@contextlib.asynccontextmanager
async def answering_broadcasts(uri: str, port: int) -> AsyncIterator[int | None]:
    """Answer broadcasts while entered; where that cannot be done, go on without, and say so.

    Args:
        uri: of the name server, on an IPv4 address or name: IPv6 has no broadcast.
        port: UDP port.

    Yields:
        The port, or None if there is no responder.
    """
    transport = None
    if ":" not in (URI(uri).host or ":"):
        try:
            sock = _broadcast_socket(port)
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: BroadcastResponder(uri), sock=sock
            )
        except (OSError, ValueError) as error:
            log.warning("the name server is not found by broadcast: port %d, %s", port, error)
    try:
        yield transport.get_extra_info("sockname")[1] if transport is not None else None
    finally:
        if transport is not None:
            transport.close()


def _broadcast_socket(port: int) -> socket.socket:
    # Bound to all addresses: one that is bound to a single address gets no broadcasts.
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock

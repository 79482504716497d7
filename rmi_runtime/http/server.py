"""An HTTP/1.1 server for one ASGI application, in this process' event loop.

    async with HttpServer(app) as server:
        await server.start(listen("127.0.0.1", 8080))

Why not a ready-made one: see ``docs/decisions`` (http-server).
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from heapq import nsmallest
from types import TracebackType

from rmi_runtime import errors
from rmi_runtime.daemon.tls_listener import Listener, listen_on
from rmi_runtime.http.admission import Refusal
from rmi_runtime.http.direct import DirectRoutes
from rmi_runtime.http.exchange import AsgiApp
from rmi_runtime.http.flow import Ahead
from rmi_runtime.http.limits import HttpLimits
from rmi_runtime.http.protocol import HttpProtocol

BACKLOG = 2048
FULL_S = 0.1
"""Pause between two vain looks for a connection to send away."""

NO_ROUTES: DirectRoutes = {}
METHODS_USUAL = ("GET", "HEAD", "OPTIONS", "POST")
SECURITY_HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
"""Sent with every answer: keep it nowhere, run nothing in it, take its media type at its word."""


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Return a listening socket.

    Args:
        host: a name or address of this machine.
        port: 0 for any free one.
        reuse_port: let other processes of this user listen on the same port too; the kernel
            deals the connections out.

    Raises:
        Unavailable: the port is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _cannot_listen(host, port, error) from None
    return sock


def _cannot_listen(host: str, port: int, error: OSError) -> errors.Unavailable:
    why = error.strerror or str(error)
    hint = "give the address of one of this machine's interfaces"
    if error.errno == errno.EADDRINUSE:
        hint = "stop the program that listens there, or choose another port"
    elif error.errno == errno.EACCES:
        hint = "choose a port from 1024 on"
    return errors.Unavailable(f"cannot listen for HTTP on {host}:{port}: {why}; {hint}")


class HttpServer:
    """Serves one application on one socket.

    Args:
        app: the ASGI application; it gets ``http`` scopes only, each with its whole body.
        limits: bounds.
        direct: routes to answer without the application.
        methods: those that some path takes; whoever asks with one that is none is told of them.
        refusal: asked about requests whose clients wait for a word before they send the body; None:
            they are all encouraged.
        headers: sent with every answer, names in lower case.
        on_refused: called with the status of each request that was refused before the
            application saw it.
        clock: returns seconds, monotonic.

    Attributes:
        connections: the open ones.
        under_way: requests in the application.
        ahead: what waits unread, of all connections.
        bodies_size_bytes: of all bodies that are being received, or whose requests are not over.
        draining: nothing new is taken.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        limits: HttpLimits | None = None,
        direct: DirectRoutes = NO_ROUTES,
        methods: Sequence[str] = METHODS_USUAL,
        refusal: Refusal | None = None,
        headers: Mapping[str, str] = SECURITY_HEADERS,
        on_refused: Callable[[int], None] = lambda status: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.direct = direct
        self.methods = methods
        self.refusal = refusal
        self.limits = (limits or HttpLimits()).within_descriptors()
        self.on_refused = on_refused
        self.clock = clock
        self.connections: set[HttpProtocol] = set()
        self.under_way = 0
        self.draining = False
        self.bodies_size_bytes = 0
        self.ahead = Ahead(self.limits.ahead_size_bytes_max)
        self.scheme = "http"
        self.address: tuple[str, int] = ("", 0)
        self.loop: asyncio.AbstractEventLoop
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.common_head = b""  # the last headers of every answer, and the line that ends them
        self._server: Listener | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._full_at = -math.inf  # when there was nobody to be sent away

    async def __aenter__(self) -> HttpServer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Take connections from *sock*, which now belongs to the server.

        Args:
            sock: listening; see :func:`listen`.
            tls: speak HTTPS.
        """
        self.loop = asyncio.get_running_loop()
        self.scheme = "https" if tls else "http"
        self.address = sock.getsockname()[:2]
        self._keep_sweeping()
        self._server = await listen_on(
            sock,
            lambda: HttpProtocol(self),
            tls,
            handshake_s=self.limits.head_wait_s,
            backlog=BACKLOG,
        )

    def count_in(self, newcomer: HttpProtocol) -> int:
        """Note a new connection, and make room for it if need be: silence locks nobody out.

        Returns:
            How many connections there are beyond the bound.
        """
        excess = len(self.connections) + 1 - self.limits.connections_max
        if excess > 0 and self.clock() >= self._full_at + FULL_S:
            excess -= self._send_silent_away()
        self.connections.add(newcomer)
        return excess

    def request_over(self, body_size_bytes: int) -> None:
        """Take note that the application is done with a request.

        Args:
            body_size_bytes: of its body.
        """
        self.under_way -= 1
        self.bodies_size_bytes -= body_size_bytes

    def _send_silent_away(self) -> int:
        """Close the connections that have asked nothing for longest; return how many."""
        now_s, limits = self.clock(), self.limits

        def patience_s(each: HttpProtocol) -> float:
            return limits.write_wait_s if each.unread_bytes else limits.silent_s_min

        silent = [
            each
            for each in self.connections
            if each.idle and now_s - each.since_s >= patience_s(each)
        ]
        if not silent:
            self._full_at = now_s
        # Several at once, since looking at all of them for each newcomer would be a flood's work.
        leaving = nsmallest(limits.refusals_max, silent, key=lambda each: each.since_s)
        for connection in leaving:
            self.connections.discard(connection)
            connection.transport.abort()
        return len(leaving)

    async def drain(self, timeout_s: float) -> bool:
        """Take no new connections, answer what is under way, and close all connections.

        Args:
            timeout_s: how long that may last.

        Returns:
            Whether all was answered in time.
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.shutdown()
        deadline_s = self.clock() + timeout_s
        while self.connections or self.under_way:
            if self.clock() > deadline_s:
                return False
            await asyncio.sleep(0.01)
        return True

    async def close(self) -> None:
        """Cut what :meth:`drain` has left, and free the port."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            await self._server.wait_closed()

    def sweep(self) -> None:
        """Look at every connection's clock, and write the present date into coming answers."""
        now_s = self.clock()
        for connection in tuple(self.connections):
            connection.sweep(now_s)
        self._cut_off_slow_readers()
        self.common_head = f"date: {formatdate(usegmt=True)}\r\n{self._headers}\r\n".encode()

    def _cut_off_slow_readers(self) -> None:
        slow = [connection for connection in self.connections if connection.writing_paused]
        slow.sort(key=lambda connection: connection.since_s)
        unread = [connection.unread_bytes for connection in slow]
        excess_bytes = sum(unread) - self.limits.unread_size_bytes_max
        for connection, size_bytes in zip(slow, unread, strict=True):
            if excess_bytes <= 0:
                return
            connection.transport.abort()
            excess_bytes -= size_bytes

    def _keep_sweeping(self) -> None:
        self.sweep()
        self._sweeper = self.loop.call_later(self.limits.sweep_every_s, self._keep_sweeping)

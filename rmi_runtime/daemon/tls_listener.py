"""Accepts connections and shakes hands for TLS: with so many at a time, and for so long.

asyncio's own server, handed a TLS context, tells nobody of a connection before its handshake is
over, and holds as many silent sockets until then as the system has descriptors. Here they are
counted from the first moment, and the one that has waited for longest makes way for the next.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final, Protocol

from rmi_runtime.credentials.tls import SHUTDOWN_S
from rmi_runtime.daemon.faults import FaultMeter, address_of
from rmi_runtime.limits import handshakes_bound
from rmi_runtime.sparse_log import sparse_logger

log = sparse_logger(__name__)

WAITING_MAX: Final = 1024
"""Most handshakes under way. A willing client needs its place for two turns on the network."""

ACCEPT_BURST: Final = 64
PAUSE_S: Final = 0.1
"""Pause after the system had no descriptor left for a connection."""


class Listener(Protocol):
    """What takes connections from a socket; also asyncio's own servers."""

    def close(self) -> None:
        """Take no more."""
        ...

    async def wait_closed(self) -> None:
        """Return when the port is free."""
        ...


async def listen_on(
    sock: socket.socket,
    inside: Callable[[], asyncio.Protocol],
    context: ssl.SSLContext | None,
    *,
    handshake_s: float,
    backlog: int,
    on_refused: Callable[[], None] = lambda: None,
    faults: FaultMeter | None = None,
) -> Listener:
    """Take connections from a socket, with TLS or without.

    Args:
        sock: bound; belongs to the listener from now on.
        inside: makes the protocol of a connection.
        context: of a server, or None for no TLS.
        handshake_s: how long a TLS handshake may take.
        backlog: connections that the system keeps ready.
        on_refused: called for each connection whose TLS handshake failed.
        faults: counts them, and lets those wait who make many.
    """
    loop = asyncio.get_running_loop()
    if context is not None:
        return TlsListener(
            *(sock, inside, context),
            handshake_s=handshake_s,
            backlog=backlog,
            on_refused=on_refused,
            faults=faults,
        )
    create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
    server = await create(inside, sock=sock, backlog=backlog, start_serving=False)
    try:
        await server.start_serving()
    except BaseException:  # whoever waits for this may be cancelled
        server.close()
        raise
    return server


class TlsListener:
    """Listens on one socket, and hands each connection to a protocol when its handshake is over.

    Args:
        sock: bound; belongs to this from now on.
        inside: makes the protocol of a connection.
        context: of a server.
        handshake_s: how long a handshake may take.
        backlog: connections that the system keeps ready.
        waiting_max: most handshakes under way, if there are descriptors for them.
        on_refused: called for each connection whose handshake failed.
        faults: counts them, and lets those wait who make many: a handshake is the most expensive
            thing that a stranger can ask for.
    """

    def __init__(
        self,
        sock: socket.socket,
        inside: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        *,
        handshake_s: float,
        backlog: int,
        waiting_max: int = WAITING_MAX,
        on_refused: Callable[[], None] = lambda: None,
        faults: FaultMeter | None = None,
    ) -> None:
        self._sock = sock
        self._inside = inside
        self._context = context
        self._handshake_s = handshake_s
        self._waiting_max = handshakes_bound(waiting_max)
        self._on_refused = on_refused
        self._faults = faults
        self._waiting: dict[asyncio.Task[None], None] = {}  # in the order of their coming
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        sock.listen(backlog)
        self._listen()

    @property
    def waiting(self) -> int:
        """How many handshakes are under way."""
        return len(self._waiting)

    def close(self) -> None:
        """Take no more connections, and cut off those who shake hands."""
        if self._sock.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for task in self._waiting:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return when those who shook hands are gone."""
        if self._waiting:
            await asyncio.wait(list(self._waiting))

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPT_BURST):
            try:
                connection, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("no connection can be accepted: %s", error)
                self._make_room()
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(PAUSE_S, self._listen)
                return
            self._receive(connection, peer)

    def _receive(self, connection: socket.socket, peer: object) -> None:
        connection.setblocking(False)
        if len(self._waiting) >= self._waiting_max:
            self._make_room()
        task = self._loop.create_task(self._shake_hands(connection, peer))
        self._waiting[task] = None
        task.add_done_callback(partial(self._ended, connection))

    def _ended(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._waiting.pop(task, None)
        if task.cancelled():  # before it was begun: nobody else has the socket
            self._on_refused()
            connection.close()

    def _make_room(self) -> None:
        if self._waiting:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            longest.cancel()

    async def _shake_hands(self, connection: socket.socket, peer: object) -> None:
        try:
            await self._wait_for_faults(connection, address_of(peer))
            await self._loop.connect_accepted_socket(
                self._inside,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError as error:
            log.info("a connection closed without a TLS handshake: %s", error)
            self._on_refused()
            if self._faults is not None:
                self._faults.note(address_of(peer), time.monotonic())
        except asyncio.CancelledError:  # it made way, or the listener closes
            self._on_refused()

    async def _wait_for_faults(self, connection: socket.socket, caller: Hashable) -> None:
        """Let a newcomer wait for what its caller did wrong before."""
        if self._faults is None:
            return
        wait_s = self._faults.newcomer_wait_s(caller, time.monotonic())
        if wait_s <= 0:
            return
        try:
            await asyncio.sleep(wait_s)
        except BaseException:
            connection.close()  # the loop does not have it yet
            raise

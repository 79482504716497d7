"""The asyncio daemon: serves Pyro objects to stock Pyro5 clients and to our own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import ssl as tls
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from Pyro5 import client as stock_client
from Pyro5.core import URI
from Pyro5.errors import DaemonError, SerializeError

from rmi_runtime import context, wire
from rmi_runtime.context import ANONYMOUS, Identity
from rmi_runtime.daemon.call_rate import CallRate
from rmi_runtime.daemon.connection import ServerConnection
from rmi_runtime.daemon.connections import READING_S, Connections
from rmi_runtime.daemon.daemon_object import DaemonObject
from rmi_runtime.daemon.dispatch import Dispatcher
from rmi_runtime.daemon.failures import Tracebacks
from rmi_runtime.daemon.faults import FaultMeter
from rmi_runtime.daemon.listening import bind
from rmi_runtime.daemon.objects import NotCopied, ObjectTable
from rmi_runtime.daemon.streams import StreamTable
from rmi_runtime.daemon.tls_listener import Listener, listen_on
from rmi_runtime.daemon.turns import Turns
from rmi_runtime.limits import DaemonLimits
from rmi_runtime.settings.rules import is_loopback
from rmi_runtime.sparse_log import sparse_logger
from rmi_runtime.wire import serializers
from rmi_runtime.wire.blob import read_blob_call
from rmi_runtime.wire.serializers import Call, Serializer

log = sparse_logger(__name__)

Authenticate = Callable[[object, object], Identity | Awaitable[Identity]]

BACKLOG = 4096
HOUSEKEEPING_S = 0.25
GIVE_UP_S = 1.0
READ_PAUSE_S = 0.01


class Daemon(NotCopied):
    """Serves registered objects on one event loop.

    ``async def`` methods run as tasks, plain ones at once on the loop (so they must not block),
    or on threads if *threads* is given. Objects are exposed with Pyro5's own decorators.

    The socket is bound here, so that :meth:`register` knows the address; nothing is answered until
    the daemon is entered with ``async with`` (or :meth:`start` is awaited).

    Args:
        host: address to bind. Anything but loopback needs *ssl* and *authenticate*, or *insecure*.
        port: port to bind; 0 picks a free one.
        unixsocket: path of a Unix domain socket to bind instead.
        ssl: server context for TLS, or None. If it asks for certificates, services (who know the
            cluster key) must have shown one.
        authenticate: ``(handshake data, peer address) -> Identity``, plain or async; it raises to
            refuse. None: everyone is anonymous.
        limits: bounds; see :class:`DaemonLimits`.
        insecure: bind a reachable address without TLS and authentication all the same.
        threads: run plain methods on so many threads; 0 runs them on the loop.
        compress: deflate large replies.
        tracebacks: send remote tracebacks, as stock Pyro5 does; ``detailed``: with local variables.

    Raises:
        ValueError: *host* is reachable from outside and the daemon would be open.
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        unixsocket: str | None = None,
        ssl: tls.SSLContext | None = None,
        authenticate: Authenticate | None = None,
        limits: DaemonLimits | None = None,
        insecure: bool = False,
        threads: int = 0,
        compress: bool = False,
        tracebacks: Tracebacks = True,
    ) -> None:
        host = host or "127.0.0.1"
        if not (unixsocket or insecure or is_loopback(host)) and not (ssl and authenticate):
            raise ValueError(
                f"binding {host} lets other machines in: give ssl and authenticate, "
                "bind a loopback address, or say insecure=True"
            )
        self.limits = (limits or DaemonLimits()).within_descriptors()
        self.threads = threads
        self.compress = compress
        self.tracebacks = tracebacks
        self.draining = False
        self.calls = self.errors = self.overloads = 0
        self.connections = Connections(self.limits)
        self.faults = FaultMeter(self.limits.faults_per_s, self.limits.faults_burst)
        self.streams = StreamTable(self.limits, time.monotonic, self.executor_of)
        self._ssl = ssl
        self._authenticate = authenticate
        self._unixsocket = unixsocket
        self._socket, self.location = bind(host, port, unixsocket)
        self.daemon_object = DaemonObject(self)
        self.objects = ObjectTable(self.daemon_object)
        self._rate = CallRate()
        self._server: Listener | None = None
        self._housekeeper: asyncio.Task[None] | None = None
        self._closed = False
        self._starting = asyncio.Lock()
        self.started_at = math.inf  # not yet
        self.executor: Executor | None = None
        self.dispatcher = Dispatcher(self)
        self.turns = Turns()

    # -- life-cycle

    async def start(self) -> None:
        """Begin to answer. Harmless if it does so already.

        Raises:
            DaemonError: it has been closed, perhaps while it began.
        """
        async with self._starting:
            if self._server is None or self._closed:
                await self._start()

    async def _start(self) -> None:
        self._refuse_closed()
        self.loop = asyncio.get_running_loop()
        self.started_at = time.monotonic()
        if self.threads:
            self.executor = self._new_executor()
        self._server = await listen_on(
            self._socket,
            self._new_connection,
            self._ssl,
            handshake_s=self.limits.handshake_s,
            backlog=BACKLOG,
            on_refused=self.connections.count_refusal,
            faults=self.faults,
        )
        try:
            self._refuse_closed()
        except DaemonError:
            self._server.close()
            raise
        self._housekeeper = asyncio.create_task(self._keep_house())

    def _refuse_closed(self) -> None:
        if self._closed:
            raise DaemonError("this daemon has been closed: make a new one")

    async def __aenter__(self) -> Daemon:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def drain(self, timeout_s: float = 10.0) -> bool:
        """Refuse new work with a definite ``Draining`` error, and wait for what is under way.

        Replies are waited for as well, while their callers read them.

        Args:
            timeout_s: how long to wait at most.

        Returns:
            True if everything was finished in time.
        """
        self.draining = True
        deadline = time.monotonic() + timeout_s
        while self.dispatcher.running:
            if (remaining := deadline - time.monotonic()) <= 0:
                return False
            await asyncio.wait(list(self.dispatcher.running), timeout=remaining)
        await self._let_read(deadline)
        return True

    async def _let_read(self, deadline: float) -> None:
        """Wait for those who read their replies; not for who has read nothing for a second."""
        unread: dict[ServerConnection, tuple[int, float]] = {}
        while (now := time.monotonic()) < deadline:
            left = {one: size for one in self.connections if (size := one.unread_bytes)}
            before, unread = unread, {one: (size, now) for one, size in left.items()}
            unread |= {one: seen for one, seen in before.items() if seen[0] == left.get(one)}
            if all(now - since >= READING_S for _, since in unread.values()):
                return
            await asyncio.sleep(READ_PAUSE_S)

    async def close(self) -> None:
        """Stop: close the socket, give up what is under way, drop the connections."""
        if self._closed:
            return
        self._closed = self.draining = True
        self.connections.close()
        async with self._starting:  # else it might listen on a socket that is closed
            pass
        if self._housekeeper is not None:
            self._housekeeper.cancel()
        if self._server is not None:
            self._server.close()
        running = list(self.dispatcher.running)
        for task in running:
            self.dispatcher.give_up(task)
        try:
            if running:
                await asyncio.wait(running, timeout=GIVE_UP_S)
            await self.streams.close_all(GIVE_UP_S)
        finally:  # whoever waits for this may be cancelled
            self._let_go()
        await asyncio.sleep(0)  # lets the transports tell their connections of the end

    def _let_go(self) -> None:
        self.streams.clear()
        for connection in self.connections:
            connection.close()
        self._socket.close()
        if self.executor is not None:
            self.executor.shutdown(wait=False, cancel_futures=True)
        if self._unixsocket and self._unixsocket[0] != "\0":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._unixsocket)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            try:
                self._tidy(time.monotonic())
            except Exception:
                log.exception("housekeeping failed; it will be tried again")

    def _tidy(self, now: float) -> None:
        self.connections.tidy()
        self.dispatcher.sweep()
        self.streams.sweep()
        self._rate.look(now, self.calls)

    # -- connections (called by ServerConnection)

    def _new_executor(self) -> Executor:
        return ThreadPoolExecutor(self.threads, "pyro-method")

    def _new_connection(self) -> ServerConnection:
        return ServerConnection(self, self.connections.next_number())

    def greeted(self, connection: ServerConnection) -> None:
        """Note that a connection's handshake is done."""
        self.connections.greeted(connection)

    def dismiss(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended."""
        self.connections.dismiss(connection)
        if self.streams:
            self.streams.orphan(connection)

    def bounds(self, identity: Identity) -> tuple[int, int]:
        """Return the bounds on one message of this caller: bytes, and elements."""
        stranger = self._authenticate is not None and identity.kind == ANONYMOUS.kind
        return self.limits.of_message(stranger=stranger)

    def authenticate(
        self, handshake: object, connection: ServerConnection
    ) -> Identity | Awaitable[Identity]:
        """Return who is calling, or an awaitable of it; raises to refuse."""
        return self._authenticate(handshake, connection.peer) if self._authenticate else ANONYMOUS

    def greeting(self, handshake: object, connection: ServerConnection) -> object:
        """Return the handshake data of the reply; override it to send something of your own."""
        return "hello"

    def annotations(self) -> dict[str, bytes]:
        """Return annotations for every reply; override it to send some."""
        return {}

    def welcome_annotations(self, connection: ServerConnection) -> dict[str, bytes]:
        """Return annotations for the answer to a handshake; those of every reply, and more."""
        return self.annotations()

    def serializer(self, serializer_id: int) -> Serializer:
        """Return the serializer with this number.

        Raises:
            SerializeError: it is unknown, or marshal, which is not made for untrusted bytes.
        """
        if (found := serializers.BY_ID.get(serializer_id)) is None:
            raise SerializeError(
                f"serializer {serializer_id} is not accepted: use serpent, json or msgpack"
            )
        return found

    def read_call(self, serializer: Serializer, message: wire.Message, elements_max: int) -> Call:
        """Read the call in an INVOKE message."""
        if message.flags & wire.FLAG_KEEP_SERIALIZED:
            return read_blob_call(message, serializer, elements_max)
        return serializer.load_call(message.payload, elements_max)

    def executor_for(self, call: context.Call) -> Executor | None:
        """Return the threads that a plain method runs on for this call."""
        return self.executor

    def executor_of(self, connection: object) -> Executor | None:
        """Return the threads that close what a connection used; None if that is done at once."""
        return None if self._closed else self.executor

    # -- objects

    def register(
        self, obj_or_class: Any, name: str | None = None, *, force: bool = False, weak: bool = False
    ) -> URI:
        """Make an object, or a class whose objects are made on demand, callable from outside.

        Args:
            obj_or_class: an object, or a class (see Pyro5's ``@behavior``).
            name: its object id in this daemon; None makes one up.
            force: take the id from another object, or give a second id to this one.
            weak: forget the object when nobody else holds it.

        Returns:
            The URI to reach it.

        Raises:
            TypeError: the name is no string, or a class is to be held weakly.
            DaemonError: the id is taken, or the object has one.
        """
        return self.uri_for(self.objects.add(obj_or_class, name, self, force=force, weak=weak))

    def unregister(self, obj_or_name: Any) -> None:
        """Forget an object. One that is unknown here is no error; the daemon's own object stays.

        Raises:
            DaemonError: the object has never been registered.
        """
        self.objects.discard(obj_or_name)

    def uri_for(self, obj_or_name: Any) -> URI:
        """Return the URI of a registered object, or of a name.

        Raises:
            DaemonError: the object is not registered here.
        """
        return URI(f"PYRO:{self.objects.id_of(obj_or_name)}@{self.location}")

    def proxyFor(self, obj_or_name: Any) -> Any:
        """Return a stock, unconnected proxy of a registered object, to be sent to a client.

        Pyro5's serializers call this, by this name, for every registered object in a result.
        """
        uri = self.uri_for(obj_or_name)
        proxy = stock_client.Proxy(uri)
        proxy._pyroGetMetadata(known_metadata=self.objects.metadata(uri.object))
        return proxy

    # -- figures

    def stats(self) -> dict[str, Any]:
        """Return what the daemon is doing, as plain values.

        Returns:
            ``state`` (``ready`` or ``draining``), ``pid``, ``location``, ``uptime_s``, ``calls``,
            ``errors``, ``overloads``, ``refusals`` (counts since the start), ``calls_per_s`` (of
            the last few seconds), ``connections``, ``inflight``, ``streams``, ``objects``.
        """
        now = time.monotonic()
        return {
            "state": "draining" if self.draining else "ready",
            "pid": os.getpid(),
            "location": self.location,
            "uptime_s": round(max(0.0, now - self.started_at), 3),
            "calls": self.calls,
            "errors": self.errors,
            "overloads": self.overloads,
            "refusals": self.connections.refusals,
            "calls_per_s": round(self._rate.per_s(now, self.calls), 1),
            "connections": len(self.connections),
            "inflight": len(self.dispatcher.running),
            "streams": len(self.streams),
            "objects": len(self.objects),
        }

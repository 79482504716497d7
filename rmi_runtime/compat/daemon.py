"""Pyro5's ``Daemon`` and ``serve`` as programs see them; what they run on is in ``serving``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import uvloop
from Pyro5 import client as stock_client
from Pyro5 import config
from Pyro5.api import URI, locate_ns
from Pyro5.errors import PyroError

from rmi_runtime.compat import stock_config
from rmi_runtime.compat.missing import WithoutSome
from rmi_runtime.compat.serving import Serving, on_interrupt, run_until_complete
from rmi_runtime.context import ANONYMOUS, current
from rmi_runtime.daemon.daemon import BACKLOG
from rmi_runtime.daemon.daemon_object import DaemonObject
from rmi_runtime.daemon.objects import ObjectTable
from rmi_runtime.limits import DaemonLimits

log = logging.getLogger(__name__)

ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104  (what "" stands for; it is refused unless wanted)
HOUSEKEEPING_S: Final = 2.0  # about as often as stock
CONDITION_S: Final = 0.1  # how often the condition of a request loop is asked
SHUTDOWN_S: Final = 5.0
DRAIN_S: Final = 1.0


class Daemon(WithoutSome):
    """Pyro5's daemon, as far as programs see it. Override its methods as with Pyro5.

    Args:
        host: name or address to bind; None: as configured; "": all addresses. Anything but
            loopback needs TLS with client certificates or an overridden ``validateHandshake``, or
            *insecure*.
        port: port to bind; 0 picks a free one.
        unixsocket: path of a Unix domain socket to bind instead.
        nathost: host to put into URIs instead of the bound one.
        natport: the port that belongs to it; 0 is the bound one.
        interface: class of the daemon's own object, derived from :class:`DaemonObject`.
        threads: how many threads run plain methods; 0 runs them on the loop, one at a time, as
            Pyro5's multiplex server does. None: as configured.
        limits: bounds; None: Pyro5's configuration and our defaults.
        insecure: bind a reachable address without TLS and authentication all the same.

    Raises:
        ValueError: the daemon would be open to other machines, or what is configured is incomplete.
        PyroError: the configured type of server does not exist.
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        host: object = None,
        port: int = 0,
        unixsocket: str | None = None,
        nathost: object = None,
        natport: int | None = None,
        interface: type[DaemonObject] = DaemonObject,
        *,
        threads: int | None = None,
        limits: DaemonLimits | None = None,
        insecure: bool = False,
    ) -> None:
        if not (isinstance(interface, type) and issubclass(interface, DaemonObject)):
            raise TypeError("derive the interface class from rmi_runtime.compat.DaemonObject")
        nat = stock_config.nat_address(nathost, natport, unixsocket)
        threads = stock_config.configured_threads() if threads is None else threads
        checks = self.overrides("validateHandshake") or config.SSL_REQUIRECLIENTCERT
        serving = Serving(
            self,
            str(config.HOST if host is None else host).strip("[]") or ANY_ADDRESS,
            port,
            unixsocket=unixsocket,
            ssl=stock_config.configured_ssl(),
            authenticate=(lambda handshake, peer: ANONYMOUS) if checks else None,
            limits=limits or stock_config.configured_limits(),
            insecure=insecure,
            threads=threads,
            compress=bool(config.COMPRESSION),
            tracebacks="detailed" if config.DETAILED_TRACEBACK else True,
        )
        serving.daemon_object = own = interface(serving)
        own.daemon = self  # for those derived from it
        serving.objects = ObjectTable(serving.daemon_object)
        serving._socket.listen(BACKLOG)  # who comes early waits, as with stock
        self._serving = serving
        self.methodcall_error_handler: Callable[..., None] = _note_error
        self._nat = nat and (nat[0], nat[1] or serving._socket.getsockname()[1])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: int | None = None
        self._stopping: asyncio.Event | None = None
        self._must_close = self._closed = False
        self._closing = threading.RLock()  # who hears of the end may close it once more
        self._loop_ended = threading.Event()
        self._loop_ended.set()

    def overrides(self, method: str) -> bool:
        """Tell whether a subclass has its own *method*."""
        return getattr(type(self), method) is not getattr(Daemon, method)

    # -- to be overridden

    def validateHandshake(self, conn: Any, data: object) -> object:
        """Return the answer to a client's handshake data, or raise to refuse the client."""
        return "hello"

    def clientDisconnect(self, conn: Any) -> None:
        """Learn that a client has gone."""

    def annotations(self) -> dict[str, bytes]:
        """Return annotations for every reply."""
        return {}

    def housekeeping(self) -> None:
        """Do what is to be done every few seconds."""

    # -- objects

    def register(
        self,
        obj_or_class: Any,
        objectId: str | None = None,
        force: bool = False,
        weak: bool = False,
    ) -> URI:
        """Make an object or a class callable. All as :meth:`rmi_runtime.Daemon.register`."""
        objects = self._serving.objects
        return self.uriFor(objects.add(obj_or_class, objectId, self, force=force, weak=weak))

    def unregister(self, objectOrId: Any) -> None:
        """Forget an object. All as :meth:`rmi_runtime.Daemon.unregister`."""
        if objectOrId is None:
            raise ValueError("object or objectid argument expected")
        self._serving.objects.discard(objectOrId)

    def uriFor(self, objectOrId: Any, nat: bool = True) -> URI:
        """Return the URI of a registered object, or of a name; *nat*: with the NAT address."""
        return URI(f"PYRO:{self._serving.objects.id_of(objectOrId)}@{self._location(nat)}")

    def proxyFor(self, objectOrId: Any, nat: bool = True) -> Any:
        """Return Pyro5's proxy of a registered object, not connected."""
        proxy = stock_client.Proxy(self.uriFor(objectOrId, nat))
        known = self._serving.objects.metadata(proxy._pyroUri.object)
        proxy._pyroGetMetadata(known_metadata=known)
        return proxy

    def resetMetadataCache(self, objectOrId: Any, nat: bool = True) -> None:
        """Notice that the exposed members of an object have changed."""
        self._serving.objects.reset_metadata(objectOrId)

    @property
    def objectsById(self) -> Mapping[str, Any]:
        """The registered objects and classes by their ids."""
        return self._serving.objects.by_id()

    # -- where

    @property
    def locationStr(self) -> str:
        """Host and port, or socket, that is bound."""
        return self._serving.location

    @property
    def natLocationStr(self) -> str | None:
        """Host and port that go into URIs instead, or None."""
        return self._location(nat=True) if self._nat else None

    def _location(self, nat: bool) -> str:
        if not nat or self._nat is None:
            return self._serving.location
        host, port = self._nat
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def sock(self) -> socket.socket:
        """The socket that is listened on."""
        return self._serving._socket

    @property
    def sockets(self) -> list[socket.socket]:
        """The same, in a list."""
        return [self.sock]

    # -- life-cycle

    def requestLoop(self, loopCondition: Callable[[], bool] | None = None) -> None:
        """Serve, until *loopCondition* is false, or :meth:`shutdown` is called, or Ctrl-C.

        Raises:
            PyroError: the daemon is closed, or serves in another thread.
        """
        loop = self._begin()
        serving = loop.create_task(self._serve(loopCondition))
        try:
            with on_interrupt(self._interrupt), contextlib.suppress(KeyboardInterrupt):
                run_until_complete(loop, serving)
        finally:
            self._end(loop, serving)

    def _begin(self) -> asyncio.AbstractEventLoop:
        """Return the loop to serve on; who closes from now on leaves that to it."""
        with self._closing:
            if self._closed:
                raise PyroError("cannot reuse this object")
            if not self._loop_ended.is_set():
                raise PyroError("this daemon serves already, in another thread")
            loop = self._loop = self._loop or uvloop.new_event_loop()
            self._loop_thread = threading.get_ident()
            self._loop_ended.clear()
            return loop

    def _interrupt(self) -> bool:
        """End the request loop; False if that has been tried, or it has not begun."""
        loop, stopping = self._loop, self._stopping
        if loop is None or stopping is None or stopping.is_set():
            return False
        loop.call_soon_threadsafe(stopping.set)
        return True

    def _end(self, loop: asyncio.AbstractEventLoop, serving: asyncio.Task[None]) -> None:
        """Leave the loop in order; close what shall be closed."""
        if not serving.done():
            serving.cancel()
            run_until_complete(loop, asyncio.wait([serving]))
        self._stopping = None
        try:
            if self._must_close:
                self._close_now()
        finally:
            self._loop_thread = None
            self._loop_ended.set()

    async def _serve(self, condition: Callable[[], bool] | None) -> None:
        self._stopping = stopping = asyncio.Event()
        if self._must_close:
            return
        await self._serving.start()
        housekeeper = asyncio.create_task(self._keep_house())
        try:
            while not stopping.is_set() and (condition is None or condition()):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if condition is None else CONDITION_S):
                        await stopping.wait()
        finally:
            housekeeper.cancel()

    async def _keep_house(self) -> None:
        while self.overrides("housekeeping"):
            await asyncio.sleep(HOUSEKEEPING_S)
            try:
                await self._serving.apart(None, self.housekeeping)
            except (asyncio.CancelledError, KeyboardInterrupt):
                raise
            except BaseException:  # SystemExit, too: it is not for this to end the daemon
                log.exception("housekeeping failed")

    def shutdown(self) -> None:
        """End the request loop and close the daemon; from any thread, also from a remote method."""
        self.close()  # as stock: programs override it

    def close(self) -> None:
        """Close the sockets; end the request loop, if there is one."""
        self._must_close = True
        if self._loop_ended.is_set():
            self._close_now()
            return
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            self._interrupt()
        if current.get(None) is None and self._loop_thread != threading.get_ident():
            self._loop_ended.wait(SHUTDOWN_S)  # not within a remote call, which ends before it

    def _close_now(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            with contextlib.closing(self._loop or uvloop.new_event_loop()) as loop:
                run_until_complete(loop, self._leave())

    async def _leave(self) -> None:
        await self._serving.drain(DRAIN_S)  # whoever called shutdown remotely shall be answered
        await self._serving.close()

    def __enter__(self) -> Daemon:
        if self._closed:
            raise PyroError("cannot reuse this object")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = f"{type(self).__module__}.{type(self).__name__}"
        return f"<{name} at {self.locationStr}; {len(self._serving.objects)} objects>"


def _note_error(
    daemon: Daemon,
    client_sock: object,
    method: Callable[..., Any],
    vargs: Sequence[Any],
    kwargs: Mapping[str, Any],
    exception: Exception,
) -> None:
    """Log what a method raised; programs set their own handler in its place.

    Args:
        daemon: whose object it is.
        client_sock: the client's address.
        method: that raised.
        vargs, kwargs: its arguments.
        exception: what it raised, which the client gets.
    """
    log.debug("%s, called by %s, raised %r", method, client_sock, exception)


def serve(
    objects: Mapping[Any, str | None],
    host: object = None,
    port: int = 0,
    daemon: Daemon | None = None,
    use_ns: bool = True,
    verbose: bool = True,
) -> None:
    """Serve objects until the daemon is shut down.

    Args:
        objects: what to register, and under which names (None: none).
        host: as :class:`Daemon`.
        port: as :class:`Daemon`.
        daemon: serve with this one instead of a new one.
        use_ns: the names are for the name server; otherwise they are the object ids.
        verbose: print the URIs.
    """
    with daemon or Daemon(host, port) as serving:
        name_server = locate_ns() if use_ns else None
        for obj, name in objects.items():
            uri = serving.register(obj, None if name_server else name)
            if name_server and name:
                name_server.register(name, uri)
            if verbose:
                known_as = f"\n    name = {name}" if name_server and name else ""
                print(f"Object {obj!r}:\n    uri = {uri}{known_as}")
        if verbose:
            print("Pyro daemon running.")
        serving.requestLoop()

"""Servers of three kinds behind one face: stock Pyro5, our daemon, our drop-in for stock's."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from typing import Any, Protocol

import Pyro5.api

from rmi_runtime import Daemon, DaemonLimits, compat
from tests.compat.loops import LoopThread

Greet = Callable[[Any], Any]


class Server(Protocol):
    """What the checks may do with a server."""

    location: str

    def register(self, obj_or_class: Any, name: str, **options: Any) -> str: ...

    def unregister(self, obj_or_name: Any) -> None: ...

    def run(self, function: Callable[..., Any], *args: Any) -> Any: ...

    def stop(self) -> None: ...


def make_server(
    kind: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    unixsocket: str | None = None,
    tls: ssl.SSLContext | None = None,
    limits: DaemonLimits | None = None,
    greet: Greet | None = None,
    annotations: dict[str, bytes] | None = None,
) -> Server:
    """Start a server.

    Args:
        kind: ``stock``, ``daemon`` or ``dropin``.
        host: to bind.
        port: to bind.
        unixsocket: to bind instead.
        tls: for our daemon; the others take theirs from Pyro5's configuration.
        limits: for our daemon; likewise.
        greet: makes the greeting of the handshake data, or raises to refuse.
        annotations: for every reply.
    """
    if kind == "daemon":
        return _AsyncServer(host, port, unixsocket, tls, limits, greet, annotations)
    base = Pyro5.api.Daemon if kind == "stock" else compat.Daemon
    return ThreadedServer(base, host, port, unixsocket, greet, annotations)


class ThreadedServer:
    """Pyro5's own, or what stands in for it: the same code drives both."""

    def __init__(
        self,
        base: Any,
        host: str,
        port: int,
        unixsocket: str | None,
        greet: Greet | None,
        annotations: dict[str, bytes] | None,
    ) -> None:
        own: dict[str, Any] = {}
        if greet is not None:
            own["validateHandshake"] = lambda self, conn, data: greet(data)
        if annotations is not None:
            own["annotations"] = lambda self: annotations
        made = type("Daemon", (base,), own)
        self._daemon = made(host, port, unixsocket)
        self.location = self._daemon.locationStr
        self._thread = threading.Thread(target=self._daemon.requestLoop, daemon=True)
        self._thread.start()

    def register(self, obj_or_class: Any, name: str, **options: Any) -> str:
        return str(self._daemon.register(obj_or_class, name, **options))

    def unregister(self, obj_or_name: Any) -> None:
        if isinstance(obj_or_name, str) or hasattr(obj_or_name, "_pyroId"):
            self._daemon.unregister(obj_or_name)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._hang_up()
            self._daemon.shutdown()
            self._thread.join(10)

    def clients(self) -> int:
        """Return how many connections a stock daemon serves; each has a thread."""
        return len(self._daemon.transportServer.pool.busy)

    def _hang_up(self) -> None:
        """Close the clients' connections, which a stock daemon serves on after its end."""
        if isinstance(self._daemon, Pyro5.api.Daemon):
            for worker in list(self._daemon.transportServer.pool.busy):
                job = worker.job  # None if it has just ended
                if job is not None:
                    job.csock.close()


class _OurDaemon(Daemon):
    greet: Greet | None = None
    always: dict[str, bytes] | None = None

    def greeting(self, handshake: object, connection: Any) -> object:
        return "hello" if self.greet is None else self.greet(handshake)

    def annotations(self) -> dict[str, bytes]:
        return self.always or {}


class _AsyncServer:
    """Our daemon, on a loop of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        unixsocket: str | None,
        tls: ssl.SSLContext | None,
        limits: DaemonLimits | None,
        greet: Greet | None,
        annotations: dict[str, bytes] | None,
    ) -> None:
        self._thread = LoopThread()
        self._daemon = _OurDaemon(host, port, unixsocket=unixsocket, ssl=tls, limits=limits)
        self._daemon.greet = greet
        self._daemon.always = annotations
        self.location = self._daemon.location
        self._thread.run(self._daemon.start())

    def register(self, obj_or_class: Any, name: str, **options: Any) -> str:
        def register() -> str:
            return str(self._daemon.register(obj_or_class, name, **options))

        return self._thread.call(register)

    def unregister(self, obj_or_name: Any) -> None:
        if self._thread.loop.is_closed():
            return
        if isinstance(obj_or_name, str) or hasattr(obj_or_name, "_pyroId"):
            self._thread.call(self._daemon.unregister, obj_or_name)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._thread.call(function, *args)

    def stop(self) -> None:
        if not self._thread.loop.is_closed():
            self._thread.run(self._daemon.close())
            self._thread.stop()

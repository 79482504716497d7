"""The world a row is tried in: one kind of client, one kind of server, made as they are needed."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from types import TracebackType
from typing import Any

from Pyro5 import config, socketutil
from Pyro5.callcontext import current_context

from tests.compat.clients import Client, make_client, wrap_client
from tests.compat.servers import Server, make_server
from tests.compat.table import Direction

_numbers = itertools.count(1)


class Servers:
    """One ordinary server of each kind for all rows that need no special one."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Server] = {}

    def ordinary(self, kind: str) -> Server:
        if kind not in self._by_kind:
            self._by_kind[kind] = make_server(kind)
        return self._by_kind[kind]

    def close(self) -> None:
        for server in self._by_kind.values():
            server.stop()


class World:
    """What a check gets.

    Attributes:
        direction: who calls whom.
        directory: for temporary files.
    """

    def __init__(self, direction: Direction, servers: Servers, directory: Path) -> None:
        self.direction = direction
        self.directory = directory
        self._servers = servers
        self._own: Server | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> World:
        current_context.annotations = {}
        current_context.correlation_id = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        current_context.annotations = {}
        current_context.correlation_id = None

    @property
    def server(self) -> Server:
        """The server: this world's own, or the ordinary one."""
        return self._own or self._servers.ordinary(self.direction.server)

    def start_server(self, **options: Any) -> Server:
        """Give this world a server of its own; see :func:`make_server`."""
        self._own = make_server(self.direction.server, **options)
        self._stack.callback(self._own.stop)
        return self._own

    def configure(self, **items: Any) -> None:
        """Set items of Pyro5's configuration until this world ends."""
        before = {name: getattr(config, name) for name in items}

        def restore() -> None:
            for name, value in before.items():
                setattr(config, name, value)
            self._forget_ssl()

        self._stack.callback(restore)
        for name, value in items.items():
            setattr(config, name, value)
        self._forget_ssl()

    @staticmethod
    def _forget_ssl() -> None:  # which Pyro5 makes once per process
        for side in ("server", "client"):
            setattr(socketutil, f"__ssl_{side}_context", None)

    def serve(self, obj_or_class: Any, **options: Any) -> str:
        """Register an object under a new name, and return its URI."""
        name = f"thing.{next(_numbers)}"
        uri = self.server.register(obj_or_class, name, **options)
        self._stack.callback(self.server.unregister, obj_or_class)
        return uri

    def connect(self, uri: str, **options: Any) -> Client:
        """Return a client for an object; see :func:`make_client`."""
        client = make_client(self.direction.client, uri, **options)
        self._stack.callback(client.close)
        return client

    def client(self, obj_or_class: Any, **options: Any) -> Client:
        """Serve an object and return a client for it."""
        return self.connect(self.serve(obj_or_class), **options)

    def adopt(self, proxy: Any) -> Client:
        """Return a client around a proxy that came as a result."""
        client = wrap_client(self.direction.client, proxy)
        self._stack.callback(client.close)
        return client

    def host(self, obj: Any, name: str = "callback") -> str:
        """Serve an object at the client's side, with a daemon of the client's kind."""
        kind = "stock" if self.direction.client == "stock" else "daemon"
        server = make_server(kind)
        self._stack.callback(server.stop)
        return server.register(obj, name)

    def defer(self, function: Any, *args: Any) -> None:
        """Call a function when this world ends."""
        self._stack.callback(function, *args)

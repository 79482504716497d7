"""The asyncio proxy: calls remote objects, many at a time, on one connection."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import (
    Awaitable,
    Callable,
    Generator,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import Any

from Pyro5 import config
from Pyro5.core import NAMESERVER_NAME, URI
from Pyro5.errors import PyroError
from Pyro5.serializers import SerializerBase

from rmi_runtime import errors, serializers, wire
from rmi_runtime.client_connection import ClientConnection
from rmi_runtime.proxy_results import Batch, RemoteStream

Resolve = Callable[[str], Awaitable[str]]

DEFAULT_TIMEOUT_S = 10.0


class Proxy:
    """Stands for a remote object: ``await proxy.method(...)``, ``await proxy.attribute``.

    The connection is made by the first call, or by entering the proxy with ``async with``, and made
    anew before a call if it has broken meanwhile. A call that was sent is never sent again.

    Names that begin with an underscore belong to the proxy itself, all others to the remote object.

    Args:
        uri: ``PYRO:``, ``PYRONAME:`` or ``PYROMETA:`` URI.
        handshake: data for the server's authentication, such as ``{"token": "…"}``.
        timeout_s: deadline of each call, and of connecting, in seconds.
        serializer: ``msgpack``, ``serpent`` or ``json``.
        ssl: client context for TLS, or None.
        resolve: makes a ``PYRO:`` URI of the other two; None asks Pyro's configured name server.
        correlation_id: 16 bytes sent with every call, or None.
    """

    def __init__(
        self,
        uri: str | URI,
        *,
        handshake: object = "hello",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        serializer: str = "msgpack",
        ssl: tls.SSLContext | None = None,
        resolve: Resolve | None = None,
        correlation_id: bytes | None = None,
    ) -> None:
        if serializer not in serializers.BY_NAME:
            raise ValueError(
                f"unknown serializer {serializer!r}: expected one of {sorted(serializers.BY_NAME)}"
            )
        self._uri = uri if isinstance(uri, URI) else URI(uri)
        self._handshake = handshake
        self._timeout_s = timeout_s
        self._serializer_name = serializer
        self._ssl = ssl
        self._resolve = resolve
        self._correlation_id = correlation_id
        self._connection: ClientConnection | None = None
        self._object_id = ""
        self._connecting: asyncio.Lock | None = None
        self._methods: frozenset[str] = frozenset()
        self._attrs: frozenset[str] = frozenset()
        self._oneway: frozenset[str] = frozenset()
        self._handshake_reply: object = None

    # -- calls

    def __getattr__(self, name: str) -> _Member:
        if name.startswith("_"):
            raise AttributeError(
                f"{name!r} is private; for an exposed special method use proxy._call({name!r})"
            )
        member = _Member(self, name)
        self.__dict__[name] = member  # found without __getattr__ from now on
        return member

    def _call(
        self,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        flags: int = 0,
        object_id: str | None = None,
        annotations: Mapping[str, bytes] | None = None,
    ) -> Awaitable[Any]:
        """Call a method by name. Await the result.

        Args:
            method: its name.
            args: positional arguments.
            kwargs: keyword arguments.
            timeout_s: deadline of this call; None takes the proxy's.
            flags: message flags (``wire.FLAG_…``).
            object_id: another object of the same daemon, such as ``Pyro.Daemon``.
            annotations: sent along, 4-letter ids to bytes.

        Returns:
            An awaitable of the result.

        Raises:
            Unavailable: no connection could be made; nothing was sent.
            ConnectionLost, CallTimeout: it was sent, and may have happened.
            Exception: whatever the remote method raises.
        """
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        connection = self._connection
        if connection is None or connection.closed:
            return self._call_connecting(
                method, args, kwargs, wait_s, flags, object_id, annotations
            )
        if method in self._oneway:
            flags |= wire.FLAG_ONEWAY
        return connection.invoke(
            object_id or self._object_id,
            method,
            args,
            kwargs,
            wait_s,
            flags,
            annotations,
            self._correlation_id,
        )

    async def _call_connecting(
        self,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        timeout_s: float,
        flags: int,
        object_id: str | None,
        annotations: Mapping[str, bytes] | None,
    ) -> Any:
        began = asyncio.get_running_loop().time()
        connection = await self._bind(timeout_s)
        if method in self._oneway:
            flags |= wire.FLAG_ONEWAY
        left_s = timeout_s - (asyncio.get_running_loop().time() - began)
        return await connection.invoke(
            object_id or self._object_id,
            method,
            args,
            kwargs,
            max(left_s, 0.001),
            flags,
            annotations,
            self._correlation_id,
        )

    async def _set(self, name: str, value: Any) -> None:
        """Set a remote attribute (an exposed property with a setter)."""
        await self._call("__setattr__", (name, value))

    def _batch(self) -> Batch:
        """Return a collector of calls that go as one message."""
        return Batch(self)

    # -- connection

    @property
    def _connected(self) -> bool:
        """True while the connection stands, as far as is known."""
        return self._connection is not None and not self._connection.closed

    async def _bind(self, timeout_s: float | None = None) -> ClientConnection:
        """Connect, unless connected.

        Args:
            timeout_s: how long it may take; None takes the proxy's time.

        Returns:
            The connection.

        Raises:
            Unavailable: nobody answers there.
            RmiError: the server, or the name server, refuses.
        """
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(wait_s), self._connecting:
                if self._connection is None or self._connection.closed:
                    self._connection = await self._connect(wait_s)
                return self._connection
        except TimeoutError:
            raise errors.Unavailable(f"could not connect to {self._uri} in {wait_s} s") from None

    async def _connect(self, timeout_s: float) -> ClientConnection:
        uri = await self._direct_uri(timeout_s)
        loop = asyncio.get_running_loop()

        def protocol() -> ClientConnection:
            chosen = serializers.BY_NAME[self._serializer_name]
            return ClientConnection(chosen, lambda stream_id: RemoteStream(self, stream_id))

        try:
            if uri.sockname:
                _, connection = await loop.create_unix_connection(
                    protocol, uri.sockname, ssl=self._ssl
                )
            else:
                _, connection = await loop.create_connection(
                    protocol, uri.host, uri.port, ssl=self._ssl
                )
        except OSError as error:
            raise errors.Unavailable(f"cannot connect to {uri}: {error}") from error
        try:
            answer = await connection.greet(uri.object, self._handshake, timeout_s)
            self._object_id = uri.object
            self._handshake_reply = answer.get("handshake")
            self._learn(answer.get("meta"))
        except BaseException:
            connection.close()
            raise
        return connection

    def _learn(self, metadata: Any) -> None:
        if not isinstance(metadata, Mapping):
            raise errors.Unavailable("the server did not tell what the object offers")
        self._methods = frozenset(metadata.get("methods", ()))
        self._attrs = frozenset(metadata.get("attrs", ()))
        self._oneway = frozenset(metadata.get("oneway", ()))

    async def _direct_uri(self, timeout_s: float) -> URI:
        if self._uri.protocol == "PYRO":
            return self._uri
        if self._resolve is not None:
            return URI(await self._resolve(str(self._uri)))
        host = self._uri.host or config.NS_HOST
        location = f"{host}:{self._uri.port or config.NS_PORT}"
        name_server = Proxy(
            f"PYRO:{NAMESERVER_NAME}@{self._uri.location or location}",
            timeout_s=timeout_s,
            serializer="serpent",
            ssl=self._ssl,
        )
        async with name_server:
            if self._uri.protocol == "PYRONAME":
                return URI(await name_server.lookup(self._uri.object))
            found = await name_server.yplookup(sorted(self._uri.object), None, False)
        if not found:
            raise errors.NotFound(f"no object is registered with the tags {self._uri.object}")
        return URI(sorted(found.values())[0])

    async def _close(self) -> None:
        """Close the connection. The next call makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            await asyncio.sleep(0)

    async def __aenter__(self) -> Proxy:
        await self._bind()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    # -- travelling: a proxy sent to a peer is a proxy there

    def _state(self) -> tuple[Any, ...]:
        # The handshake stays here: it may hold a token.
        return (
            str(self._uri),
            tuple(self._oneway),
            tuple(self._methods),
            tuple(self._attrs),
            "hello",
            None,
        )

    @classmethod
    def _from_state(cls, state: Any) -> Proxy:
        """Make a proxy of one that a peer sent. It dials nobody before it is used.

        Raises:
            PyroError: the state makes no sense.
        """
        if not isinstance(state, (list, tuple)) or len(state) < 6 or not isinstance(state[0], str):
            raise PyroError("a serialized proxy makes no sense: expected six values, a URI first")
        uri, oneway, methods, attrs, handshake, _ = state[:6]
        proxy = cls(uri, handshake=handshake)
        proxy._learn({"oneway": oneway, "methods": methods, "attrs": attrs})
        return proxy

    def __repr__(self) -> str:
        state = "connected" if self._connected else "not connected"
        return f"<{type(self).__module__}.Proxy for {self._uri}, {state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and str(other._uri) == str(self._uri)

    def __hash__(self) -> int:
        return hash(str(self._uri))


class _Member:
    """A member of a remote object: call it if it is a method, await it if it is an attribute."""

    __slots__ = ("_name", "_proxy")

    def __init__(self, proxy: Proxy, name: str) -> None:
        self._proxy = proxy
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return self._proxy._call(self._name, args, kwargs)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._proxy._call("__getattr__", (self._name,)).__await__()

    def __repr__(self) -> str:
        return f"<member {self._name} of {self._proxy!r}>"


def _proxy_to_dict(proxy: Proxy) -> dict[str, Any]:
    return {"__class__": "Pyro5.client.Proxy", "state": proxy._state()}


SerializerBase.register_class_to_dict(Proxy, _proxy_to_dict)

"""The asyncio proxy: calls remote objects, many at a time, on one connection."""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from Pyro5.core import DAEMON_NAME, URI
from Pyro5.errors import PyroError
from Pyro5.serializers import SerializerBase

from rmi_runtime import errors, serializers, wire
from rmi_runtime.client_connection import ClientConnection
from rmi_runtime.proxy_names import Resolve, direct_uri
from rmi_runtime.proxy_results import Batch, Member, RemoteStream
from rmi_runtime.tls import connect_options

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
        annotations: sent with every call, 4-letter ids to bytes.
        compress: deflate large requests.

    A proxy that is dropped without being closed gives a ``ResourceWarning`` and closes itself.
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
        annotations: Mapping[str, bytes] | None = None,
        compress: bool = False,
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
        self._annotations = annotations
        self._compress = compress
        self._connection: ClientConnection | None = None
        self._direct: URI | None = None  # of the last connection
        self._closings = 0
        self._object_id = ""
        self._loop: asyncio.AbstractEventLoop | None = None  # where it was connected last
        self._methods: frozenset[str] = frozenset()
        self._attrs: frozenset[str] = frozenset()
        self._oneway: frozenset[str] = frozenset()
        self._handshake_reply: object = None

    # -- calls

    def __getattr__(self, name: str) -> Member:
        if name.startswith("_"):
            raise AttributeError(
                f"{name!r} is private; for an exposed special method use proxy._call({name!r})"
            )
        member = Member(self, name)
        self.__dict__[name] = member  # found without __getattr__ from now on
        return member

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(
                f"a remote attribute is set with: await proxy._set({name!r}, value)"
            )
        object.__setattr__(self, name, value)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over a remote object that exposes ``__iter__``."""
        stream = await self._call("__iter__")
        async for item in stream:
            yield item

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
        correlation_id: bytes | None = None,
        answer: dict[str, bytes] | None = None,
    ) -> Awaitable[Any]:
        """Call a method by name. Await the result.

        Args:
            method: its name.
            args: positional arguments.
            kwargs: keyword arguments.
            timeout_s: deadline of this call; None takes the proxy's.
            flags: message flags (``wire.FLAG_…``).
            object_id: another object of the same daemon, such as ``Pyro.Daemon``.
            annotations: sent along instead of the proxy's own, 4-letter ids to bytes.
            correlation_id: 16 bytes, sent along instead of the proxy's own.
            answer: a dictionary that takes the annotations of the reply.

        Returns:
            An awaitable of the result.

        Raises:
            Unavailable: no connection could be made; nothing was sent.
            ConnectionLost, CallTimeout: it was sent, and may have happened.
            Exception: whatever the remote method raises.
        """
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        connection = self._connection
        if connection is None or connection.closed or connection.loop.is_closed():
            return self._call_connecting(
                method, args, kwargs, wait_s, flags, object_id, annotations, correlation_id, answer
            )
        if method in self._oneway and object_id is None:
            flags |= wire.FLAG_ONEWAY
        return connection.invoke(
            object_id or self._object_id,
            method,
            args,
            kwargs,
            wait_s,
            flags,
            annotations or self._annotations,
            correlation_id or self._correlation_id,
            answer,
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
        correlation_id: bytes | None,
        answer: dict[str, bytes] | None,
    ) -> Any:
        began = asyncio.get_running_loop().time()
        connection = await self._bind(timeout_s)
        if connection.closed:
            raise errors.Unavailable(f"{self._uri} hung up before the call was sent")
        left_s = timeout_s - (asyncio.get_running_loop().time() - began)
        return await self._call(
            method,
            args,
            kwargs,
            timeout_s=max(left_s, 0.001),
            flags=flags,
            object_id=object_id,
            annotations=annotations,
            correlation_id=correlation_id,
            answer=answer,
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
        connection: ClientConnection | None = self.__dict__.get("_connection")
        return not (connection is None or connection.closed or connection.loop.is_closed())

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
        if self._loop is not (loop := asyncio.get_running_loop()):  # a lock is good for one only
            self._loop, self._connecting = loop, asyncio.Lock()
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(wait_s), self._connecting:
                if self._connection is None or not self._connected:
                    closings = self._closings
                    connection = await self._connect(wait_s)
                    if self._closings != closings:
                        connection.close()
                        raise errors.Unavailable(f"{self!r} was closed while it connected")
                    self._connection = connection
                return self._connection
        except TimeoutError:
            raise errors.Unavailable(f"could not connect to {self._uri} in {wait_s} s") from None

    async def _connect(self, timeout_s: float) -> ClientConnection:
        uri = await direct_uri(self._uri, self._resolve, self._ask_name_server, timeout_s)
        loop, protocol = asyncio.get_running_loop(), self._new_connection
        options = connect_options(self._ssl)
        try:
            if uri.sockname:
                options["server_hostname"] = "localhost" if self._ssl else None
                _, connection = await loop.create_unix_connection(protocol, uri.sockname, **options)
            else:
                _, connection = await loop.create_connection(
                    protocol, uri.host, uri.port, **options
                )
        except OSError as error:
            raise errors.Unavailable(f"cannot connect to {uri}: {error}") from error
        try:
            answer = await connection.greet(uri.object, self._handshake, timeout_s)
            self._direct, self._object_id = uri, uri.object
            self._handshake_reply = answer.get("handshake")
            self._learn(answer.get("meta"))
        except BaseException:
            connection.close()
            raise
        return connection

    def _new_connection(self) -> ClientConnection:
        """Make a connection that does not keep this proxy alive, so that a dropped one closes."""
        weak, cls = weakref.ref(self), type(self)

        def adopt(state: Any) -> Any:
            proxy = weak()
            return cls._from_state(state) if proxy is None else proxy._adopt(state)

        def stream(stream_id: str) -> RemoteStream:
            proxy = weak()
            if proxy is None:
                raise ReferenceError("its proxy is gone, so that the items cannot be fetched")
            return RemoteStream(proxy, stream_id)

        serializer = type(serializers.BY_NAME[self._serializer_name])(adopt)
        return ClientConnection(serializer, stream, compress=self._compress)

    def _learn(self, metadata: Any) -> None:
        """Take note of what the object offers."""
        try:
            known = [frozenset(metadata[key]) for key in ("methods", "attrs", "oneway")]
        except (TypeError, KeyError):
            raise errors.Unavailable("the server did not tell what the object offers") from None
        self._methods, self._attrs, self._oneway = known

    async def _ask_name_server(
        self, name_server: str, method: str, args: Sequence[Any], timeout_s: float
    ) -> Any:
        # Not with this proxy's handshake: that is for the object's own server.
        options: dict[str, Any] = {"timeout_s": timeout_s, "ssl": self._ssl}
        async with Proxy(name_server, serializer="serpent", **options) as proxy:
            return await proxy._call(method, args)

    async def _close(self) -> None:
        """Close the connection. The next call makes a new one."""
        self._closings += 1
        connected, connection = self._connected, self._connection
        self._connection = None
        if connected and connection is not None:
            connection.close()
            await asyncio.sleep(0)

    def __del__(self) -> None:
        if not self._connected:
            return
        warnings.warn(f"{self!r} was dropped unclosed", ResourceWarning, source=self, stacklevel=2)
        self._from_anywhere(ClientConnection.forget)

    def _forget_stream(self, stream_id: str) -> None:
        """Close a stream whose reader was dropped, wherever the garbage collector runs."""
        self._from_anywhere(
            lambda connection: connection.invoke(
                DAEMON_NAME, "close_stream", (stream_id,), None, 0.0, wire.FLAG_ONEWAY
            )
        )

    def _from_anywhere(self, act: Callable[[ClientConnection], object]) -> None:
        """Do something with the connection, if it stands, on its own loop."""
        connection = self._connection
        if connection is not None and not connection.closed:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                connection.loop.call_soon_threadsafe(act, connection)

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
    def _from_state(cls, state: Any, **options: Any) -> Proxy:
        """Make a proxy of one that a peer sent. It dials nobody before it is used.

        Args:
            state: what came.
            options: as for a new proxy.

        Raises:
            PyroError: the state makes no sense.
        """
        if not isinstance(state, (list, tuple)) or len(state) < 6 or not isinstance(state[0], str):
            raise PyroError("a serialized proxy makes no sense: expected six values, a URI first")
        uri, oneway, methods, attrs, handshake, _ = state[:6]
        proxy = cls(uri, handshake=handshake, **options)
        proxy._learn({"oneway": oneway, "methods": methods, "attrs": attrs})
        return proxy

    def _adopt(self, state: Any) -> Any:
        """Make a proxy of one that came in a reply: it may do what this one may.

        It keeps this one's TLS, and shows the same handshake data, which may hold a token, to this
        one's server; to others it shows what came with it.
        """
        proxy = self._from_state(
            state,
            timeout_s=self._timeout_s,
            serializer=self._serializer_name,
            ssl=self._ssl,
            resolve=self._resolve,
            compress=self._compress,
        )
        if self._direct is not None and proxy._uri.location == self._direct.location:
            proxy._handshake = self._handshake
        return proxy

    def __repr__(self) -> str:
        state = "connected" if self._connected else "not connected"
        return f"<{type(self).__module__}.Proxy for {self._uri}, {state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and str(other._uri) == str(self._uri)

    def __hash__(self) -> int:
        return hash(str(self._uri))


def _proxy_to_dict(proxy: Proxy) -> dict[str, Any]:
    return {"__class__": "Pyro5.client.Proxy", "state": proxy._state()}


SerializerBase.register_class_to_dict(Proxy, _proxy_to_dict)

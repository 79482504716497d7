"""The asyncio proxy: calls remote objects, many at a time, on one connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import warnings
import weakref
from asyncio.events import _get_running_loop
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar

from Pyro5.serializers import SerializerBase

from rmi_runtime import errors, wire
from rmi_runtime.credentials.tls import SHUTDOWN_S, connect_options
from rmi_runtime.proxy import stock_names
from rmi_runtime.proxy.calls import Late
from rmi_runtime.proxy.connection import ClientConnection
from rmi_runtime.proxy.names import direct_uri
from rmi_runtime.proxy.results import Batch, Member, RemoteStream
from rmi_runtime.proxy.state import ProxyState, checked_timeout
from rmi_runtime.settings.rules import PORT_MAX
from rmi_runtime.wire import serializers


class Proxy(ProxyState):
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

    _loop_rests: ClassVar[bool] = False  # while calls are made

    # -- calls

    def __getattr__(self, name: str) -> Member:
        if name.startswith("_"):
            raise AttributeError(stock_names.refusal(name))
        return Member(self, name)  # not kept: with it a dropped proxy would wait for the collector

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(
                f"a remote attribute is set with: await proxy._set({name!r}, value)"
            )
        if name in stock_names.INSTEAD:  # to keep it would look as if it were heeded
            raise AttributeError(stock_names.refusal(name))
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
        timeout_s: float | None = None,
        flags: int = 0,
        object_id: str | None = None,
        annotations: Mapping[str, bytes] | None = None,
        correlation_id: bytes | None = None,
        answer: dict[str, bytes] | None = None,
        late: Late | None = None,
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
            late: takes the result if it comes when nobody waits for it any more.

        Returns:
            An awaitable of the result, which ``asyncio.create_task`` takes as well. If the proxy is
            connected, the call has been sent already, and need not be awaited.

        Raises:
            Misused: the proxy is connected on another loop, which goes on; nothing was sent.
            ValueError: the deadline is no number of seconds; nothing was sent.
            DeadlinePassed: there is no time left for the call; nothing was sent.
            Unavailable: no connection could be made; nothing was sent.
            ConnectionLost, CallTimeout: it was sent, and may have happened.
            Exception: whatever the remote method raises.
        """
        wait_s = self._timeout_s if timeout_s is None else checked_timeout(timeout_s)
        if wait_s <= 0:
            words = f"{method!r:.100} was not sent: timeout_s is {wait_s}, expected more than 0"
            raise errors.DeadlinePassed(words)
        connection = self._connection
        running = _get_running_loop()
        if (
            connection is None
            or connection.closed
            or (running is not connection.home and running is not connection.loop)
        ):
            options = (flags, object_id, annotations, correlation_id, answer, late)
            return self._call_connecting(wait_s, method, args, kwargs, options)
        if method in self._oneway and object_id is None:
            flags |= wire.FLAG_ONEWAY
        object_id = object_id or self._object_id
        notes = annotations or self._annotations
        id = correlation_id or self._correlation_id
        return connection.invoke(
            object_id, method, args, kwargs, wait_s, flags, notes, id, answer, late
        )

    async def _call_connecting(
        self,
        timeout_s: float,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        options: tuple[Any, ...],
    ) -> Any:
        """Connect, and make the call in what is left of the time."""
        began = asyncio.get_running_loop().time()
        connection = await self._bind(timeout_s)
        if connection.closed:
            raise errors.Unavailable(f"{self._uri} hung up before the call was sent")
        left_s = timeout_s - (asyncio.get_running_loop().time() - began)
        return await self._call(method, args, kwargs, left_s, *options)

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
            Misused: it is connected on another loop, which goes on.
            Unavailable: nobody answers there.
            RmiError: the server, or the name server, refuses.
        """
        if self._loop is not (loop := asyncio.get_running_loop()):  # a lock is good for one only
            self._loop, self._connecting, self._ends = loop, asyncio.Lock(), set()
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        self._leave_other_loops()
        closings = self._closings
        try:
            async with asyncio.timeout(wait_s), self._connecting:
                if self._connection is None or not self._connected:
                    self._check_not_closed_since(closings)  # it may have waited for others
                    connection = await self._connect(wait_s)
                    try:
                        self._check_not_closed_since(closings)
                        if self._loop is not loop:  # of another thread: it has begun meanwhile
                            raise self._on_another_loop()
                    except errors.Definite:
                        connection.close()
                        raise
                    self._connection = connection
                return self._connection
        except TimeoutError:
            raise errors.Unavailable(f"could not connect to {self._uri} in {wait_s} s") from None

    def _check_not_closed_since(self, closings: int) -> None:
        if self._closings != closings:
            raise errors.Unavailable(f"{self!r} was closed while it connected")

    def _leave_other_loops(self) -> None:
        connection = self._connection
        if connection is None or connection.loop is self._loop:
            return
        if connection.inherited:
            connection.abandon()
        elif self._connected:
            raise self._on_another_loop()

    def _on_another_loop(self) -> errors.Misused:
        return errors.Misused(
            f"{self!r} is connected on another event loop: close it there, or make a proxy "
            "for each loop; nothing was sent"
        )

    async def _connect(self, timeout_s: float) -> ClientConnection:
        uri = await direct_uri(self._uri, self._resolve, self._ask_name_server, timeout_s)
        loop, protocol = asyncio.get_running_loop(), self._new_connection
        options = connect_options(self._ssl)
        try:
            if uri.sockname:
                options["server_hostname"] = "localhost" if self._ssl else None
                if uri.sockname[0] == "\0":
                    options["sock"] = _abstract_socket(uri.sockname)
                else:
                    options["path"] = uri.sockname
                _, connection = await loop.create_unix_connection(protocol, **options)
            elif uri.port > PORT_MAX:  # the C library takes what is left of it in 16 bits
                raise errors.Unavailable(f"cannot connect to {uri}: ports end at {PORT_MAX}")
            else:
                _, connection = await loop.create_connection(
                    protocol, uri.host, uri.port, **options
                )
        except (OSError, ValueError) as error:  # the latter: no host can have that name
            raise errors.Unavailable(f"cannot connect to {uri}: {error}") from error
        except IndexError:  # asyncio's own, if a signal's handler raises an error of the system
            raise errors.Unavailable(f"cannot connect to {uri}: it was interrupted") from None
        self._ends.add(connection.ended)
        connection.ended.add_done_callback(self._ends.discard)
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

        def leave(connection: ClientConnection) -> None:
            if (proxy := weak()) is not None and proxy._connection is connection:
                proxy._connection = None
                connection.forget()

        serializer = type(serializers.BY_NAME[self._serializer_name])(adopt)
        return ClientConnection(
            serializer, stream, leave, compress=self._compress, resting=self._loop_rests
        )

    async def _ask_name_server(
        self, name_server: str, method: str, args: Sequence[Any], timeout_s: float
    ) -> Any:
        # Not with this proxy's handshake: that is for the object's own server.
        options: dict[str, Any] = {"timeout_s": timeout_s, "ssl": self._ssl}
        async with Proxy(name_server, serializer="serpent", **options) as proxy:
            return await proxy._call(method, args)

    async def _close(self) -> None:
        """Close the connection when oneway calls have left. The next call makes a new one."""
        self._closings += 1
        connected, connection = self._connected, self._connection
        self._connection = None
        loop = asyncio.get_running_loop()
        if connected and connection is not None:
            if connection.loop is loop or connection.inherited:
                connection.close()
            else:  # its transport is for that loop's thread
                _on_loop(connection, ClientConnection.close)
        ends = {end for end in self._ends if end.get_loop() is loop}
        if connection is not None and connection.telling and connection.ended in ends:
            await asyncio.wait({connection.ended})  # has a bound: see hang_up
        elif self._ssl is None or (connection is not None and connection.inherited):
            await asyncio.sleep(0)
        elif ends:  # both sides say goodbye; a loop that ends before that leaves the socket open
            await asyncio.wait(ends, timeout=2 * SHUTDOWN_S)

    def __del__(self) -> None:
        if not self._connected:
            return
        if self._connection is not None and self._connection.inherited:
            self._connection.abandon()
            return
        try:
            warnings.warn(f"{self!r} was dropped unclosed", ResourceWarning, 2, source=self)
        finally:  # the warning may be an error
            self._from_anywhere(ClientConnection.forget)

    def _forget_stream(self, stream_id: str) -> None:
        """Close a stream whose reader was dropped, wherever the garbage collector runs."""
        if (connection := self._connection) is not None and not connection.closed:
            connection.unread.append(stream_id)  # it may be closed before its loop goes on
            _on_loop(connection, ClientConnection.close_unread)

    def _from_anywhere(self, act: Callable[[ClientConnection], object]) -> None:
        """Do something with the connection, if it stands, on its own loop."""
        connection = self._connection
        if connection is not None and not connection.closed:
            _on_loop(connection, act)

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

    def __repr__(self) -> str:
        state = "connected" if self._connected else "not connected"
        return f"<rmi_runtime.Proxy for {self._uri}, {state}>"


def _on_loop(connection: ClientConnection, act: Callable[[ClientConnection], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed already
        connection.loop.call_soon_threadsafe(act, connection)


def _abstract_socket(name: str) -> socket.socket:
    """Connect to a name of Linux's abstract namespace, which uvloop itself does not take."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(name)  # at once, or not at all
    except OSError:
        sock.close()
        raise
    return sock


def _proxy_to_dict(proxy: Proxy) -> dict[str, Any]:
    return {"__class__": "Pyro5.client.Proxy", "state": proxy._state()}


SerializerBase.register_class_to_dict(Proxy, _proxy_to_dict)

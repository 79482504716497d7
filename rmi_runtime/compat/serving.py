"""What is below :class:`rmi_runtime.compat.Daemon`: the asyncio daemon, with stock's hooks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from asyncio.events import _get_running_loop
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Protocol, cast
from uuid import UUID
from weakref import WeakKeyDictionary

from Pyro5 import config
from Pyro5.callcontext import current_context
from Pyro5.client import Proxy
from Pyro5.core import URI
from Pyro5.errors import PyroError

from rmi_runtime import wire
from rmi_runtime.compat.threads import DaemonThreads
from rmi_runtime.context import ANONYMOUS, Call, Identity
from rmi_runtime.daemon.connection import ServerConnection
from rmi_runtime.daemon.daemon import Daemon
from rmi_runtime.daemon.endings import apart
from rmi_runtime.daemon.on_threads import overloaded
from rmi_runtime.signal_errors import SignalErrors
from rmi_runtime.wire.serializers import MakeProxy, Serializer, make_serializers

log = logging.getLogger(__name__)


@contextlib.contextmanager
def on_interrupt(act: Callable[[], bool]) -> Iterator[None]:
    """Call *act* at Ctrl-C in this block, if this is the main thread and nobody else does.

    An interrupt in the midst of a loop's callback would be taken for that callback's own error.

    Args:
        act: returns False to have ``KeyboardInterrupt`` raised after all.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def handle(number: int, frame: object) -> None:
        if not act():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_until_complete(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any]) -> None:
    """Run *loop* until something is done; apart, if another one runs in this thread.

    A stock daemon can be run there, and closed, by those who know that it blocks.
    """
    if _get_running_loop() is None:
        signals = SignalErrors()
        loop.set_exception_handler(signals.handle)
        try:
            loop.run_until_complete(awaitable)
        finally:
            signals.raise_again()
    else:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(loop.run_until_complete, awaitable).result()


class Facade(Protocol):
    """What programs override."""

    def overrides(self, method: str) -> bool: ...

    def validateHandshake(self, conn: Any, data: object) -> object: ...

    def clientDisconnect(self, conn: Any) -> None: ...

    def annotations(self) -> dict[str, bytes]: ...

    def uriFor(self, objectOrId: Any, nat: bool = True) -> URI: ...

    methodcall_error_handler: Callable[..., None]


class _FirstUser:
    """Owner of a proxy that was made on the loop: the first thread that uses it."""

    _thread: int | None = None

    def __eq__(self, thread: object) -> bool:
        if self._thread is None and isinstance(thread, int):
            self._thread = thread
        return self._thread == thread

    def __hash__(self) -> int:
        return hash(self._thread)


def _stock_proxy(serializer: str) -> MakeProxy:
    """Return what makes Pyro5's own proxies of the serialized ones that come in."""

    def make(state: Any) -> Any:
        if not isinstance(state, (list, tuple)) or len(state) != 6 or not isinstance(state[0], str):
            raise PyroError("a serialized proxy makes no sense: expected six values, a URI first")
        proxy = Proxy.__new__(Proxy)
        proxy.__setstate__(state)
        proxy._pyroSerializer = proxy._pyroSerializer or serializer  # which its owner understands
        proxy._Proxy__pyroOwnerThread = _FirstUser()
        return proxy

    return make


_SERIALIZERS: Final[Mapping[int, Serializer]] = {
    serializer.serializer_id: serializer for serializer in make_serializers(_stock_proxy).values()
}


_HELLO: Final[tuple[object, dict[str, bytes]]] = ("hello", {})
"""What is said to a client, and its annotations, where ``validateHandshake`` is not overridden."""


class EndedSocket:
    """Stands for the socket of a connection that has ended: ``clientDisconnect`` may ask whose.

    Args:
        sock: the socket, while it is open.
        peer: the other end's address.
    """

    def __init__(self, sock: Any, peer: object) -> None:
        self.family = sock.family
        self._here, self._peer = sock.getsockname(), peer

    def getpeername(self) -> object:
        """Return the address that the client had."""
        return self._peer

    def getsockname(self) -> object:
        """Return the address at which it reached the daemon."""
        return self._here

    def fileno(self) -> int:
        """Return -1, as closed sockets do."""
        return -1


class Connection(ServerConnection):
    """A connection with the methods of Pyro5's ``SocketConnection`` that programs use."""

    in_turn = True
    greeting_mark: bytes | None = None  # the correlation id of its handshake
    _ended: EndedSocket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop: a client has connected."""
        super().connection_made(transport)
        if (sock := super().sock) is not None:
            self._ended = EndedSocket(sock, self.peer)

    def _greet(self, message: wire.Message) -> None:
        self.greeting_mark = message.correlation_id
        super()._greet(message)

    @property
    def sock(self) -> Any:
        """The socket, or what tells of it when the connection has ended."""
        sock = super().sock
        return self._ended if sock is None or sock.fileno() < 0 else sock

    def method_failed(
        self, method: Any, args: Sequence[Any], kwargs: dict[str, Any], error: Exception
    ) -> None:
        """Tell the program's handler, with stock's arguments."""
        facade = cast(Serving, self._daemon)._facade
        facade.methodcall_error_handler(facade, self.peer, method, args, kwargs, error)

    def getpeercert(self) -> Any:
        """Return the client's certificate as a dictionary, or None."""
        return self._transport.get_extra_info("peercert")

    def family(self) -> str:
        """Return ``IPv4``, ``IPv6`` or ``Unix``."""
        families = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6", socket.AF_UNIX: "Unix"}
        return families.get(self.sock.family, "???")

    def fileno(self) -> int:
        """Return the file descriptor of the socket."""
        number: int = self.sock.fileno()
        return number


class ConnectionThreads:
    """A thread of its own for each connection, like stock: what a method keeps in one (a database
    connection, a proxy) is there for the next call of the same client.

    Args:
        threads_max: how many there may be; with more connections, some share a thread.
    """

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._users: dict[DaemonThreads, int] = {}
        self._by_connection: dict[object, DaemonThreads] = {}
        self._ended: WeakKeyDictionary[object, DaemonThreads] = WeakKeyDictionary()

    def of(self, connection: object) -> Executor:
        """Return the thread of a connection that has not ended."""
        thread = self._by_connection.get(connection)
        if thread is None:
            thread = min(self._users, key=self._load, default=None)
            if thread is None or (self._load(thread) and len(self._users) < self._threads_max):
                thread = DaemonThreads(1, f"pyro-connection-{len(self._users)}")
            self._by_connection[connection] = thread
            self._users[thread] = self._users.get(thread, 0) + 1
        return thread

    def known(self, connection: object) -> Executor | None:
        """Return the thread of a connection that has, or had, one; None stands for nobody's."""
        if connection is None:
            return None
        return self._by_connection.get(connection) or self._ended.get(connection)

    def _load(self, thread: DaemonThreads) -> int:
        # A method goes on when its caller has hung up, and would keep the next one waiting.
        return self._users[thread] + thread.unfinished

    def release(self, connection: object) -> Executor | None:
        """Free the thread of a connection that has ended, and return it; None if it had none."""
        thread = self._by_connection.pop(connection, None)
        if thread is not None:
            self._users[thread] -= 1
            self._ended[connection] = thread
        return thread

    def close(self) -> None:
        """End the threads as soon as they have nothing to do."""
        for thread in self._users:
            thread.shutdown(wait=False, cancel_futures=True)


def _without_stop(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except StopIteration as stop:  # futures refuse it, and who awaits one would wait in vain
        raise RuntimeError(f"{function.__name__.strip('_')} raised StopIteration") from stop


class Serving(Daemon):
    """The asyncio daemon, asking the one that looks like stock what it may override.

    Args:
        facade: the one that looks like stock.
        host: as :class:`rmi_runtime.Daemon`.
        port: as :class:`rmi_runtime.Daemon`.
        options: as :class:`rmi_runtime.Daemon`.
    """

    def __init__(self, facade: Facade, host: str, port: int, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._facade = facade
        self._greetings: dict[ServerConnection, tuple[object, dict[str, bytes]]] = {}
        self._accepted: set[ServerConnection] = set()
        self._threads = ConnectionThreads(self.threads)
        self._oneway_threads = DaemonThreads(config.THREADPOOL_SIZE, "pyro-oneway")

    def _new_executor(self) -> Executor:
        return DaemonThreads(self.threads, "pyro-method")

    def _new_connection(self) -> ServerConnection:
        return Connection(self, self.connections.next_number())

    def authenticate(
        self, handshake: object, connection: ServerConnection
    ) -> Identity | Awaitable[Identity]:
        """Ask ``validateHandshake``, if it is overridden."""
        if not self._facade.overrides("validateHandshake"):
            return ANONYMOUS
        return self._ask(handshake, connection)

    async def _ask(self, handshake: object, connection: ServerConnection) -> Identity:
        thread = self._threads.of(connection) if self.threads else None
        greeting = await self.apart(thread, self._validate, connection, handshake)
        self._greetings[connection] = greeting
        return ANONYMOUS

    def _validate(
        self, connection: Connection, handshake: object
    ) -> tuple[object, dict[str, bytes]]:
        mark = connection.greeting_mark
        current_context.correlation_id = UUID(bytes=mark) if mark else connection.correlation_uuid
        current_context.response_annotations = {}
        answer = self._facade.validateHandshake(connection, handshake)
        return answer, current_context.response_annotations

    async def apart(self, thread: Executor | None, function: Callable[..., Any], *args: Any) -> Any:
        """Call what may block where it may: on *thread*, or any.

        Raises:
            Overloaded: there is no thread to be had now.
            Exception: what *function* raises.
        """
        if self.executor is None:
            return _without_stop(function, *args)
        act = partial(_without_stop, function, *args)
        try:
            called = self.loop.run_in_executor(thread or self.executor, act)
        except RuntimeError as why:
            raise overloaded(self) from why
        return await called

    def executor_for(self, call: Call) -> Executor | None:
        """Return the connection's own thread; oneway calls go elsewhere, and hold up none."""
        marks = call.message.flags & (wire.FLAG_ONEWAY | wire.FLAG_BATCH)
        if call.connection is None or marks == wire.FLAG_ONEWAY:
            return self.executor or self._oneway_threads  # the latter: as stock's multiplex server
        # A batch asks on its thread, and goes on there when its connection has ended: it is not to
        # be taken for one that stands, and has no thread yet, in the moment of its end.
        if (thread := self._threads.known(call.connection)) is not None:
            return thread
        if not self.threads or call.connection not in self.connections:
            return self.executor
        return self._threads.of(call.connection)

    def executor_of(self, connection: object) -> Executor | None:
        """Return the connection's own thread, if it has one: what it used may belong to that."""
        executor = super().executor_of(connection)
        return (executor and self._threads.known(connection)) or executor

    async def close(self) -> None:
        """Stop; see :meth:`rmi_runtime.Daemon.close`."""
        try:
            await super().close()
        finally:
            self._threads.close()
            self._oneway_threads.shutdown(wait=False, cancel_futures=True)

    def greeting(self, handshake: object, connection: ServerConnection) -> object:
        """Return what ``validateHandshake`` returned."""
        answer, _ = self._greetings.get(connection, _HELLO)
        return answer

    def welcome_annotations(self, connection: ServerConnection) -> dict[str, bytes]:
        """Return those that ``validateHandshake`` set, and those of every reply."""
        _, own = self._greetings.pop(connection, _HELLO)
        return {**own, **self.annotations()}

    def annotations(self) -> dict[str, bytes]:
        """Ask the facade."""
        return self._facade.annotations()

    def greeted(self, connection: ServerConnection) -> None:
        """Take note that a client was accepted."""
        super().greeted(connection)
        self._accepted.add(connection)

    def dismiss(self, connection: ServerConnection) -> None:
        """Tell ``clientDisconnect``, if it is overridden, of a client that was accepted."""
        super().dismiss(connection)
        accepted = connection in self._accepted
        self._accepted.discard(connection)
        self._greetings.pop(connection, None)
        thread = self._threads.release(connection) or self.executor
        if not (accepted and self._facade.overrides("clientDisconnect")):
            return
        tell = partial(apart, None if self._closed else thread, partial(self._tell, connection))
        connection.at_last(tell)

    def _tell(self, connection: ServerConnection) -> None:
        try:
            self._facade.clientDisconnect(connection)
        except KeyboardInterrupt:
            raise
        except BaseException:  # SystemExit, too: only a client has gone
            log.exception("clientDisconnect failed")

    def serializer(self, serializer_id: int) -> Serializer:
        """Return the serializer with this number, one that makes blocking proxies."""
        return _SERIALIZERS.get(serializer_id) or super().serializer(serializer_id)

    def uri_for(self, obj_or_name: Any) -> URI:
        """Return the URI at which clients reach an object."""
        return self._facade.uriFor(obj_or_name)

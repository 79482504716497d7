"""The proxy for plain scripts: the asyncio proxy on a private loop, no threads."""

from __future__ import annotations

import asyncio
import copy
import select
import sys
import warnings
from asyncio.events import _get_running_loop
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop
from Pyro5.core import URI
from Pyro5.serializers import SerializerBase

from rmi_runtime.forked import never_free
from rmi_runtime.ownership import Ownership
from rmi_runtime.proxy import Proxy
from rmi_runtime.proxy_results import Batch, RemoteStream
from rmi_runtime.signal_errors import SignalErrors
from rmi_runtime.streams import CarriedStop

T = TypeVar("T")


class SyncProxy:
    """Stands for a remote object in code that does not await: ``proxy.method(...)``.

    Attributes are read and set like local ones; ``len()``, indexing and iterating work if the
    object exposes the special methods; remote generators are plain iterators; proxies in results
    are of this kind too. Use one proxy in one thread.

    A closed proxy connects anew when it is used again.

    Args:
        uri: as :class:`Proxy`.
        options: as :class:`Proxy`.
    """

    def __init__(self, uri: str | URI, **options: Any) -> None:
        self._set_up(_Inner(uri, **options))

    def _set_up(self, proxy: Proxy) -> None:
        owner = Ownership("SyncProxy", "Proxy", "_claim_ownership")
        self.__dict__.update(_proxy=proxy, _loop=None, _poll=None, _polled=None, _owner=owner)
        self.__dict__["_signals"] = SignalErrors()

    # -- calls

    def _call(
        self,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Call a method by name, and wait for its result. All as :meth:`Proxy._call`."""
        result = self._run(lambda: self._proxy._call(method, args, kwargs, **options))
        return self._unasync(result)

    def _unasync(self, result: Any) -> Any:
        """Return a result, or, if it is a stream, its items for those who do not await."""
        return _SyncStream(self, result) if isinstance(result, RemoteStream) else result

    def _run(self, begin: Callable[[], Awaitable[T]]) -> T:
        """Begin something, and wait until it is done.

        Args:
            begin: does nothing before this thread is known to be the owner, and idle.

        Raises:
            Misused: it is not; nothing was begun.
        """
        self._leave_parent()
        with self._owner:
            try:
                if self._proxy._connected:
                    self._notice_the_end()
                return self._wait_for(begin())
            except BaseException as error:
                if self._signals.tore(error) and self._proxy._connection is not None:
                    self._proxy._connection.abort()  # else what was sent might be sent again
                raise

    def _wait_for(self, awaitable: Awaitable[T]) -> T:
        loop = self._loop or self._open_loop()
        future = asyncio.ensure_future(awaitable, loop=loop)
        try:
            result: T = self._complete(loop, future)
        except CarriedStop as end:
            raise end.carried() from None
        except BaseException:
            future.cancel()  # if it was the user who interrupted: nobody waits any more
            if loop.is_running():  # a handler raised while uvloop set itself up, or to rest again
                self._start_anew()
            self._signals.raise_again()
            raise
        self._signals.raise_again()
        return result

    def _complete(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> T:
        try:
            return loop.run_until_complete(future)
        except RuntimeError:
            if future.done() or self._signals.raised or loop.is_running() or loop.is_closed():
                raise
            # A handler that raised just as the call before ended has told the loop to stop.
            return loop.run_until_complete(future)

    def _leave_parent(self) -> None:
        """In a process forked since: leave loop and connection to the parent, and start anew."""
        if self._owner.moved_to_child():
            self._start_anew()

    def _start_anew(self) -> None:
        """Leave loop and connection as they are, for ever; the next call makes others."""
        self._abandon()
        self._proxy._start_unconnected()
        self.__dict__.update(_loop=None, _poll=None, _polled=None)

    def _abandon(self) -> None:
        if (connection := self._proxy._connection) is not None:
            connection.abandon()
        never_free(self._loop, self._poll, self._proxy._connection)

    def _claim_ownership(self) -> None:
        """Make the calling thread the owner, as stock's ``_pyroClaimOwnership``.

        Raises:
            Misused: a call of another thread is under way.
        """
        self._owner.claim()

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        loop.set_exception_handler(self._signals.handle)
        self.__dict__["_loop"] = loop
        return loop

    def _notice_the_end(self) -> None:
        """Let the loop, which rests between calls, see what has come: often the server's end."""
        connection = self._proxy._connection
        if self._poll is None or self._polled is not connection:
            poll = select.poll()
            poll.register(connection.transport_fileno(), select.POLLIN)
            self.__dict__.update(_poll=poll, _polled=connection)
        if self._poll.poll(0):
            self._wait_for(_turn_twice())

    def _batch(self) -> SyncBatch:
        """Return a collector of calls that go as one message."""
        return SyncBatch(self)

    # -- members

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(
                f"{name!r} is private; for an exposed special method use proxy._call({name!r})"
            )
        self._learn()
        if name in self._proxy._attrs:
            return self._call("__getattr__", (name,))
        if name not in self._proxy._methods:
            raise AttributeError(
                f"remote object '{self._proxy._uri}' has no exposed attribute or method '{name}'"
            )

        def method(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, args, kwargs)

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise AttributeError(f"{name!r} is private")
        self._learn()
        if name not in self._proxy._attrs:
            raise AttributeError(
                f"remote object '{self._proxy._uri}' has no exposed attribute '{name}'"
            )
        self._call("__setattr__", (name, value))

    def _learn(self) -> None:
        if not self._proxy._methods and not self._proxy._attrs:
            self._bind()

    def __len__(self) -> int:
        length: int = self._call("__len__")
        return length

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> Any:
        return self._call("__getitem__", (index,))

    def __setitem__(self, index: Any, value: Any) -> None:
        self._call("__setitem__", (index, value))

    def __delitem__(self, index: Any) -> None:
        self._call("__delitem__", (index,))

    def __iter__(self) -> Iterator[Any]:
        self._learn()
        if "__iter__" in self._proxy._methods:
            yield from self._call("__iter__")
            return
        for index in range(sys.maxsize):
            try:
                item = self[index]
            except (IndexError, StopIteration):
                return
            yield item

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._proxy._methods, *self._proxy._attrs})

    # -- connection

    def _bind(self) -> None:
        """Connect, unless connected. Raises as :meth:`Proxy._bind`."""
        self._run(self._proxy._bind)

    def _close(self) -> None:
        """Close the connection and the private loop."""
        self._leave_parent()
        with self._owner:
            if self._loop is None:
                return
            try:
                self._wait_for(self._proxy._close())
            finally:
                if self._loop is not None:  # else a handler raised, and it has been left
                    self._loop.close()
                    self.__dict__.update(_loop=None, _poll=None, _polled=None)

    def __enter__(self) -> SyncProxy:
        self._bind()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def __del__(self) -> None:
        loop = self.__dict__.get("_loop")
        if loop is None or loop.is_closed():
            return
        if self._owner.moved_to_child():
            self._abandon()
            return
        if loop.is_running():
            return
        unclosed = self._proxy._connected
        if unclosed:
            self._proxy._connection.close()
            if _get_running_loop() is None:
                loop.run_until_complete(_turn_twice())
        loop.close()
        if unclosed:  # at last, for the warning may be an error
            warnings.warn(f"{self!r} was dropped unclosed", ResourceWarning, 2, source=self)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.SyncProxy for {self._proxy._uri}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SyncProxy) and bool(other._proxy == self._proxy)

    # -- copies, not connected, of the thread that makes them; pickles: see ProxyState

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        made._set_up(copy.copy(self._proxy))
        return made

    def __getstate__(self) -> Proxy:
        proxy: Proxy = self._proxy
        return proxy

    def __setstate__(self, state: Proxy) -> None:
        self._set_up(state)

    def __hash__(self) -> int:
        return hash(self._proxy)


class _Inner(Proxy):
    """The proxy inside: what comes to it goes to those who do not await."""

    _loop_rests = True

    def _adopt(self, state: Any) -> Any:
        outer = SyncProxy.__new__(SyncProxy)
        outer._set_up(super()._adopt(state))
        return outer


class _SyncStream(Iterator[Any]):
    """The items of a remote generator, fetched one by one; see :class:`RemoteStream`."""

    def __init__(self, proxy: SyncProxy, stream: RemoteStream) -> None:
        self._proxy = proxy
        self._stream = stream

    def __next__(self) -> Any:
        try:
            return self._proxy._unasync(self._proxy._run(self._stream.__anext__))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """Tell the server that no more items are wanted."""
        self._proxy._run(self._stream.aclose)


class SyncBatch(Batch):
    """Collects calls and sends them as one message; see :class:`Batch`."""

    def __init__(self, proxy: SyncProxy) -> None:
        super().__init__(proxy._proxy)
        self._run = proxy._run

    def __call__(self, *, oneway: bool = False) -> Iterator[Any]:  # type: ignore[override]
        """Send the calls and wait for the results; see :meth:`Batch.__call__`."""
        send = super().__call__
        return self._run(lambda: send(oneway=oneway))


async def _turn_twice() -> None:
    for _ in range(2):  # one to read, one to act on the end
        await asyncio.sleep(0)


def _to_dict(proxy: SyncProxy) -> dict[str, Any]:
    return {"__class__": "Pyro5.client.Proxy", "state": proxy._proxy._state()}


SerializerBase.register_class_to_dict(SyncProxy, _to_dict)

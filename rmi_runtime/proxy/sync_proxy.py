"""The proxy for plain scripts: the asyncio proxy on a private loop, no threads."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import select
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from Pyro5.core import URI
from Pyro5.serializers import SerializerBase

from rmi_runtime import errors
from rmi_runtime.carried_stop import CarriedStop
from rmi_runtime.proxy import stock_names
from rmi_runtime.proxy.forked import never_free
from rmi_runtime.proxy.ownership import Ownership
from rmi_runtime.proxy.private_loop import PrivateLoop, turn_twice
from rmi_runtime.proxy.proxy import Proxy
from rmi_runtime.proxy.results import Batch, RemoteStream
from rmi_runtime.signal_errors import SignalErrors

T = TypeVar("T")

_UNCONNECTED: Final[dict[str, Any]] = {
    "_loop": None,
    "_poll": None,
    "_polled": None,
    "_torn": False,
}


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
        self.__dict__.update(_proxy=proxy, _owner=owner, _signals=SignalErrors(), **_UNCONNECTED)

    # -- calls

    def _call(
        self,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Call a method by name, and wait for its result. All as :meth:`Proxy._call`."""
        result = self._run(
            lambda: self._proxy._call(method, args, kwargs, **options),
            timeout_s=options.get("timeout_s"),
        )
        return self._unasync(result)

    def _unasync(self, result: Any) -> Any:
        """Return a result, or, if it is a stream, its items for those who do not await."""
        return _SyncStream(self, result) if isinstance(result, RemoteStream) else result

    def _run(
        self,
        begin: Callable[[], Awaitable[T]],
        *,
        timeout_s: float | None = None,
        last: bool = False,
    ) -> T:
        """Begin something, and wait until it is done.

        What a signal's handler raises may cut anything off in its midst. So loop and connection are
        taken for torn from the beginning of a call to its regular end, and torn ones are left: else
        a request might be sent twice, or a call wait in vain.

        Args:
            begin: does nothing before this thread is known to be the owner, and idle.
            timeout_s: how long it may take to send what nobody answers; None takes the proxy's.
            last: leave loop and connection afterwards.

        Raises:
            Misused: it is not; nothing was begun.
        """
        self._leave_parent()
        if self._torn and self._loop is not None and not self._owner.under_way:
            self._loop.come_to_rest()
        handled = sys.exception()
        with self._owner:
            if self._torn:
                self._start_anew()
            self.__dict__["_torn"] = True
            try:
                if self._proxy._connected:
                    self._notice_the_end()
                result = self._wait_for(begin())
                if self._loop.unsent and not last:  # a oneway call: the loop rests from now on
                    self._wait_for(self._loop.all_sent(timeout_s or self._proxy._timeout_s))
                    if self._proxy._connection.closed:
                        raise errors.ConnectionLost("the connection broke before all was sent")
                if self._breaking:
                    self._hear_why_it_breaks()
            except BaseException as error:
                raised = self._signals.behind(error, handled)
                if raised is not None or last:
                    self._start_anew()
                self.__dict__["_torn"] = self._breaking
                if raised is not None and raised is not error:
                    raise raised from None
                if isinstance(error, CarriedStop):
                    raise error.carried() from None
                raise
            if last:
                self._start_anew()
            self.__dict__["_torn"] = False
            return result

    def _wait_for(self, awaitable: Awaitable[T]) -> T:
        loop = self._loop or self._open_loop()
        future = asyncio.ensure_future(awaitable, loop=loop)
        try:
            result: T = loop.run_until_complete(future)
        except BaseException as error:
            if not future.done():  # then it is of a handler, whatever that is
                self._signals.hear(error)
            raise
        self._signals.raise_again()
        return result

    @property
    def _breaking(self) -> bool:
        connection = self._proxy._connection
        return connection is not None and connection.breaking

    def _hear_why_it_breaks(self) -> None:
        """Raise what a handler raised when the reply had come, where the loop keeps it to itself.

        It takes errors of the system for the network's, whoever raised them.
        """
        connection = self._proxy._connection
        self._wait_for(turn_twice())
        if connection.broken_by is not None:
            raised = self._signals.behind(connection.broken_by)
            if raised is not None:
                raise raised

    def _leave_parent(self) -> None:
        """In a process forked since: leave loop and connection to the parent, and start anew."""
        if self._owner.in_child:
            self._abandon()
            self._proxy._start_unconnected()
            self.__dict__.update(_UNCONNECTED)
            self._owner.settle()

    def _abandon(self) -> None:
        if (connection := self._proxy._connection) is not None:
            connection.abandon()
        never_free(self._loop, self._poll, self._proxy._connection)

    def _start_anew(self) -> None:
        """Drop loop and connection, whatever state they are in; the next call makes others."""
        handled = sys.exception()
        connection, loop = self._proxy._connection, self._loop
        self._proxy._start_unconnected()
        self.__dict__.update(_UNCONNECTED)
        try:
            if connection is not None:
                connection.abort()
            if loop is not None:
                loop.set_exception_handler(self._signals.handle_quietly)
                loop.drop()
        except Exception as error:
            if (raised := self._signals.behind(error, handled)) is not None:
                raise raised from None
        self._signals.raise_again()

    def _claim_ownership(self) -> None:
        """Make the calling thread the owner, as stock's ``_pyroClaimOwnership``.

        Raises:
            Misused: a call of another thread is under way.
        """
        self._owner.claim()

    def _open_loop(self) -> PrivateLoop:
        loop = PrivateLoop()
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
            self._wait_for(turn_twice())

    def _batch(self) -> SyncBatch:
        """Return a collector of calls that go as one message."""
        return SyncBatch(self)

    # -- members

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(stock_names.refusal(name))
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
            raise AttributeError(stock_names.refusal(name))
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
        if self._loop is not None:
            self._run(self._proxy._close, last=True)

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
        if self.__dict__.get("_loop") is None:
            return
        if self._owner.in_child:
            self._abandon()
            return
        unclosed = self._proxy._connected
        if unclosed and not self._torn:  # else what it has sent it might send again
            self._proxy._connection.close()
        self._start_anew()
        if unclosed:  # at last, for the warning may be an error
            warnings.warn(f"{self!r} was dropped unclosed", ResourceWarning, 2, source=self)

    def __repr__(self) -> str:
        return f"<rmi_runtime.SyncProxy for {self._proxy._uri}>"

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

    def __del__(self) -> None:
        proxy = self._proxy
        unread = self._stream._proxy is not None and proxy._proxy._connected
        if unread and not (proxy._torn or proxy._owner.in_child):
            with contextlib.suppress(errors.RmiError):  # then when the proxy is used next
                self.close()


class SyncBatch(Batch):
    """Collects calls and sends them as one message; see :class:`Batch`."""

    def __init__(self, proxy: SyncProxy) -> None:
        super().__init__(proxy._proxy)
        self._run = proxy._run

    def __call__(self, *, oneway: bool = False) -> Iterator[Any]:  # type: ignore[override]
        """Send the calls and wait for the results; see :meth:`Batch.__call__`."""
        send = super().__call__
        return self._run(lambda: send(oneway=oneway))


def _to_dict(proxy: SyncProxy) -> dict[str, Any]:
    return {"__class__": "Pyro5.client.Proxy", "state": proxy._proxy._state()}


SerializerBase.register_class_to_dict(SyncProxy, _to_dict)

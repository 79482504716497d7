"""Clients of three kinds behind one face: stock Pyro5's proxy, our Proxy, our SyncProxy."""

from __future__ import annotations

import abc
import contextlib
import ssl
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import Pyro5.api
from Pyro5 import config, protocol
from Pyro5.callcontext import current_context
from Pyro5.core import DAEMON_NAME

from rmi_runtime import Proxy, RemoteStream, SyncProxy, wire
from tests.compat.loops import LoopThread
from tests.support import eventually

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class Client(abc.ABC):
    """What the checks may do with a client, in code that does not await.

    Attributes:
        proxy: the proxy inside.
        heard: annotations of the last reply.
    """

    proxy: Any
    heard: dict[str, bytes]

    @abc.abstractmethod
    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method as a program would."""

    @abc.abstractmethod
    def raw(self, method: str, *args: Any, object_id: str | None = None) -> Any:
        """Call whatever name, past all checks of the client."""

    @abc.abstractmethod
    def get(self, name: str) -> Any: ...

    @abc.abstractmethod
    def set(self, name: str, value: Any) -> None: ...

    @abc.abstractmethod
    def batch(self, calls: Sequence[Call], *, oneway: bool = False) -> Iterator[Any]: ...

    @abc.abstractmethod
    def iterate(self) -> list[Any]: ...

    @abc.abstractmethod
    def say(self, annotations: dict[str, bytes], correlation: uuid.UUID | None = None) -> None:
        """Send annotations and a correlation id with the next calls."""

    @abc.abstractmethod
    def greeting(self) -> Any:
        """Connect, and return what the server said to the handshake."""

    @abc.abstractmethod
    def break_connection(self) -> None:
        """Have the connection end without a word, as if the network had failed."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def daemon(self, method: str, *args: Any) -> Any:
        """Call the daemon's own object."""
        return self.raw(method, *args, object_id=DAEMON_NAME)


def make_client(
    kind: str,
    uri: str,
    *,
    serializer: str = "serpent",
    timeout_s: float = 10.0,
    handshake: Any = "hello",
    compress: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Client:
    """Return a client of a kind: ``stock``, ``proxy`` or ``sync``.

    TLS of a stock client comes from Pyro5's configuration, not from *tls*.
    """
    if kind == "stock":
        proxy = Pyro5.api.Proxy(uri)
        proxy._pyroSerializer, proxy._pyroTimeout = serializer, timeout_s
        proxy._pyroHandshake = handshake
        return _StockClient(proxy, compress)
    options: dict[str, Any] = {
        "serializer": serializer,
        "timeout_s": timeout_s,
        "handshake": handshake,
        "compress": compress,
        "ssl": tls,
    }
    if kind == "sync":
        return _SyncClient(SyncProxy(uri, **options))
    return _ProxyClient(Proxy(uri, **options))


def wrap_client(kind: str, proxy: Any) -> Client:
    """Return a client around a proxy that came over the wire."""
    if kind == "stock":
        assert type(proxy) is Pyro5.api.Proxy
        return _StockClient(proxy, compress=False)
    if kind == "sync":
        assert type(proxy) is SyncProxy
        return _SyncClient(proxy)
    return _ProxyClient(proxy)


class _StockClient(Client):
    def __init__(self, proxy: Any, compress: bool) -> None:
        self.proxy = proxy
        self.heard = {}
        self._compress = compress

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        config.COMPRESSION = self._compress
        try:
            yield
        finally:
            config.COMPRESSION = False
            notes = current_context.response_annotations
            self.heard = {name: bytes(value) for name, value in notes.items()}

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        with self._listening():
            return getattr(self.proxy, method)(*args, **kwargs)

    def raw(self, method: str, *args: Any, object_id: str | None = None) -> Any:
        with self._listening():
            return self.proxy._pyroInvoke(method, args, {}, objectId=object_id)

    def get(self, name: str) -> Any:
        with self._listening():
            return getattr(self.proxy, name)

    def set(self, name: str, value: Any) -> None:
        setattr(self.proxy, name, value)

    def batch(self, calls: Sequence[Call], *, oneway: bool = False) -> Iterator[Any]:
        batch = Pyro5.api.BatchProxy(self.proxy)
        for method, args, kwargs in calls:
            getattr(batch, method)(*args, **kwargs)
        return batch(oneway) or iter(())

    def iterate(self) -> list[Any]:
        return list(self.proxy)

    def say(self, annotations: dict[str, bytes], correlation: uuid.UUID | None = None) -> None:
        current_context.annotations = dict(annotations)
        current_context.correlation_id = correlation

    def greeting(self) -> Any:
        said: list[Any] = []
        made = type("Proxy", (Pyro5.api.Proxy,), {"_pyroValidateHandshake": lambda _, r: r})
        made._pyroValidateHandshake = lambda _, response: said.append(response)
        with made(self.proxy._pyroUri) as proxy:
            proxy._pyroHandshake = self.proxy._pyroHandshake
            proxy._pyroBind()
        return said[0]

    def break_connection(self) -> None:
        self.proxy._pyroRelease()

    def close(self) -> None:
        self.proxy._pyroRelease()


class _OurClient(Client):
    """What our two proxies have in common."""

    def __init__(self) -> None:
        self.heard = {}
        self._annotations: dict[str, bytes] = {}
        self._correlation: uuid.UUID | None = None

    def _options(self) -> dict[str, Any]:
        self.heard = {}
        return {
            "answer": self.heard,
            "annotations": self._annotations,
            "correlation_id": self._correlation.bytes if self._correlation else None,
        }

    def say(self, annotations: dict[str, bytes], correlation: uuid.UUID | None = None) -> None:
        self._annotations, self._correlation = dict(annotations), correlation


class _ProxyClient(_OurClient):
    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self.proxy = proxy
        self._thread = LoopThread()

    def _run(self, awaitable: Any) -> Any:
        result = self._thread.run(awaitable)
        return _Items(self._thread, result) if isinstance(result, RemoteStream) else result

    def _later(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        async def on_the_loop() -> Any:
            return await function(*args, **kwargs)

        return self._run(on_the_loop())

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._annotations or self._correlation:
            return self._later(self.proxy._call, method, args, kwargs, **self._options())
        self.heard = {}
        return self._later(self.proxy._call, method, args, kwargs, answer=self.heard)

    def raw(self, method: str, *args: Any, object_id: str | None = None) -> Any:
        return self._later(self.proxy._call, method, args, object_id=object_id, **self._options())

    def get(self, name: str) -> Any:
        async def awaited() -> Any:
            return await getattr(self.proxy, name)

        return self._run(awaited())

    def set(self, name: str, value: Any) -> None:
        self._later(self.proxy._set, name, value)

    def batch(self, calls: Sequence[Call], *, oneway: bool = False) -> Iterator[Any]:
        batch = self.proxy._batch()
        for method, args, kwargs in calls:
            getattr(batch, method)(*args, **kwargs)
        found: Iterator[Any] = self._later(batch, oneway=oneway)
        return found

    def iterate(self) -> list[Any]:
        async def items() -> list[Any]:
            return [item async for item in self.proxy]

        found: list[Any] = self._run(items())
        return found

    def greeting(self) -> Any:
        self._later(self.proxy._bind)
        return self.proxy._handshake_reply

    def break_connection(self) -> None:
        self._thread.call(self.proxy._connection._transport.abort)

    def close(self) -> None:
        if not self._thread.loop.is_closed():
            self._later(self.proxy._close)
            self._thread.stop()


class _Items(Iterator[Any]):
    """A remote stream, read without awaiting."""

    def __init__(self, thread: LoopThread, stream: RemoteStream) -> None:
        self._thread = thread
        self._stream = stream

    def __next__(self) -> Any:
        try:
            return self._thread.run(self._stream.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        self._thread.run(self._stream.aclose())


class _SyncClient(_OurClient):
    def __init__(self, proxy: SyncProxy) -> None:
        super().__init__()
        self.proxy = proxy

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._annotations or self._correlation:
            return self.proxy._call(method, args, kwargs, **self._options())
        return getattr(self.proxy, method)(*args, **kwargs)

    def raw(self, method: str, *args: Any, object_id: str | None = None) -> Any:
        return self.proxy._call(method, args, object_id=object_id, **self._options())

    def get(self, name: str) -> Any:
        return getattr(self.proxy, name)

    def set(self, name: str, value: Any) -> None:
        setattr(self.proxy, name, value)

    def batch(self, calls: Sequence[Call], *, oneway: bool = False) -> Iterator[Any]:
        batch = self.proxy._batch()
        for method, args, kwargs in calls:
            getattr(batch, method)(*args, **kwargs)
        return batch(oneway=oneway)

    def iterate(self) -> list[Any]:
        return list(self.proxy)

    def greeting(self) -> Any:
        self.proxy._bind()
        return self.proxy._proxy._handshake_reply

    def break_connection(self) -> None:
        connection = self.proxy._proxy._connection
        connection._transport.abort()
        self.proxy._run(
            lambda: eventually(lambda: connection.closed)
        )  # its loop rests between calls

    def close(self) -> None:
        self.proxy._close()


__all__ = ["Client", "make_client", "protocol", "wire", "wrap_client"]

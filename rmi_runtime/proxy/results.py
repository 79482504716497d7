"""What a proxy gives besides plain results: members, streams and batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from typing import Any, Protocol

from Pyro5.core import DAEMON_NAME, _ExceptionWrapper

from rmi_runtime import wire

BatchedCall = tuple[str, tuple[Any, ...], dict[str, Any]]
"""Method, positional arguments, keyword arguments."""


class Caller(Protocol):
    """The part of a proxy that members, streams and batches need."""

    @property
    def _connected(self) -> bool: ...

    def _call(
        self,
        method: str,
        args: Sequence[Any] = ...,
        kwargs: Any = ...,
        *,
        flags: int = ...,
        object_id: str | None = ...,
    ) -> Awaitable[Any]: ...

    def _forget_stream(self, stream_id: str) -> None: ...


class Member:
    """A member of a remote object: call it if it is a method, await it if it is an attribute.

    Args:
        proxy: stands for the object.
        name: the member's name.
    """

    __slots__ = ("_name", "_proxy")

    def __init__(self, proxy: Caller, name: str) -> None:
        self._proxy = proxy
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return self._proxy._call(self._name, args, kwargs)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._proxy._call("__getattr__", (self._name,)).__await__()

    def __repr__(self) -> str:
        return f"<member {self._name} of {self._proxy!r}>"


class RemoteStream(AsyncIterator[Any]):
    """The items of a remote generator or iterator, fetched one by one: ``async for``.

    Reading goes on after a lost connection, if the server keeps the stream that long. An item whose
    fetching was cancelled or timed out is lost; until the server has it, the next one cannot be
    fetched. Asynchronous items that are still not there after the call's deadline are cancelled,
    and the stream is over (``PyroError``: item stream terminated). A stream that is dropped
    unfinished is closed.

    Args:
        proxy: where the stream came from.
        stream_id: its id there.
    """

    def __init__(self, proxy: Caller, stream_id: str) -> None:
        self._proxy: Caller | None = proxy
        self._stream_id = stream_id

    async def __anext__(self) -> Any:
        if self._proxy is None:
            raise StopAsyncIteration
        try:
            return await self._proxy._call(
                "get_next_stream_item", (self._stream_id,), object_id=DAEMON_NAME
            )
        except StopAsyncIteration:
            self._proxy = None
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Tell the server that no more items are wanted."""
        proxy, self._proxy = self._proxy, None
        if proxy is not None and proxy._connected:
            await proxy._call(
                "close_stream",
                (self._stream_id,),
                object_id=DAEMON_NAME,
                flags=wire.FLAG_ONEWAY,
            )

    def __del__(self) -> None:
        if self._proxy is not None:
            self._proxy._forget_stream(self._stream_id)


class Batch:
    """Collects calls and sends them as one message.

    ``batch = proxy._batch(); batch.add(1, 2); batch.add(3, 4); for sum in await batch(): …``

    Args:
        proxy: sends them.
    """

    def __init__(self, proxy: Caller) -> None:
        self._proxy = proxy
        self._calls: list[BatchedCall] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)

        def collect(*args: Any, **kwargs: Any) -> None:
            self._calls.append((name, args, kwargs))

        return collect

    async def __call__(self, *, oneway: bool = False) -> Iterator[Any]:
        """Send the calls and forget them here.

        Args:
            oneway: do not wait for the results.

        Returns:
            The results in order; where a call failed, iterating raises what it raised, and ends.
        """
        calls, self._calls = self._calls, []
        flags = wire.FLAG_BATCH | (wire.FLAG_ONEWAY if oneway else 0)
        results = await self._proxy._call("<batch>", calls, None, flags=flags)
        return _results(results or ())


def _results(results: Sequence[Any]) -> Iterator[Any]:
    for result in results:
        if isinstance(result, _ExceptionWrapper):
            raise result.exception
        yield result

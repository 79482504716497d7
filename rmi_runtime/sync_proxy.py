"""The proxy for plain scripts: the asyncio proxy on a private loop, no threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import uvloop
from Pyro5.core import URI

from rmi_runtime.proxy import Proxy
from rmi_runtime.proxy_results import RemoteStream

T = TypeVar("T")


class SyncProxy:
    """Stands for a remote object in code that does not await: ``proxy.method(...)``.

    Attributes are read and set like local ones; remote generators are plain iterators. Use one
    proxy in one thread.

    Args:
        uri: as :class:`Proxy`.
        options: as :class:`Proxy`.
    """

    def __init__(self, uri: str | URI, **options: Any) -> None:
        own = self.__dict__
        own["_runner"] = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        own["_proxy"] = Proxy(uri, **options)

    def _run(self, awaitable: Awaitable[T]) -> T:
        async def call() -> T:
            return await awaitable

        result: T = self._runner.run(call())
        return result

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method by name, and wait for its result."""

        async def call() -> Any:
            await self._notice_a_lost_connection()
            return await self._proxy._call(method, args, kwargs)

        result = self._runner.run(call())
        return self._iterate(result) if isinstance(result, RemoteStream) else result

    async def _notice_a_lost_connection(self) -> None:
        """Let the loop, which rests between calls, see that the server has hung up meanwhile."""
        if self._proxy._connected:
            for _ in range(2):
                await asyncio.sleep(0)

    def _iterate(self, stream: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> tuple[Any, ...]:
            try:
                return (await anext(stream),)
            except StopAsyncIteration:
                return ()

        while item := self._runner.run(following()):
            yield item[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(
                f"{name!r} is private; for an exposed special method use proxy._call({name!r})"
            )
        if not self._proxy._methods and not self._proxy._attrs:
            self._bind()
        if name in self._proxy._attrs:
            return self._call("__getattr__", name)
        if name not in self._proxy._methods:
            raise AttributeError(
                f"remote object '{self._proxy._uri}' has no exposed attribute or method '{name}'"
            )

        def method(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, *args, **kwargs)

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise AttributeError(f"{name!r} is private")
        self._call("__setattr__", name, value)

    def _bind(self) -> None:
        """Connect, unless connected. Raises as :meth:`Proxy._bind`."""
        self._run(self._proxy._bind())

    def _close(self) -> None:
        """Close the connection and the private loop; the proxy is of no use after that."""
        closing = self._proxy._close()
        try:
            self._run(closing)
        finally:
            if inspect.iscoroutine(closing):
                closing.close()
            self._runner.close()

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

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.SyncProxy for {self._proxy._uri}>"

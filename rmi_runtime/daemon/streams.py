"""Results that come one by one: iterators kept on the server while a client reads them."""

from __future__ import annotations

import asyncio
import functools
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from Pyro5.errors import ProtocolError, PyroError

from rmi_runtime.carried_stop import CarriedStop
from rmi_runtime.daemon.endings import apart
from rmi_runtime.errors import Overloaded, describe
from rmi_runtime.limits import DaemonLimits
from rmi_runtime.sparse_log import sparse_logger

log = sparse_logger(__name__)

Items = Iterator[Any] | AsyncIterator[Any]


@dataclass(slots=True)
class _Stream:
    owner: object | None  # the connection; None once it is gone
    items: Items
    opened_at: float
    orphaned_at: float = 0.0
    turn: threading.Lock = field(default_factory=threading.Lock)  # of whoever fetches an item
    fetching: asyncio.Task[Any] | None = None  # who does, of asynchronous items


class StreamTable:
    """The item streams of one daemon.

    Streams keep Pyro5's life-time rules: at most ``lifetime_s`` after they were opened (0: no such
    limit), and ``linger_s`` after their connection was lost, so that a client may reconnect and
    read on.

    Args:
        limits: how many may be open at once, in all and for one connection, how long a stream may
            live, and how long it outlives its connection.
        clock: returns seconds, monotonic.
        executor_of: tells who closes the plain iterators of an owner (None: nobody's), which may
            block; None: this table does it at once.
    """

    def __init__(
        self,
        limits: DaemonLimits,
        clock: Callable[[], float],
        executor_of: Callable[[object], Executor | None] = lambda owner: None,
    ) -> None:
        self._streams: dict[str, _Stream] = {}
        self._streams_max = limits.streams_max
        self._owner_streams_max = limits.connection_streams_max
        self._lifetime_s = limits.stream_lifetime_s
        self._linger_s = limits.stream_linger_s
        self._clock = clock
        self._executor_of = executor_of
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, owner: object, items: Items) -> str:
        """Keep *items* for *owner* and return the stream's id.

        Raises:
            ProtocolError: there are no streams here.
            Overloaded: too many streams are open.
        """
        if not self._streams_max:
            raise ProtocolError(
                "result of call is an iterator, but the server is not configured to allow streaming"
            )
        # Of a copy: threads that come to the end of a stream take it away.
        owned = sum(stream.owner is owner for stream in list(self._streams.values()))
        if owned >= self._owner_streams_max:
            raise Overloaded(
                f"{owned} item streams are open on this connection: close or finish some first"
            )
        if len(self._streams) >= self._streams_max:
            raise Overloaded(
                f"{self._streams_max} item streams are open here: close or finish some first"
            )
        stream_id = str(uuid.uuid4())
        self._streams[stream_id] = _Stream(owner, items, self._clock())
        return stream_id

    def next(self, stream_id: str, owner: object) -> Any | Awaitable[Any]:
        """Return the next item, or an awaitable of it if the items are asynchronous.

        Raises:
            StopIteration: that was all (from the awaitable: :class:`CarriedStop`).
            PyroError: there is no such stream, it has ended, or its next item is being fetched.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            raise PyroError("item stream terminated")
        if stream.owner is None:
            stream.owner, stream.orphaned_at = owner, 0.0
        if isinstance(stream.items, AsyncIterator):
            return self._next_async(stream_id, stream, stream.items)
        _take_turn(stream)
        try:
            return next(stream.items)
        except BaseException:
            self._streams.pop(stream_id, None)
            raise
        finally:
            stream.turn.release()

    async def _next_async(self, stream_id: str, stream: _Stream, items: AsyncIterator[Any]) -> Any:
        _take_turn(stream)
        stream.fetching = asyncio.current_task()
        try:
            return await anext(items)
        except StopAsyncIteration:
            self._streams.pop(stream_id, None)
            raise CarriedStop from None
        except BaseException:
            self._streams.pop(stream_id, None)
            raise
        finally:
            stream.fetching = None
            stream.turn.release()

    def close(self, stream_id: str) -> None:
        """Forget a stream; unknown ids are no error.

        A generator is closed. Other plain iterators are only dropped, as with stock: somebody else
        may have them too, such as an object that hands out lines of its file.
        """
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        if stream.fetching is not None:  # else it would run for as long as no item comes
            stream.fetching.cancel()
        if isinstance(stream.items, AsyncIterator):
            task = asyncio.ensure_future(_close_async(stream.items))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        elif isinstance(stream.items, Generator):
            close_plain = functools.partial(_close_plain, stream.items.close)
            apart(self._executor_of(stream.owner), close_plain)

    def orphan(self, owner: object) -> None:
        """Note that *owner*'s connection is gone."""
        for stream_id, stream in list(self._streams.items()):
            if stream.owner is owner:
                if self._linger_s > 0:
                    stream.owner, stream.orphaned_at = None, self._clock()
                else:
                    self.close(stream_id)

    def sweep(self) -> None:
        """Close the streams whose time is over."""
        now = self._clock()
        for stream_id, stream in list(self._streams.items()):
            if getattr(stream.owner, "over", False):  # a thread came to its call after its end
                stream.owner, stream.orphaned_at = None, now
            too_old = 0 < self._lifetime_s < now - stream.opened_at
            alone = stream.owner is None and now - stream.orphaned_at > self._linger_s
            if too_old or alone:
                self.close(stream_id)

    def clear(self) -> None:
        """Begin to close every stream."""
        for stream_id in list(self._streams):
            self.close(stream_id)

    async def close_all(self, timeout_s: float) -> None:
        """Close every stream, and wait until the asynchronous ones have cleaned up.

        Args:
            timeout_s: how long to wait for them at most.
        """
        self.clear()
        if self._closing:
            await asyncio.wait(list(self._closing), timeout=timeout_s)


def _take_turn(stream: _Stream) -> None:
    if not stream.turn.acquire(blocking=False):
        raise PyroError("the next item of this stream is being fetched already")


# Where its own clean-up fails, a stream is gone anyway, and nothing else may end with it: not the
# process, if that is what the clean-up raises, nor what else a connection leaves behind.


async def _close_async(items: AsyncIterator[Any]) -> None:
    try:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
    except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        log.info("a stream could not be closed: %s", describe(error))


def _close_plain(close: Callable[[], None]) -> None:
    try:
        close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        log.info("a stream could not be closed: %s", describe(error))

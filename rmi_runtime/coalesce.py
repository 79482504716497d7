"""Gather what arrives while a send is under way, and send it as one.

The first item of an idle coalescer leaves in the next turn of the event loop, together with what
else was submitted in this turn. What arrives while that send is under way waits, and leaves as one
batch when it is done. So there is no timer and no added latency when idle, and one call carries
hundreds of items under load: the batch grows by itself to what the other side can take.

Where several sends may be under way, one that ends sets many callers free at once, whose next items
come within the next turns of the loop. Whichever came first would leave alone, and the rest as one
huge batch when the next send ends: a small and a large batch in turn, and the small ones cost as
much. So a batch that is smaller than what is under way is let grow as long as the turns of the loop
bring more; still without a timer, and not at all when nothing is under way.

The cost per item is one future; a task exists only for as long as there is something to send.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import Final, Generic, TypeVar

from rmi_runtime import errors

QUIET_TURNS: Final = 3
"""So many turns of the loop that bring nothing new end the gathering of a batch."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Turns single items into batches, and a batch's results into single results again.

    Args:
        send: sends one batch (1 to *batch_max* items, in order of submission) and returns one
            result per item in the same order; a result that is an exception is raised to that
            item's waiter alone. If *send* itself raises, every item of the batch gets that error.
        batch_max: most items in one send.
        queue_max: most items waiting to be sent, beyond those under way.
        concurrency: most sends under way at once. With 1, batches leave and end in order.
        wait_s_max: items that have waited for so many seconds are refused (``Unavailable``) instead
            of sent: whenever a batch leaves it is looked who has, to an eighth of that time.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Result | BaseException]]],
        *,
        batch_max: int = 1024,
        queue_max: int = 16384,
        concurrency: int = 1,
        wait_s_max: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if min(batch_max, queue_max, concurrency) < 1:
            raise ValueError("batch_max, queue_max and concurrency must be at least 1")
        self._send = send
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._concurrency = concurrency
        self._wait_s_max = wait_s_max
        self._clock = clock
        self._left = 0  # items that have left the queue, ever
        # From then on for an eighth of the longest wait came those after so many, ever.
        self._marks: deque[tuple[float, int]] = deque()
        self._items: list[Item] = []
        self._futures: list[asyncio.Future[Result]] = []
        self._sent = 0  # items in the sends under way
        self._pumps: set[asyncio.Task[None]] = set()
        self._starting = False  # a pump was made in this turn and has not taken its batch yet
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items that wait for a send to begin."""
        return len(self._items)

    @property
    def sends_under_way(self) -> int:
        """Sends begun and not yet ended."""
        return len(self._pumps)

    def submit_nowait(self, item: Item) -> asyncio.Future[Result]:
        """Queue *item* and return the future of its result.

        Cancelling the future withdraws the item if its batch has not left yet; otherwise it only
        stops the waiting.

        Raises:
            Overloaded: *queue_max* items are waiting already; this one was not queued.
            Draining: the coalescer was closed.
        """
        if self._closed:
            raise errors.Draining("this coalescer is closed and takes nothing new")
        items = self._items
        if len(items) >= self._queue_max:
            raise errors.Overloaded(
                f"{len(items)} items are waiting to be sent, which is the bound; try again later",
                queue_max=self._queue_max,
            )
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if self._wait_s_max < math.inf:
            self._mark(len(items))
        items.append(item)
        self._futures.append(future)
        if not self._starting and len(self._pumps) < self._concurrency:
            self._start_pump()
        return future

    async def submit(self, item: Item) -> Result:
        """Queue *item*, wait for its batch to be sent, and return its result.

        Raises:
            Overloaded: *queue_max* items are waiting already; this one was not queued.
            Draining: the coalescer was closed.
            Exception: what *send* returned for this item, or raised for its whole batch.
        """
        return await self.submit_nowait(item)

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """Take nothing new, send what waits, and return when all is answered.

        Args:
            timeout_s: how long that may last. After it, or if the caller is cancelled, items that
                never left fail with :class:`~rmi_runtime.errors.Draining` (definite) and those
                under way with :class:`~rmi_runtime.errors.Interrupted` (indefinite).
        """
        self._closed = True
        try:
            async with asyncio.timeout(timeout_s):
                while self._pumps:
                    await asyncio.wait(self._pumps)
        except TimeoutError:
            pass
        finally:
            self._withdraw_waiting()
            pumps = list(self._pumps)
            for pump in pumps:
                pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    def _withdraw_waiting(self) -> None:
        futures = self._futures
        self._items, self._futures = [], []
        for future in futures:
            if not future.done():
                future.set_exception(errors.Draining("closed before this item was sent"))

    def _start_pump(self) -> None:
        self._starting = True
        pump = asyncio.get_running_loop().create_task(self._pump())
        self._pumps.add(pump)
        pump.add_done_callback(self._pump_ended)

    def _pump_ended(self, pump: asyncio.Task[None]) -> None:
        self._pumps.discard(pump)
        if self._items and not self._starting and len(self._pumps) < self._concurrency:
            self._start_pump()

    async def _pump(self) -> None:
        """Send batches until nothing waits."""
        self._starting = False
        while self._items:
            await self._let_grow()
            items, futures = self._take()
            if not items:
                continue
            if self._items and not self._starting and len(self._pumps) < self._concurrency:
                self._start_pump()
            self._sent += len(items)
            try:
                await self._send_batch(items, futures)
            finally:
                self._sent -= len(items)

    async def _let_grow(self) -> None:
        """Wait while more items come, up to as many as are under way."""
        quiet_turns = 0
        while (count := len(self._items)) < min(self._sent, self._batch_max):
            await asyncio.sleep(0)
            quiet_turns = 0 if len(self._items) > count else quiet_turns + 1
            if quiet_turns == QUIET_TURNS:
                return

    def _take(self) -> tuple[list[Item], list[asyncio.Future[Result]]]:
        """Remove and return the next batch, without the items nobody waits for any more."""
        if self._wait_s_max < math.inf:
            self._refuse_late()
        items, futures = self._items, self._futures
        if len(items) <= self._batch_max:
            self._items, self._futures = [], []
        else:
            self._items, self._futures = items[self._batch_max :], futures[self._batch_max :]
            del items[self._batch_max :], futures[self._batch_max :]
        self._left += len(items)
        for future in futures:
            if future.done():  # rare: only then is the batch copied
                kept = [(i, f) for i, f in zip(items, futures, strict=True) if not f.done()]
                return [item for item, _ in kept], [future for _, future in kept]
        return items, futures

    def _mark(self, waiting: int) -> None:
        """Note when an item comes; not for each, but for all of some time together."""
        now_s, marks = self._clock(), self._marks
        if not marks or now_s - marks[-1][0] >= self._wait_s_max / 8:
            marks.append((now_s, self._left + waiting))

    def _refuse_late(self) -> None:
        """Refuse what has waited too long."""
        now_s, marks = self._clock(), self._marks
        while marks and now_s - marks[0][0] >= self._wait_s_max:
            marks.popleft()
        come = marks[0][1] if marks else self._left + len(self._items)
        late = come - self._left
        if late <= 0:
            return
        error = errors.Unavailable(
            f"waited {self._wait_s_max:g} s to be sent, and those before are not done yet; nothing "
            "was done: try again later"
        )
        _fail(self._futures[:late], error)
        del self._items[:late], self._futures[:late]
        self._left += late

    async def _send_batch(self, items: list[Item], futures: list[asyncio.Future[Result]]) -> None:
        try:
            results = await self._send(items)
            count = len(results) if isinstance(results, Sized) else "no"
            if count != len(futures):
                raise errors.InternalError(
                    f"a send of {len(futures)} items returned {count} results"
                )
        except Exception as error:
            _fail(futures, error)
            return
        except BaseException:
            # Cancelled, or the process is ending: the batch has left, so nobody can know.
            _fail(futures, errors.Interrupted("the send was stopped before its reply came"))
            raise
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                _fail_one(future, result)
            else:
                future.set_result(result)


def _fail(futures: list[asyncio.Future[Result]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            _fail_one(future, error)


def _fail_one(future: asyncio.Future[Result], error: BaseException) -> None:
    # A future refuses StopIteration, and a CancelledError would look like the waiter's own.
    if isinstance(error, (StopIteration, asyncio.CancelledError)):
        error = errors.InternalError(f"a send answered with {type(error).__name__}")
    future.set_exception(error)

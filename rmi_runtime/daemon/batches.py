"""The calls of a batch, one after the other, and their results as the one reply that they become.

Each result is serialized when it is there. So it is known how large the reply is before that is too
large to be held, and no reply is so large that writing all of it at once keeps the loop.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import time
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from rmi_runtime import errors, wire
from rmi_runtime.carried_stop import CarriedStop
from rmi_runtime.daemon import handshake
from rmi_runtime.daemon.failures import dump_batch_error
from rmi_runtime.daemon.faults import is_fault
from rmi_runtime.daemon.members import Members, call_plainly

if TYPE_CHECKING:
    from rmi_runtime.daemon.daemon import Daemon
    from rmi_runtime.daemon.dispatch import Request

ERROR_BYTES: Final = 2_048
"""Room in a reply for the error that says that it would be too large."""

SEPARATOR_BYTES: Final = 1
"""What parts a result from the next one: a comma, in text."""

RUN_S: Final = 0.001
"""After so many seconds a thread begins no further call of a batch before the loop had its turn."""

RUN_CALLS: Final = 64
"""Most calls that a thread does without the loop: handing over takes longer than a short one."""


async def do_batch(
    daemon: Daemon, members: Members, request: Request, target: Any, calls: Sequence[Any]
) -> list[bytes]:
    """Do the calls of a batch one after the other; the first that fails ends it.

    A result that cannot be serialized, or makes the reply too large, is a failure of its call.

    Args:
        daemon: whose object is called.
        members: calls its members.
        request: the batch.
        target: the object.
        calls: a name, positional and keyword arguments each.

    Returns:
        The serialized results, in order; none of a oneway batch.

    Raises:
        InvalidRequest: there are too many calls.
        Exception: a call is none.
    """
    if len(calls) > daemon.limits.batch_max:
        raise errors.InvalidRequest(
            f"a batch has at most {daemon.limits.batch_max} calls, this one has {len(calls)}",
            field="batch",
        )
    with contextlib.closing(_Results(daemon, request)) as results:
        await _do_calls(members, request, target, calls, results)
        return results.pieces


async def _do_calls(
    members: Members, request: Request, target: Any, calls: Sequence[Any], results: _Results
) -> None:
    known_until = time.monotonic() + handshake.KNOWN_S
    turns = request.connection.batch_turns
    place = 0
    while place < len(calls):
        name, args, kwargs = calls[place]
        if turns.over():  # the other connections have theirs
            await turns.wait()
        try:
            if (renew := request.identity.renew) and time.monotonic() >= known_until:
                known_until = time.monotonic() + handshake.KNOWN_S
                await renew()  # its caller may have lost its rights since it was begun
            if (first := members.blocking_method(target, name, request)) is not None:
                run = _Run(members, request, target, calls[place : place + RUN_CALLS], results)
                place += await run.on_thread(first)
                continue
            result = members.call(target, name, args, kwargs or {}, request)
            if inspect.isawaitable(result):
                result = await result
            results.add(result)
            place += 1
        except Exception as error:
            if not request.begun and is_fault(error):
                request.connection.fault()
            results.add_error(error)
            break


class _Run:
    """Calls of a batch that a thread does one after the other, for as long as a turn lasts there.

    Args:
        members: finds the methods.
        request: the batch.
        target: the object.
        calls: as many as there may be.
        results: takes what comes of them.
    """

    def __init__(
        self,
        members: Members,
        request: Request,
        target: Any,
        calls: Sequence[Any],
        results: _Results,
    ) -> None:
        self._members = members
        self._request = request
        self._target = target
        self._calls = [calls[0], *takewhile(_is_call, calls[1:])]
        self._results = results
        self._done = 0
        self._returned_awaitable = self._stopped = False

    async def on_thread(self, first: Any) -> int:
        """Do them, at least one, on a thread.

        Args:
            first: the method of the first one.

        Returns:
            How many were done.

        Raises:
            Exception: what the last one raised.
        """
        try:
            result = await self._members.on_thread(partial(self._do, first), self._request)
        finally:
            self._stopped = True  # if nobody waits any more, the present call is the last
            self._results.note()
        if self._returned_awaitable:
            self._results.add(result)
        return self._done

    def _do(self, method: Any) -> Any:
        until_s = time.monotonic() + RUN_S
        request, calls = self._request, self._calls
        while method is not None:
            _, args, kwargs = calls[self._done]
            self._done += 1
            # As in a task of its own: nothing that it sets is seen by the next one.
            context = contextvars.copy_context()
            result = context.run(call_plainly, method, args, kwargs or {}, request)
            if inspect.isawaitable(result):
                self._returned_awaitable = True
                return result
            self._results.take(result)
            if self._done == len(calls) or self._stopped or time.monotonic() >= until_s:
                break
            method = self._members.blocking_method(self._target, calls[self._done][0], request)
        return None


def _is_call(call: Any) -> bool:
    """Return whether a run may take *call* with it; whoever comes to one that is none says why."""
    return isinstance(call, (list, tuple)) and len(call) == 3


class _Results:
    """What has come of the calls so far, counted among what is kept for the client.

    Args:
        daemon: sends the reply.
        request: the batch.
    """

    def __init__(self, daemon: Daemon, request: Request) -> None:
        self.pieces: list[bytes] = []
        self._tracebacks = daemon.tracebacks
        self._serializer = request.serializer
        self._connection = request.connection
        self._oneway = bool(request.message.flags & wire.FLAG_ONEWAY)
        bound = daemon.limits.reply_size_bytes_max
        self._size_bytes_max = max(bound - ERROR_BYTES, bound // 2)
        self._size_bytes = 0
        self._noted_bytes = 0  # of these, at the connection
        # The calls go on, as with stock, but nobody will read what comes of them.
        self._not_at_close = self._connection.on_close(self.pieces.clear)

    def add(self, result: Any) -> None:
        """Take one more result, on the loop. Raises if it cannot be sent."""
        self.take(result)
        self.note()

    def take(self, result: Any) -> None:
        """The same, on any thread: what was taken is to be noted on the loop."""
        if self._oneway or self._connection.over:
            return
        piece = self._serializer.dump_piece(result)
        size_bytes = self._size_bytes + len(piece) + SEPARATOR_BYTES
        if size_bytes > self._size_bytes_max:
            raise errors.InternalError(
                f"the batch's results would have {size_bytes} bytes with this one, "
                f"{self._size_bytes_max} is all that may be sent: ask for less at once"
            )
        self._size_bytes = size_bytes
        self.pieces.append(piece)

    def note(self) -> None:
        """Count what was taken among what is kept for the client."""
        size_bytes, self._noted_bytes = self._noted_bytes, self._size_bytes
        self._connection.keep(self._noted_bytes - size_bytes)

    def add_error(self, error: Exception) -> None:
        """Take the error that ends the batch."""
        if isinstance(error, CarriedStop):
            error = error.carried()
        if self._oneway:
            return
        piece = dump_batch_error(self._serializer, error, self._tracebacks)
        room_bytes = self._size_bytes_max + ERROR_BYTES // 2 - self._size_bytes
        if len(piece) > room_bytes:
            large = errors.InternalError(
                f"a {type(error).__name__:.100} was raised that has {len(piece)} bytes, "
                f"{room_bytes} are all that may be sent beside the batch's other results"
            )
            piece = dump_batch_error(self._serializer, large, self._tracebacks)
        self.pieces.append(piece)

    def close(self) -> None:
        """Count them no longer: they leave."""
        self._not_at_close()
        self._connection.keep(-self._noted_bytes)

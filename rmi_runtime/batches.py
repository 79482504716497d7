"""The calls of a batch, one after the other, and their results as the one reply that they become.

Each result is serialized when it is there. So it is known how large the reply is before that is too
large to be held, and no reply is so large that writing all of it at once keeps the loop.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rmi_runtime import errors, handshake, wire
from rmi_runtime.failures import dump_batch_error
from rmi_runtime.faults import is_fault
from rmi_runtime.members import Members
from rmi_runtime.streams import CarriedStop

if TYPE_CHECKING:
    from rmi_runtime.daemon import Daemon
    from rmi_runtime.dispatch import Request

ERROR_BYTES: Final = 2_048
"""Room in a reply for the error that says that it would be too large."""

SEPARATOR_BYTES: Final = 1
"""What parts a result from the next one: a comma, in text."""


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
    for name, args, kwargs in calls:
        if turns.over():  # the other connections have theirs
            await turns.wait()
        try:
            if (renew := request.identity.renew) and time.monotonic() >= known_until:
                known_until = time.monotonic() + handshake.KNOWN_S
                await renew()  # its caller may have lost its rights since it was begun
            result = members.call(target, name, args, kwargs or {}, request)
            if inspect.isawaitable(result):
                result = await result
            results.add(result)
        except Exception as error:
            if not request.begun and is_fault(error):
                request.connection.fault()
            results.add_error(error)
            break


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
        # The calls go on, as with stock, but nobody will read what comes of them.
        self._not_at_close = self._connection.on_close(self.pieces.clear)

    def add(self, result: Any) -> None:
        """Take one more result. Raises if it cannot be sent."""
        if self._oneway or self._connection.over:
            return
        piece = self._serializer.dump_piece(result)
        size_bytes = self._size_bytes + len(piece) + SEPARATOR_BYTES
        if size_bytes > self._size_bytes_max:
            raise errors.InternalError(
                f"the batch's results would have {size_bytes} bytes with this one, "
                f"{self._size_bytes_max} is all that may be sent: ask for less at once"
            )
        self._connection.keep(size_bytes - self._size_bytes)
        self._size_bytes = size_bytes
        self.pieces.append(piece)

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
        self._connection.keep(-self._size_bytes)

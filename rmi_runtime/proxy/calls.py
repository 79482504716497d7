"""What a call on a connected proxy returns: a future that may be made a task as well."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from typing import Any, Final

from Pyro5.errors import SecurityError, SerializeError

from rmi_runtime import errors, wire
from rmi_runtime.carried_stop import CarriedStop
from rmi_runtime.wire.serializers import BY_ID, Serializer

log = logging.getLogger(__name__)

Late = Callable[[Any], None]
"""Takes the result of a call that nobody waits for any more."""

Pending = tuple[asyncio.Future[Any], float, dict[str, bytes] | None, Late | None]
"""A call in flight: the future of its result, its deadline, where the reply's annotations go, and
who takes the result if nobody waits for it any more."""

LAST_WORDS: Final = (SerializeError, SecurityError)
"""Errors after which a stock daemon hangs up, without reading what was sent meanwhile."""


def take_late(late: Late, read: Callable[[], Any]) -> None:
    """Read a result that nobody waits for and hand it over; what that raises is logged."""
    try:
        late(read())
    except Exception:
        log.warning("a late reply could not be taken", exc_info=True)


class BadReply(errors.Indefinite):
    """The server answered, but the answer cannot be read. The call may well have happened."""

    code = "bad_reply"


def unreadable(error: Exception) -> BadReply:
    """Return what a call raises whose reply cannot be read because of *error*."""
    bad = BadReply(f"the reply cannot be read: {error!r}")
    bad.__cause__ = error
    return bad


def caused(error: errors.RmiError, cause: Exception | None) -> errors.RmiError:
    """Return *error*, which is raised because of *cause*."""
    error.__cause__ = cause
    return error


def read_result(message: wire.Message, serializer: Serializer) -> Any:
    """Return what is in a reply; *serializer* is that of the connection."""
    if message.serializer_id != serializer.serializer_id:
        serializer = BY_ID[message.serializer_id]  # the answer to a blob passed on
    return serializer.loads(message.payload)


def stream_id(message: wire.Message) -> str:
    """Return the id of the item stream that a call answered with.

    Raises:
        ValueError: there is none.
    """
    found = message.annotations.get(wire.ANNOTATION_STREAM, b"")
    if not found:
        raise ValueError("it is an iterator, but the server is not configured to stream")
    return found.decode("ascii", "replace")


def raised_there(result: object, deadline_s: float) -> BaseException:
    """Return what a call raises here for what the server says that it raised there.

    Args:
        result: what came; not always an exception.
        deadline_s: of the call, by the monotonic clock. A server gives work up at the deadline that
            travelled with the call; that is no other error if its word of it comes first.

    Returns:
        The exception; :class:`CarriedStop` for a ``StopIteration``, which futures refuse.
    """
    if isinstance(result, errors.Interrupted) and time.monotonic() >= deadline_s:
        return errors.CallTimeout("the call's deadline passed, and the server gave the work up")
    if isinstance(result, StopIteration):
        return CarriedStop.of(result)
    if isinstance(result, BaseException):
        return result
    return BadReply("the server raised what is no exception")


class SentCall(asyncio.Future[Any]):
    """The result of a call that has been sent.

    It is a future, so that thousands of them need no task each, and nobody has to await it. It is a
    coroutine too (``collections.abc.Coroutine``), because ``asyncio.create_task`` and
    ``TaskGroup.create_task`` take nothing else.
    """

    __slots__ = ("_steps",)

    _steps: Generator[Any, None, Any]

    def _started(self) -> Generator[Any, None, Any]:
        if not hasattr(self, "_steps"):
            self._steps = self.__await__()
        return self._steps

    def send(self, value: None) -> Any:
        """Go on, as a coroutine does; for the task that runs it."""
        return self._started().send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an exception inside, as into a coroutine; for the task that runs it."""
        self.cancel()  # a task may be cancelled before it begins: nobody waits for the reply then
        return self._started().throw(*error)

    def close(self) -> None:
        """Give up waiting, as a coroutine that is closed."""
        self.cancel()


class WantedCall(SentCall):
    """A call whose result somebody takes if whoever awaits it is cancelled as it comes.

    Between the reply and the next step of the task that awaits it, that task may be cancelled: then
    the call is done, and nobody gets its result.

    Args:
        late: takes it; what it raises is logged.
        loop: where the call was sent.
    """

    __slots__ = ("_late",)

    def __init__(self, late: Late, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._late = late

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from super().__await__())
        except asyncio.CancelledError:
            if self.done() and not self.cancelled() and self.exception() is None:
                take_late(self._late, self.result)
            raise

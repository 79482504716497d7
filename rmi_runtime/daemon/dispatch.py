"""Carries out requests: finds the object and the method, calls it, and encodes what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from Pyro5 import errors as pyro_errors
from Pyro5.core import DAEMON_NAME
from Pyro5.errors import SerializeError

from rmi_runtime import errors, wire
from rmi_runtime.carried_stop import CarriedStop
from rmi_runtime.context import Call, current
from rmi_runtime.daemon.batches import do_batch
from rmi_runtime.daemon.failures import dump_error
from rmi_runtime.daemon.faults import is_fault
from rmi_runtime.daemon.members import Members, call_plainly
from rmi_runtime.daemon.on_threads import overloaded
from rmi_runtime.daemon.sharing import Sharing
from rmi_runtime.sparse_log import sparse_logger
from rmi_runtime.wire.serializers import BY_NAME, Serializer

if TYPE_CHECKING:
    from rmi_runtime.daemon.connection import ServerConnection
    from rmi_runtime.daemon.daemon import Daemon

log = sparse_logger(__name__)

# Results of these types are neither awaitable nor a stream: the usual ones, told apart quickly.
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set})

_DEFAULT: Final = BY_NAME["serpent"]


SMALL_SIZE_BYTES: Final = 16 * 1024
"""A request of at most that size is carried out however much others have sent."""


class Request(Call):
    """A call as a daemon carries it out.

    Attributes:
        serializer: what its arguments came in, and its result leaves in.
    """

    __slots__ = ("serializer",)

    connection: ServerConnection

    def __init__(self, connection: ServerConnection, message: wire.Message) -> None:
        self.identity = connection.identity
        self.connection = connection
        self.message = message
        self.deadline = None
        self.begun = False
        self.response_annotations = {}
        self.serializer: Serializer = _DEFAULT


class Dispatcher:
    """Carries out the requests of one daemon.

    Args:
        daemon: whose objects are called.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._limits = daemon.limits
        self._members = Members(daemon)
        self.running: dict[asyncio.Future[Any], tuple[Request, Any]] = {}
        self.running_size_bytes = 0  # of what their callers sent
        self._shared = Sharing(self.running)

    def has_room(self, size_bytes: int) -> bool:
        """Return whether a request of that size may be carried out beside those under way."""
        if size_bytes <= SMALL_SIZE_BYTES:
            return True
        return self.running_size_bytes + size_bytes <= self._limits.inflight_size_bytes_max

    def invoke(
        self, connection: ServerConnection, message: wire.Message, *, refuse: bool = False
    ) -> asyncio.Future[Any] | None:
        """Carry out one INVOKE message.

        Plain methods are done, and answered, when this returns. A method that returns a future is
        answered when that is done, without a task of its own.

        Args:
            connection: where it came from and where the reply goes.
            message: the request.
            refuse: answer ``Overloaded`` without doing anything.

        Returns:
            The task or future that ends with the call, or None if nothing is left to do.
        """
        daemon = self._daemon
        daemon.calls += 1
        request = Request(connection, message)
        token = current.set(request)
        try:
            request.serializer = serializer = daemon.serializer(message.serializer_id)
            object_id, name, args, kwargs = daemon.read_call(
                serializer, message, connection.elements_max
            )
            if message.patience and not message.flags & wire.FLAG_ONEWAY:  # which nobody waits for
                request.deadline = time.monotonic() + message.patience / wire.PATIENCE_PER_S
            if refuse or daemon.draining or len(self.running) >= self._limits.inflight_max:
                self._turn_away(object_id)
            if daemon.threads and daemon.objects.makes(object_id, connection.instances):
                made = self._make_and_call(request, object_id, name, args, kwargs or {})
                return self._start(request, made)
            target = daemon.objects.target(object_id, connection.instances)
            if message.flags & wire.FLAG_BATCH:
                return self._start(request, self._batch(request, target, args))
            result = self._members.call(target, name, args, kwargs or {}, request)
            if type(result) not in _PLAIN:
                if isinstance(result, asyncio.Future):
                    return self._follow(request, result)
                if type(result) is CoroutineType or inspect.isawaitable(result):
                    return self._start(request, result)
                if isinstance(result, (Iterator, AsyncIterator)):
                    self._reply_stream(request, result)
                    return None
            self._reply(request, result)
        except BaseException as error:
            self._reply_error(request, error)
        finally:
            current.reset(token)
        return None

    def _turn_away(self, object_id: str) -> None:
        """Refuse a call because there is too much to do, or the daemon leaves."""
        if object_id == DAEMON_NAME:
            return
        if self._daemon.draining:
            raise errors.Draining("this service is leaving and takes nothing new: ask another one")
        raise overloaded(self._daemon)

    def refuse(
        self, connection: ServerConnection, message: wire.Message, error: BaseException
    ) -> None:
        """Answer an INVOKE message with an error, and do nothing else."""
        self._daemon.calls += 1
        request = Request(connection, message)
        with contextlib.suppress(SerializeError):
            request.serializer = self._daemon.serializer(message.serializer_id)
        self._reply_error(request, error)

    # -- tasks

    async def _make_and_call(
        self,
        request: Request,
        object_id: str,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> Any:
        """Make the object on a thread, where its class may block, then call it."""
        made = (object_id, request.connection.instances)
        make = partial(call_plainly, self._daemon.objects.target, made, {}, request)
        target = await self._members.on_thread(make, request)
        request.begun = False  # its class has been used, the method is still to come
        if request.message.flags & wire.FLAG_BATCH:
            return await self._batch(request, target, args)
        result = self._members.call(target, name, args, kwargs, request)
        return await result if inspect.isawaitable(result) else result

    async def _batch(self, request: Request, target: Any, calls: Sequence[Any]) -> list[bytes]:
        return await do_batch(self._daemon, self._members, request, target, calls)

    def _start(self, request: Request, result: Any) -> asyncio.Task[None] | None:
        task = self._daemon.loop.create_task(self._finish(request, result))
        if task.done():  # the loop has an eager task factory
            return None
        self.running[task] = (request, result)
        return task

    def _follow(self, request: Request, future: asyncio.Future[Any]) -> asyncio.Future[Any] | None:
        """Answer when *future* is done, without a task."""
        if future.get_loop() is not self._daemon.loop:
            return self._start(request, future)
        if future in self.running:
            return self._start(request, self._shared.join(future))
        if future.done():
            self._answer(request, future)
            return None
        self.running[future] = (request, future)
        future.add_done_callback(self._followed)
        return future

    def _followed(self, future: asyncio.Future[Any]) -> None:
        request, _ = self.running.pop(future, (None, None))
        if request is None:
            return  # a task that was given up before it was begun: it has been answered for
        try:
            self._answer(request, future)
        finally:
            request.connection.task_ended(future)

    def _answer(self, request: Request, future: asyncio.Future[Any]) -> None:
        try:
            self._reply_outcome(request, future.result())
        except asyncio.CancelledError:
            self._reply_error(request, _given_up())
        except BaseException as error:
            self._reply_error(request, error)

    async def _finish(self, request: Request, result: Any) -> None:
        try:
            if request.deadline is not None and time.monotonic() >= request.deadline:
                _drop(result)
                raise errors.DeadlinePassed("the caller's deadline passed before this was begun")
            self._reply_outcome(request, await result)
        except asyncio.CancelledError:
            self._reply_error(request, _given_up())
        except BaseException as error:
            if isinstance(error, GeneratorExit) and not self._runs(request):
                raise  # the loop is gone
            self._reply_error(request, error)
        finally:
            task = asyncio.current_task(self._daemon.loop)
            if task is not None and self.running.pop(task, None) is not None:
                request.connection.task_ended(task)

    def _runs(self, request: Request) -> bool:
        """Tell whether the task of *request* is the one that runs."""
        task = asyncio.current_task(self._daemon.loop)
        return task is not None and self.running.get(task, (None,))[0] is request

    def give_up(self, task: asyncio.Future[Any]) -> None:
        """End a call that nobody waits for any more, or that there is no time left for."""
        request, result = self.running[task]
        request.deadline = None  # once is enough: its clean-up shall not be cancelled as well
        if task in self._shared:  # others wait for it
            del self.running[task]
            self._reply_error(request, _given_up())
            request.connection.task_ended(task)
            return
        task.cancel()
        if not _begun(task):  # then it never will, and cannot answer for itself
            _drop(result)
            del self.running[task]
            self._reply_error(request, errors.Draining("this was given up before it was begun"))
            request.connection.task_ended(task)

    def sweep(self) -> None:
        """Give up the work whose callers have stopped waiting."""
        now = time.monotonic()
        for task, (request, _) in list(self.running.items()):
            deadline = request.deadline
            if deadline is not None and now > deadline and _begun(task):
                self.give_up(task)

    # -- replies

    def _reply_outcome(self, request: Request, outcome: Any) -> None:
        if type(outcome) not in _PLAIN and isinstance(outcome, (Iterator, AsyncIterator)):
            self._reply_stream(request, outcome)
        else:
            self._reply(request, outcome)

    def _reply(self, request: Request, result: Any) -> None:
        flags = request.message.flags
        if flags & wire.FLAG_ONEWAY:
            return
        if flags & wire.FLAG_BATCH:
            payload = request.serializer.join_pieces(result)
        else:
            payload = request.serializer.dumps(result)
        if len(payload) > self._limits.reply_size_bytes_max:
            raise self._too_large(len(payload))
        self._send(request, flags & wire.FLAG_BATCH, payload, request.response_annotations)

    def _send(
        self,
        request: Request,
        flags: int,
        payload: bytes,
        annotations: Mapping[str, bytes],
        always: Mapping[str, bytes] | None = None,
    ) -> None:
        daemon, message = self._daemon, request.message
        always = daemon.annotations() if always is None else always
        what = (wire.MSG_RESULT, request.serializer.serializer_id, flags, message.seq, payload)
        if annotations or always or message.correlation_id or daemon.compress:
            annotations = {**annotations, **always} if always else annotations
            mark = message.correlation_id
            reply = wire.encode(*what, annotations, mark, compress=daemon.compress)
        else:
            reply = wire.encode_plain(*what)
        request.connection.send(reply)

    def _too_large(self, size_bytes: int) -> errors.RmiError:
        return errors.InternalError(
            f"the result has {size_bytes} bytes, at most "
            f"{self._limits.reply_size_bytes_max} may be sent: ask for less at once"
        )

    def _reply_stream(self, request: Request, items: Any) -> None:
        if request.message.flags & wire.FLAG_ONEWAY:
            return
        stream_id = self._daemon.streams.open(request.connection, items)
        if request.connection.over:  # its caller will never hear of it
            self._daemon.streams.close(stream_id)
            return
        # As stock: an exception for clients too old for streams, and the stream's id beside it.
        self._send_error(
            request,
            pyro_errors.ProtocolError("result of call is an iterator"),
            wire.FLAG_STREAM,
            {wire.ANNOTATION_STREAM: stream_id.encode("ascii")},
        )

    def _reply_error(self, request: Request, error: BaseException) -> None:
        if not request.begun and is_fault(error):
            request.connection.fault()
        self._daemon.errors += not isinstance(error, (StopIteration, StopAsyncIteration))
        if isinstance(error, CarriedStop):
            error = error.carried()
        elif not isinstance(error, Exception):
            # What ends a process or a coroutine stays here; the caller learns of it.
            log.warning("a remote method raised %s", errors.shown(error))
            said = errors.describe(error)
            error = pyro_errors.PyroError(f"the method raised {type(error).__name__}: {said}")
        elif isinstance(error, wire.WireError):  # about annotations; stock clients know its base
            error = pyro_errors.ProtocolError(*error.args)
        if request.message.flags & wire.FLAG_ONEWAY:
            log.info("a oneway call failed: %s", errors.shown(error))
        else:
            self._send_error(request, error, 0, {})

    def _send_error(
        self,
        request: Request,
        error: BaseException,
        flags: int,
        annotations: dict[str, bytes],
    ) -> None:
        serializer, flags = request.serializer, flags | wire.FLAG_EXCEPTION
        payload = dump_error(serializer, error, tracebacks=self._daemon.tracebacks)
        if len(payload) > self._limits.reply_size_bytes_max:
            payload = serializer.dumps(errors.to_wire(self._too_large(len(payload))))
        try:
            self._send(request, flags, payload, {**request.response_annotations, **annotations})
        except BaseException as why:  # the method's annotations are what is wrong, or the daemon's
            log.warning("annotations of a reply cannot be sent: %s", errors.describe(why))
            self._send(request, flags, payload, annotations, always={})


def _given_up() -> errors.Interrupted:
    return errors.Interrupted("the work was given up before it was finished")


def _begun(task: asyncio.Future[Any]) -> bool:
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    return not inspect.iscoroutine(coroutine) or (
        inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
    )


def _drop(result: Any) -> None:
    """Let go of an awaitable that will not be awaited."""
    if isinstance(result, Coroutine):
        result.close()
    elif isinstance(result, asyncio.Future):
        result.cancel()

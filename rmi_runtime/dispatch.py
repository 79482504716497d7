"""Carries out requests: finds the object and the method, calls it, and encodes what came of it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from traceback import format_exception_only
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, Final

from Pyro5 import errors as pyro_errors
from Pyro5.core import DAEMON_NAME, _ExceptionWrapper
from Pyro5.errors import SerializeError, format_traceback

from rmi_runtime import errors, wire
from rmi_runtime.context import Call, current
from rmi_runtime.members import Members
from rmi_runtime.serializers import BY_NAME, Serializer
from rmi_runtime.sparse_log import sparse_logger

if TYPE_CHECKING:
    from rmi_runtime.connection import ServerConnection
    from rmi_runtime.daemon import Daemon

log = sparse_logger(__name__)

BATCH_TURN: Final = 64

# Results of these types are neither awaitable nor a stream: the usual ones, told apart quickly.
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set})

_DEFAULT: Final = BY_NAME["serpent"]

Request = tuple["ServerConnection", wire.Message, Serializer, Call]


class Dispatcher:
    """Carries out the requests of one daemon.

    Args:
        daemon: whose objects are called.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._limits = daemon.limits
        self._members = Members(daemon)
        self.running: dict[asyncio.Task[None], tuple[Request, Any]] = {}

    def invoke(
        self, connection: ServerConnection, message: wire.Message, *, refuse: bool = False
    ) -> asyncio.Task[None] | None:
        """Carry out one INVOKE message.

        Plain methods are done, and answered, when this returns.

        Args:
            connection: where it came from and where the reply goes.
            message: the request.
            refuse: answer ``Overloaded`` without doing anything.

        Returns:
            The task that does the rest, or None if nothing is left to do.
        """
        daemon = self._daemon
        daemon.calls += 1
        call = Call(
            connection.identity,
            connection,
            message.seq,
            message.flags,
            message.serializer_id,
            message.annotations,
            message.correlation_id,
        )
        request = (connection, message, _DEFAULT, call)
        token = current.set(call)
        try:
            serializer = daemon.serializer(message.serializer_id)
            request = (connection, message, serializer, call)
            object_id, name, args, kwargs = daemon.read_call(
                serializer, message, connection.elements_max
            )
            self._admit(object_id, message, call, refuse)
            if daemon.threads and daemon.objects.makes(object_id, connection.instances):
                made = self._make_and_call(request, object_id, name, args, kwargs or {})
                return self._start(request, made)
            target = daemon.objects.target(object_id, connection.instances)
            if message.flags & wire.FLAG_BATCH:
                return self._start(request, self._batch(target, args))
            result = self._members.call(target, name, args, kwargs or {}, call)
            if type(result) not in _PLAIN:
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

    def _admit(self, object_id: str, message: wire.Message, call: Call, refuse: bool) -> None:
        """Set the deadline; refuse when there is too much to do, or the daemon leaves."""
        if message.patience:
            call.deadline = time.monotonic() + message.patience / wire.PATIENCE_PER_S
        draining = self._daemon.draining
        if not (draining or refuse or len(self.running) >= self._limits.inflight_max):
            return
        if object_id == DAEMON_NAME:
            return
        if draining:
            raise errors.Draining("this service is leaving and takes nothing new: ask another one")
        self._daemon.overloads += 1
        raise errors.Overloaded(
            "too many calls are under way here: try again shortly, or elsewhere", retry_after_s=1
        )

    def refuse(
        self, connection: ServerConnection, message: wire.Message, error: BaseException
    ) -> None:
        """Answer an INVOKE message with an error, and do nothing else."""
        self._daemon.calls += 1
        call = Call(connection.identity, connection, message.seq)
        try:
            serializer = self._daemon.serializer(message.serializer_id)
        except SerializeError:
            serializer = _DEFAULT
        self._reply_error((connection, message, serializer, call), error)

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
        connection, message, _, call = request
        make = self._daemon.objects.target
        target = await self._members.on_thread(make, (object_id, connection.instances), {}, call)
        if message.flags & wire.FLAG_BATCH:
            return await self._batch(target, args)
        result = self._members.call(target, name, args, kwargs, call)
        return await result if inspect.isawaitable(result) else result

    async def _batch(self, target: Any, calls: Sequence[Any]) -> list[Any]:
        """Do the calls of a batch one after the other; the first that fails ends it."""
        if len(calls) > self._limits.batch_max:
            raise errors.InvalidRequest(
                f"a batch has at most {self._limits.batch_max} calls, this one has {len(calls)}",
                field="batch",
            )
        results: list[Any] = []
        for number, (name, args, kwargs) in enumerate(calls, 1):
            if number % BATCH_TURN == 0:
                await asyncio.sleep(0)  # lets the other connections have their turn
            try:
                result = self._members.call(target, name, args, kwargs or {}, current.get())
                if inspect.isawaitable(result):
                    result = await result
            except Exception as error:
                if isinstance(error, errors.RmiError):
                    results.append(_wrapped(error))
                else:
                    error._pyroTraceback = remote_traceback(error)  # type: ignore[attr-defined]
                    results.append(_ExceptionWrapper(error))
                break
            results.append(result)
        return results

    def _start(self, request: Request, result: Any) -> asyncio.Task[None] | None:
        task = self._daemon.loop.create_task(self._finish(request, result))
        if task.done():  # the loop has an eager task factory
            return None
        self.running[task] = (request, result)
        return task

    async def _finish(self, request: Request, result: Any) -> None:
        connection, _, _, call = request
        try:
            if call.deadline is not None and time.monotonic() >= call.deadline:
                _drop(result)
                raise errors.DeadlinePassed("the caller's deadline passed before this was begun")
            outcome = await result
            if type(outcome) not in _PLAIN and isinstance(outcome, (Iterator, AsyncIterator)):
                self._reply_stream(request, outcome)
            else:
                self._reply(request, outcome)
        except asyncio.CancelledError:
            self._reply_error(
                request, errors.Interrupted("the work was given up before it was finished")
            )
        except GeneratorExit:  # the loop is gone
            raise
        except BaseException as error:
            self._reply_error(request, error)
        finally:
            task = asyncio.current_task(self._daemon.loop)
            if task is not None and self.running.pop(task, None) is not None:
                connection.task_ended(task)

    def give_up(self, task: asyncio.Task[None]) -> None:
        """End a call that nobody waits for any more, or that there is no time left for."""
        request, result = self.running[task]
        request[3].deadline = None  # once is enough: its clean-up shall not be cancelled as well
        task.cancel()
        if not _begun(task):  # then it never will, and cannot answer for itself
            _drop(result)
            del self.running[task]
            self._reply_error(request, errors.Draining("this was given up before it was begun"))
            request[0].task_ended(task)

    def sweep(self) -> None:
        """Give up the work whose callers have stopped waiting."""
        now = time.monotonic()
        for task, (request, _) in list(self.running.items()):
            deadline = request[3].deadline
            if deadline is not None and now > deadline and _begun(task):
                self.give_up(task)

    # -- replies

    def _reply(self, request: Request, result: Any) -> None:
        connection, message, serializer, call = request
        flags = message.flags
        if flags & wire.FLAG_ONEWAY:
            return
        payload = serializer.dumps(result)
        if len(payload) > self._limits.reply_size_bytes_max:
            raise self._too_large(len(payload))
        connection.send(
            wire.encode(
                wire.MSG_RESULT,
                serializer.serializer_id,
                flags & wire.FLAG_BATCH,
                message.seq,
                payload,
                self._annotations(call),
                message.correlation_id,
                compress=self._daemon.compress,
            )
        )

    def _too_large(self, size_bytes: int) -> errors.RmiError:
        return errors.InternalError(
            f"the result has {size_bytes} bytes, at most "
            f"{self._limits.reply_size_bytes_max} may be sent: ask for less at once"
        )

    def _reply_stream(self, request: Request, items: Any) -> None:
        connection, message, _, _ = request
        if message.flags & wire.FLAG_ONEWAY:
            return
        stream_id = self._daemon.streams.open(connection, items)
        # As stock: an exception for clients too old for streams, and the stream's id beside it.
        self._send_error(
            request,
            pyro_errors.ProtocolError("result of call is an iterator"),
            wire.FLAG_STREAM,
            {wire.ANNOTATION_STREAM: stream_id.encode("ascii")},
        )

    def _reply_error(self, request: Request, error: BaseException) -> None:
        _, message, _, _ = request
        self._daemon.errors += not isinstance(error, (StopIteration, StopAsyncIteration))
        if isinstance(error, StopAsyncIteration):
            error = StopIteration(*error.args)
        elif not isinstance(error, (Exception, GeneratorExit)):
            # What ends a process stays here; the caller learns of it, and the daemon serves on.
            log.warning("a remote method raised %r", error)
            error = pyro_errors.PyroError(f"the method raised {type(error).__name__}: {error}")
        if message.flags & wire.FLAG_ONEWAY:
            log.info("a oneway call failed: %r", error)
        else:
            self._send_error(request, error, 0, None)

    def _send_error(
        self,
        request: Request,
        error: BaseException,
        flags: int,
        annotations: dict[str, bytes] | None,
    ) -> None:
        connection, message, serializer, call = request
        payload = dump_error(serializer, error, tracebacks=self._daemon.tracebacks)
        if len(payload) > self._limits.reply_size_bytes_max:
            payload = serializer.dumps(errors.to_wire(self._too_large(len(payload))))

        def encoded(notes: dict[str, bytes] | None) -> bytes:
            return wire.encode(
                wire.MSG_RESULT,
                serializer.serializer_id,
                flags | wire.FLAG_EXCEPTION,
                message.seq,
                payload,
                notes,
                message.correlation_id,
                compress=self._daemon.compress,
            )

        try:
            connection.send(encoded({**self._annotations(call), **(annotations or {})}))
        except Exception as why:  # the method's own annotations are what is wrong
            log.warning("annotations of a reply cannot be sent: %s", errors.describe(why))
            connection.send(encoded(annotations))

    def _annotations(self, call: Call) -> dict[str, bytes]:
        always = self._daemon.annotations()
        return {**call.response_annotations, **always} if always else call.response_annotations


def _wrapped(error: errors.RmiError) -> dict[str, Any]:
    """Return an error of our tree as one result of a batch, in the form stock clients know."""
    return {"__class__": "Pyro5.core._ExceptionWrapper", "exception": errors.to_wire(error)}


def dump_error(serializer: Serializer, error: BaseException, *, tracebacks: bool) -> bytes:
    """Serialize an exception, or a description of it if it cannot be serialized itself.

    Args:
        serializer: the caller's.
        error: what was raised.
        tracebacks: send the remote traceback along, as stock Pyro5 does.

    Returns:
        The payload.
    """
    try:
        if isinstance(error, errors.RmiError):
            return serializer.dumps(errors.to_wire(error))
        error._pyroTraceback = remote_traceback(error) if tracebacks else []  # type: ignore[attr-defined]
        return serializer.dumps(error)
    except Exception as why:
        said = errors.describe(error)
        if isinstance(error, errors.RmiError):  # its fields are no plain values
            return serializer.dumps(errors.to_wire(type(error)(said)))
        plain = pyro_errors.PyroError(
            f"Error serializing exception: {errors.describe(why)}. "
            f"Original exception: {type(error)}: {said}"
        )
        plain._pyroTraceback = []
        return serializer.dumps(plain)


def remote_traceback(error: BaseException) -> list[str]:
    """Return the lines of an exception's traceback, from the called member's frame on.

    What the runtime did before that is left out: it would tell strangers about this machine, and
    reading the source lines takes ten times as long as refusing a call does.
    """
    traceback = error.__traceback__
    while traceback is not None and _is_own(traceback.tb_frame):
        traceback = traceback.tb_next
    if traceback is None:
        return format_exception_only(type(error), error)
    lines: list[str] = format_traceback(type(error), error, traceback)
    return lines


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "rmi_runtime"


def _begun(task: asyncio.Task[None]) -> bool:
    coroutine = task.get_coro()
    return not inspect.iscoroutine(coroutine) or (
        inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
    )


def _drop(result: Any) -> None:
    """Let go of an awaitable that will not be awaited."""
    if isinstance(result, Coroutine):
        result.close()
    elif isinstance(result, asyncio.Future):
        result.cancel()

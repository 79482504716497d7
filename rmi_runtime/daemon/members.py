"""Calling a member of an exposed object: what may be called, by whom, and where it runs."""

from __future__ import annotations

import inspect
import logging
import uuid
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any, cast

from Pyro5.callcontext import current_context
from Pyro5.server import (
    _get_exposed_property_value,
    _set_exposed_property_value,
    is_private_attribute,
)

from rmi_runtime.context import Call, check_allowed
from rmi_runtime.daemon.on_threads import OnThreads

if TYPE_CHECKING:
    from rmi_runtime.daemon.connection import ServerConnection
    from rmi_runtime.daemon.daemon import Daemon

log = logging.getLogger(__name__)

_OF_PROPERTIES = (_get_exposed_property_value, _set_exposed_property_value)


class Members:
    """Calls members of the objects of one daemon.

    Args:
        daemon: tells whether plain methods run on threads.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._threads = OnThreads(daemon)

    def call(
        self, target: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], call: Call
    ) -> Any:
        """Call a method, or get or set a property (``__getattr__``, ``__setattr__``).

        Args:
            target: the object.
            name: of the member, as the client sent it.
            args: positional arguments.
            kwargs: keyword arguments.
            call: who calls, and what came along.

        Returns:
            The result, or an awaitable of it.

        Raises:
            AttributeError: there is no such member, or it is not exposed.
            RmiError: the caller may not use it.
            BaseException: whatever the member raises.
        """
        if name[:1] == "_":
            if name == "__getattr__" and len(args) == 1:
                accessors = _accessors(target, args[0], "fget")
                return self._use_property(
                    accessors, _get_exposed_property_value, target, args, call
                )
            if name == "__setattr__" and len(args) == 2:
                accessors = _accessors(target, args[0], "fget", "fset")
                return self._use_property(
                    accessors, _set_exposed_property_value, target, args, call
                )
        method = self.method(target, name, call)
        if self._daemon.executor_for(call) and self._may_block(target, name, method):
            return self.on_thread(partial(call_plainly, method, args, kwargs, call), call)
        return call_plainly(method, args, kwargs, call)

    def blocking_method(self, target: Any, name: str, call: Call) -> Any:
        """Return a method that :meth:`call` would call on a thread; None: it would not.

        Raises:
            AttributeError, RmiError: as :meth:`call`.
        """
        daemon = self._daemon
        if name[:1] == "_" or target is daemon.daemon_object or daemon.executor_for(call) is None:
            return None
        method = self.method(target, name, call)
        return method if self._may_block(target, name, method) else None

    @staticmethod
    def method(target: Any, name: str, call: Call) -> Any:
        """Return a method that the caller may call.

        Raises:
            AttributeError: there is none of that name, or it is not exposed.
            RmiError: the caller may not use it.
        """
        if name[:1] == "_" and is_private_attribute(name):
            raise AttributeError(f"attempt to access private attribute '{name}'")
        found = getattr(type(target), name, None)
        if type(found) is FunctionType:
            method = getattr(target, name)
            # The function has the marks of its decorators at hand, its bound method does not.
            marked = found if getattr(method, "__func__", None) is found else method
        elif inspect.isdatadescriptor(found):
            # A property: its getter shall not run for a call that will be refused anyway.
            raise AttributeError(f"attempt to access unexposed attribute '{name}'")
        else:
            marked = method = getattr(target, name)
        if not getattr(marked, "_pyroExposed", False):
            raise AttributeError(f"attempt to access unexposed attribute '{name}'")
        _check(target, marked, call, name)
        return method

    def _use_property(
        self,
        accessors: Sequence[Any],
        use: Callable[..., Any],
        target: Any,
        args: Sequence[Any],
        call: Call,
    ) -> Any:
        for accessor in accessors:
            _check(target, accessor, call, args[0])
        # As stock: a setter may be used if its getter is exposed, or if it is and there is none.
        marked = next((one for one in accessors if one is not None), None)
        if accessors[-1] is None or not getattr(marked, "_pyroExposed", False):
            return use(target, *args)  # it raises: this one may not be used
        if self._daemon.threads:
            return self.on_thread(partial(call_plainly, use, (target, *args), {}, call), call)
        return call_plainly(use, (target, *args), {}, call)

    def _may_block(self, target: Any, name: str, method: Any) -> bool:
        if target is self._daemon.daemon_object:  # which runs code of others for streams only
            return name == "get_next_stream_item"
        return not inspect.iscoroutinefunction(method)

    def on_thread(self, function: Callable[[], Any], call: Call) -> Coroutine[Any, Any, Any]:
        """Return a coroutine that calls *function* where it may block; see :class:`OnThreads`."""
        return self._threads.call(function, call)


def _check(target: Any, member: Any, call: Call, name: str) -> None:
    words = getattr(member, "_rmi_allow", None)
    if not words:
        try:
            words = getattr(target, "_rmi_allow", None)
        except Exception:  # of the object's own __getattr__, such as a KeyError
            words = getattr(type(target), "_rmi_allow", None)
    if isinstance(words, frozenset):  # an object may have an answer of its own to every name
        check_allowed(words, call.identity, name)


def _accessors(target: Any, name: Any, *kinds: str) -> list[Any]:
    """Return a property's getter and setter, which carry the marks of their decorators."""
    if not isinstance(name, str):
        raise AttributeError("the name of an attribute is a string")
    found = getattr(type(target), name, None)
    return [getattr(found, kind, None) for kind in kinds]


def call_plainly(
    method: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], call: Call
) -> Any:
    """Call a method with ``Pyro5.api.current_context`` showing this call, as written for stock."""
    context = current_context.__dict__  # this thread's
    connection, message = call.connection, call.message
    if connection is not None:
        context["client"] = connection
        context["client_sock_addr"] = connection.peer
        context["correlation_id"] = (
            uuid.UUID(bytes=message.correlation_id)
            if message.correlation_id
            else connection.correlation_uuid
        )
    context["seq"] = message.seq
    context["msg_flags"] = message.flags
    context["serializer_id"] = message.serializer_id
    context["annotations"] = message.annotations or {}
    context["response_annotations"] = call.response_annotations
    call.begun = True
    try:
        result = method(*args, **kwargs)
    except Exception as error:
        if type(error) is TypeError and _raised_here(error):
            call.begun = False  # the arguments do not fit
        if getattr(method, "_pyroCallback", False):
            log.warning("a callback failed", exc_info=True)
        if connection is not None and not any(method is each for each in _OF_PROPERTIES):
            cast("ServerConnection", connection).method_failed(method, args, kwargs, error)
        raise
    call.response_annotations = context["response_annotations"]
    if type(result) is CoroutineType and getattr(method, "_pyroCallback", False):
        return _log_failure(result)
    return result


def _raised_here(error: Exception) -> bool:
    """Tell whether *error* was raised by calling a function, and not inside it."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


async def _log_failure(callback: Coroutine[Any, Any, Any]) -> Any:
    """Await a callback; what it raises shall be known where it runs as well (as with stock)."""
    try:
        return await callback
    except Exception:
        log.warning("a callback failed", exc_info=True)
        raise

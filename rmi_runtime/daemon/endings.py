"""What is to be done when a connection ends, in the order in which it was asked for."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any

from rmi_runtime.sparse_log import sparse_logger

log = sparse_logger(__name__)


class Endings:
    """Callbacks, and the resources that Pyro5's resource tracking closes.

    Attributes:
        over: True once the end has come.
        held: a call goes on that may use the resources: they are closed by what happens when this
            is False again.
    """

    def __init__(self) -> None:
        self._resources: weakref.WeakSet[Any] | None = None  # most connections have none
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._last: list[Callable[[], None]] = []
        self.over = self.held = False

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have *callback* called at the end; at once, if that has come.

        Returns:
            A function that takes the callback back.
        """
        key = object()
        if self.over:
            callback()
        else:
            self._callbacks[key] = callback

        def remove() -> None:
            self._callbacks.pop(key, None)

        return remove

    def at_last(self, act: Callable[[], None]) -> None:
        """Do something now, or, while the resources are held, just before they are closed."""
        if self.held:
            self._last.append(act)
        else:
            act()

    @property
    def resources(self) -> weakref.WeakSet[Any]:
        """The resources; as with stock, what nobody else holds is not kept for its sake."""
        if self._resources is None:
            self._resources = weakref.WeakSet()
        return self._resources

    def happen(self, executor: Executor | None) -> None:
        """Do it all, each thing once; what fails is logged, and keeps nothing else from being done.

        Args:
            executor: closes the resources, which may block, or belong to its thread; None: here.
        """
        self.over = True
        tracked = None if self.held else self._resources
        # A thread may add to these, and do it all as well: each step is one that it cannot divide.
        alive = [] if tracked is None else _living(list(tracked.data))  # type: ignore[attr-defined]
        taken = [self._callbacks.pop(key, None) for key in list(self._callbacks)]
        _do_all(act for act in taken if act is not None)
        with contextlib.suppress(IndexError):
            while not self.held:
                _do_all([self._last.pop(0)])
        if tracked and alive:  # nobody else may hold them until they are closed
            apart(executor, lambda: _close_all(tracked, alive))


class Ending:
    """What has an end that others may want to hear of: a base class of connections."""

    def __init__(self) -> None:
        super().__init__()
        self._endings = Endings()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have *callback* called when this connection ends.

        Returns:
            A function that takes the callback back. If the connection has ended already, the
            callback is called at once.
        """
        return self._endings.add(callback)

    def at_last(self, act: Callable[[], None]) -> None:
        """Do something at the end, when no call goes on that may use the resources."""
        self._endings.at_last(act)

    @property
    def over(self) -> bool:
        """True once this connection has ended."""
        return self._endings.over

    def end_late(self) -> None:
        """Do what a method asked for that went on after the end, in the thread that ran it."""
        if self._endings.over:
            self._endings.happen(None)

    @property
    def tracked_resources(self) -> weakref.WeakSet[Any]:
        """Objects that are closed when the connection ends (Pyro5's resource tracking)."""
        return self._endings.resources


def apart(executor: Executor | None, act: Callable[[], None]) -> None:
    """Have something done by *executor*; here, if there is none or it has been shut down."""
    if executor is not None:
        with contextlib.suppress(RuntimeError):
            executor.submit(act)
            return
    act()


def _living(references: list[weakref.ref[Any]]) -> list[Any]:
    return [one for reference in references if (one := reference()) is not None]


def _close_all(tracked: weakref.WeakSet[Any], alive: list[Any]) -> None:
    """Close what is still tracked: until now ``clientDisconnect`` could see it, as with stock."""
    while tracked:
        try:
            one = tracked.pop()  # by one thread only
        except KeyError:
            break
        _do_all([functools.partial(_close, one)])
    alive.clear()


def _close(resource: Any) -> None:
    resource.close()


def _do_all(acts: Iterable[Callable[[], None]]) -> None:
    for act in acts:
        try:
            act()
        except KeyboardInterrupt:
            raise
        except BaseException:  # SystemExit, too: only a client has gone
            log.exception("something failed that is done at the end of a connection")

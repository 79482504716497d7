"""What is to be done when a connection ends, in the order in which it was asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from rmi_runtime.sparse_log import sparse_logger

log = sparse_logger(__name__)


class Endings:
    """Callbacks, and the resources that Pyro5's resource tracking closes."""

    def __init__(self) -> None:
        self.resources: set[Any] = set()
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._over = False

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have *callback* called at the end; at once, if that has come.

        Returns:
            A function that takes the callback back.
        """
        key = object()
        if self._over:
            callback()
        else:
            self._callbacks[key] = callback

        def remove() -> None:
            self._callbacks.pop(key, None)

        return remove

    def happen(self) -> None:
        """Do it all, once; what fails is logged, and keeps nothing else from being done."""
        self._over = True
        acts = list(self._callbacks.values())
        acts += [functools.partial(_close, one) for one in self.resources]
        self._callbacks.clear()
        self.resources.clear()
        for act in acts:
            try:
                act()
            except Exception:
                log.exception("something failed that is done at the end of a connection")


class Ending:
    """What has an end that others may want to hear of: a base class of connections."""

    def __init__(self) -> None:
        self._endings = Endings()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have *callback* called when this connection ends.

        Returns:
            A function that takes the callback back. If the connection has ended already, the
            callback is called at once.
        """
        return self._endings.add(callback)

    @property
    def tracked_resources(self) -> set[Any]:
        """Objects that are closed when the connection ends (Pyro5's resource tracking)."""
        return self._endings.resources


def _close(resource: Any) -> None:
    resource.close()

"""``Pyro.Daemon``: the object every daemon offers about itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from Pyro5.core import DAEMON_NAME
from Pyro5.server import expose

from rmi_runtime.context import allow, current_call

if TYPE_CHECKING:
    from rmi_runtime.daemon.daemon import Daemon


@expose
class DaemonObject:
    """What stock Pyro5's daemon object offers, and :meth:`stats`.

    Unlike stock, the list of objects is not for strangers.

    Attributes:
        notes: what else :meth:`stats` tells, by name; each returns a plain value, or
            None for nothing.
        daemon: whose it is, if that is one that looks like stock's.
    """

    daemon: Any = None

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.notes: dict[str, Callable[[], object]] = {}

    @allow("service", "client")
    def registered(self) -> list[str]:
        """Return the ids of all registered objects."""
        return self._daemon.objects.ids()

    def ping(self) -> None:
        """Do nothing, so that a caller knows someone is there."""

    def info(self) -> str:
        """Return one line that describes the daemon."""
        nat = self.daemon and self.daemon.natLocationStr
        return (
            f"{DAEMON_NAME} bound on {self._daemon.location}, NAT {nat}, "
            f"{len(self._daemon.objects.ids())} objects registered. Servertype: asyncio"
        )

    def get_metadata(self, objectId: str) -> dict[str, set[str]]:
        """Return the exposed ``methods``, ``attrs`` and ``oneway`` methods of an object.

        Raises:
            Pyro5.errors.DaemonError: no such object.
        """
        return self._daemon.objects.metadata(objectId)

    def get_next_stream_item(self, streamId: str) -> Any | Awaitable[Any]:
        """Return the next item of a stream. Raises ``StopIteration`` at its end."""
        return self._daemon.streams.next(streamId, current_call().connection)

    def close_stream(self, streamId: str) -> None:
        """Forget a stream."""
        self._daemon.streams.close(streamId)

    @allow("service", "admin")
    def stats(self) -> dict[str, Any]:
        """Return the daemon's state and counters; see :meth:`rmi_runtime.Daemon.stats`."""
        told = {name: note() for name, note in self.notes.items()}
        return self._daemon.stats() | {name: it for name, it in told.items() if it is not None}

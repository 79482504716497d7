"""The connections of a daemon: who is there, who has not said who it is, who sent half a message.

Nobody may take a place, or memory, by saying nothing, or half of something, or by not reading what
it asked for. Those who do are told from the others here, and have to leave in time, or when there
are too many of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from rmi_runtime.daemon.making_way import who_makes_way
from rmi_runtime.limits import DaemonLimits
from rmi_runtime.sparse_log import sparse_logger

if TYPE_CHECKING:
    from rmi_runtime.daemon.connection import ServerConnection

log = sparse_logger(__name__)

READING_S: Final = 1.0
"""How long replies may be on their way before they count as unread, in seconds."""


class Connections:
    """A daemon's connections. Iterating gives those that stand.

    Args:
        limits: how many, and how long they may say nothing.
        clock: monotonic, in seconds.

    Attributes:
        refusals: connections, and handshakes, that were refused so far.
        made: connections so far.
    """

    def __init__(self, limits: DaemonLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.refusals = 0
        self.made = 0
        self._limits = limits
        self._clock = clock
        self._all: set[ServerConnection] = set()
        self._closed = False
        # In order of time: since when each is what it is.
        self._ungreeted: dict[ServerConnection, float] = {}
        self._partial: dict[ServerConnection, float] = {}
        self._unread: dict[ServerConnection, float] = {}

    def __iter__(self) -> Iterator[ServerConnection]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, connection: object) -> bool:
        return connection in self._all

    @property
    def ungreeted(self) -> int:
        """How many have not ended their handshake."""
        return len(self._ungreeted)

    @property
    def partial(self) -> int:
        """On how many half a message waits for its rest."""
        return len(self._partial)

    def next_number(self) -> int:
        """Return the number of the next connection."""
        self.made += 1
        return self.made

    def close(self) -> None:
        """Admit no more."""
        self._closed = True

    def admit(self, connection: ServerConnection) -> bool:
        """Count a new connection in, unless there are too many.

        The newcomer takes the place of the one that has been silent for longest, if one is: silent
        sockets cannot lock anybody out.
        """
        # One may have been accepted just before the daemon was closed.
        if self._closed or len(self._all) >= self._limits.connections_max:
            if self._closed or not self._ungreeted:
                self.refusals += 1
                return False
            silent = next(iter(self._ungreeted))
            self._cut_off(silent, "no handshake")
            self.dismiss(silent)
        self._all.add(connection)
        self._ungreeted[connection] = self._clock()
        return True

    def greeted(self, connection: ServerConnection) -> None:
        """Note that a connection's handshake is done."""
        self._ungreeted.pop(connection, None)

    def dismiss(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended."""
        self._all.discard(connection)
        self._ungreeted.pop(connection, None)
        self._partial.pop(connection, None)
        self._unread.pop(connection, None)

    def count_refusal(self) -> None:
        """Count a connection or handshake that was refused."""
        self.refusals += 1

    def note_partial(self, connection: ServerConnection) -> None:
        """Note that half a message has come, unless that is known."""
        self._partial.setdefault(connection, self._clock())

    def note_partial_anew(self, connection: ServerConnection) -> None:
        """Note that half a message has come, after a whole one."""
        self._partial.pop(connection, None)
        self._partial[connection] = self._clock()

    def note_whole(self, connection: ServerConnection) -> None:
        """Note that no half message is waiting for its rest."""
        if self._partial:
            self._partial.pop(connection, None)

    def note_sent(self, connection: ServerConnection) -> None:
        """Note that there may be replies which the peer has not read."""
        self._unread.setdefault(connection, self._clock())

    def tidy(self) -> None:
        """Close those whose time is up, and those for whom too much is kept."""
        limits, now_s = self._limits, self._clock()
        self._expire(self._ungreeted, now_s - limits.handshake_s, "no handshake in time")
        self._expire(self._partial, now_s - limits.message_s, "half a message only")
        for connection in who_makes_way(self._partial, _half, limits.halves_size_bytes_max):
            self._cut_off(connection, "too much of half messages")
        self._unread = {one: at_s for one, at_s in self._unread.items() if one.unread_bytes}
        slow = [one for one, at_s in self._unread.items() if at_s <= now_s - READING_S]
        for connection in who_makes_way(slow, _unread, limits.all_unread_bytes_max):
            self._cut_off(connection, "too many replies that are not read")

    def _expire(self, since: dict[ServerConnection, float], limit_s: float, why: str) -> None:
        while since:
            connection, at_s = next(iter(since.items()))
            if at_s > limit_s:
                return
            del since[connection]
            self._cut_off(connection, why)

    def _cut_off(self, connection: ServerConnection, why: str) -> None:
        log.info("connection %d from %s closed: %s", connection.id, connection.peer, why)
        self.refusals += 1
        connection.abort()


def _half(connection: ServerConnection) -> int:
    return len(connection.parser.kept)


def _unread(connection: ServerConnection) -> int:
    return connection.unread_bytes

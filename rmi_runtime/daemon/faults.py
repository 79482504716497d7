"""Faulty requests: how many a caller may make before it is held back.

A *fault* is bytes that are no message, a refused handshake (of TLS, too), a request that was
refused before any method began, a PING (of which nobody needs many), or a connection that ends in
the middle of a message, or with replies unread. Whoever makes more of them than a person with a bug
would is served on, but waits, so that the calls of others keep their time: fifty a second, or one
for each of its connections in five seconds, or in a quarter of one if it connects anew for each.
Strangers are told apart by their addresses, clients by their numbers. Services are trusted, once
they are known.

The bound is a leaky bucket in its form with a *theoretical arrival time* (the generic cell rate
algorithm of ITU-T I.371): one number for each caller, and no timer.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from rmi_runtime import errors

if TYPE_CHECKING:
    from collections.abc import Hashable

    from rmi_runtime.daemon.daemon import Daemon

HOLD_S_MAX: Final = 5.0
"""Longest that a connection is held for a fault of its own, in seconds."""

NEWCOMER_HOLD_S_MAX: Final = 0.25
"""Longest that a new connection is held, in seconds: it may be somebody else at that address."""

CALLERS_MAX: Final = 4_096
"""Callers whose faults are remembered: the latest ones."""

_THEIRS: Final = (
    errors.Forbidden,
    errors.InvalidRequest,
    errors.NotFound,
    errors.Unauthenticated,
)


def is_fault(error: BaseException) -> bool:
    """Tell whether *error*, raised before a method began, is the caller's fault."""
    if isinstance(error, errors.RmiError):
        return isinstance(error, _THEIRS)
    # An authenticator that cannot reach what it asks is nobody's fault.
    return not isinstance(error, OSError) or isinstance(error, PermissionError)


def caller_of(connection: Any) -> Hashable | None:
    """Return who is at the other end, as far as faults go; None if they are not counted."""
    identity = connection.identity
    if identity.kind == "service":
        return None
    if identity.kind == "client":
        return "client", identity.client
    return address_of(connection.peer)


def address_of(peer: object) -> Hashable:
    """Return who a stranger is, of whom there is only what the socket tells."""
    return str(peer[0]) if isinstance(peer, tuple) and peer else "here"


class Held:
    """What may have to wait for what it did wrong: a base class of connections."""

    _daemon: Daemon
    _held = 0
    """How many waits are not over."""

    def fault(self) -> None:
        """Take note that the peer did something wrong; its next request may have to wait for it."""
        caller = caller_of(self)
        if caller is not None:
            self._hold(self._daemon.faults.note(caller, time.monotonic()))

    def hold_newcomer(self) -> None:
        """Let a new connection wait for what its caller did wrong on others."""
        self._hold(self._daemon.faults.newcomer_wait_s(caller_of(self), time.monotonic()))

    def _hold(self, wait_s: float) -> None:
        if wait_s > 0:
            self._held += 1
            self._daemon.loop.call_later(wait_s, self._let_go)

    def _let_go(self) -> None:
        self._held -= 1
        self._go_on_soon()

    @abstractmethod
    def _go_on_soon(self) -> None:
        """Carry out what waits, unless the connection has ended."""


class FaultMeter:
    """Counts faults, and says how long whoever makes them has to wait.

    Args:
        per_s: faults that one caller may make in a second, for as long as it likes; infinity counts
            none.
        burst: faults beyond that before it has to wait.

    Raises:
        ValueError: *per_s* is not more than 0.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        if not per_s > 0:
            raise ValueError(f"faults_per_s must be more than 0, not {per_s}; infinity counts none")
        self._step_s = 1 / per_s
        self._ahead_s = burst / per_s
        self._due: OrderedDict[Hashable, float] = OrderedDict()  # when as many would be in order

    def note(self, caller: Hashable, now_s: float) -> float:
        """Take note of a fault.

        Args:
            caller: see :func:`caller_of`.
            now_s: by a clock that never goes back.

        Returns:
            For how many seconds its next request on the same connection has to wait, 0 to
            :data:`HOLD_S_MAX`.
        """
        due = max(self._due.pop(caller, -math.inf), now_s) + self._step_s
        # No further ahead than the longest wait: who stops is in order again soon.
        self._due[caller] = min(due, now_s + self._ahead_s + HOLD_S_MAX)
        if len(self._due) > CALLERS_MAX:
            self._due.popitem(last=False)
        return self.wait_s(caller, now_s)

    def wait_s(self, caller: Hashable, now_s: float) -> float:
        """Return for how many seconds a caller has to wait now."""
        if caller not in self._due:
            return 0.0
        return min(max(0.0, self._due[caller] - now_s - self._ahead_s), HOLD_S_MAX)

    def newcomer_wait_s(self, caller: Hashable, now_s: float) -> float:
        """Return for how many seconds a new connection has to wait now; it may be another's."""
        return min(self.wait_s(caller, now_s), NEWCOMER_HOLD_S_MAX)

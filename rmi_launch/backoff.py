"""How long to wait before a dead service is started again. Plain code."""

from __future__ import annotations

FIRST_S = 0.1

LONGEST_S = 1.0
"""A start is a fork, so trying once a second costs little; and whoever was killed several times in
a row is back within two seconds of the last."""

HEALTHY_S = 2.0


class Backoff:
    """Delays that double from :data:`FIRST_S` to :data:`LONGEST_S`, and begin anew after health."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def delay_s(self, ready_for_s: float) -> float:
        """Return the delay before the next start.

        Args:
            ready_for_s: how long the service was ready before it died; 0 if it never was.

        Returns:
            Seconds to wait.
        """
        if ready_for_s >= HEALTHY_S:
            self._next_s = FIRST_S
        delay_s = self._next_s
        self._next_s = min(2 * delay_s, LONGEST_S)
        return delay_s

"""How many calls a second there are, from looks at a counter."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 5


class CallRate:
    """The rate of the last few seconds. Somebody looks at the counter more than once a second."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque(maxlen=WINDOW_S + 1)

    def look(self, now_s: float, calls: int) -> None:
        """Note how many calls there have been until now."""
        if not self._looks or now_s - self._looks[-1][0] >= 1.0:
            self._looks.append((now_s, calls))

    def per_s(self, now_s: float, calls: int) -> float:
        """Return the rate, if there have been so many calls until now."""
        if not self._looks:
            return 0.0
        at_s, before = self._looks[0]
        return (calls - before) / (now_s - at_s) if now_s > at_s else 0.0

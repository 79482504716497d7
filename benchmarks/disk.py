"""How long the disk takes for a small durable write, apart from any store of ours.

A commit waits for one such write at least. Where the disk is slow, or stops now and then, no
program above it can answer sooner: latencies are to be read beside these figures.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from types import TracebackType
from typing import Any

SIZE = 8192  # bytes
PAUSE_S = 0.005


class DiskProbe:
    """Writes a little in a thread of its own, durably, again and again, while a context is open.

    It overwrites one place, so that nothing but the bytes themselves has to reach the disk.
    """

    def __init__(self) -> None:
        self._took_s: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._probe, name="disk probe", daemon=True)

    def __enter__(self) -> DiskProbe:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def figures(self) -> dict[str, Any]:
        """Return what was found, after the context.

        Returns:
            ``writes``; ``p50_us``, ``p99_us`` and ``longest_us``, microseconds for one of them.
        """
        took_s = sorted(self._took_s)

        def at(share: float) -> float:
            return round(took_s[min(len(took_s) - 1, int(share * len(took_s)))] * 1e6, 1)

        return {
            "writes": len(took_s),
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "longest_us": at(1.0),
        }

    def _probe(self) -> None:
        with tempfile.TemporaryFile() as file:
            number = file.fileno()
            os.pwrite(number, bytes(SIZE), 0)
            os.fsync(number)
            while True:
                os.pwrite(number, bytes(SIZE), 0)
                began_s = time.perf_counter()
                os.fdatasync(number)
                self._took_s.append(time.perf_counter() - began_s)
                if self._stop.wait(PAUSE_S):
                    return


def in_words(figures: dict[str, Any]) -> str:
    """Return the *figures* of a probe as a part of a sentence."""
    return (
        f"{figures['p50_us']:,.0f} µs in the middle, {figures['p99_us'] / 1e3:,.1f} ms at p99, "
        f"{figures['longest_us'] / 1e3:,.0f} ms at most ({figures['writes']:,} writes)"
    )

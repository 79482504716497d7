"""What the HTTP server allows, each bound with its unit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from rmi_runtime.limits import CONNECTIONS_SHARE, descriptors_max


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one HTTP server.

    Attributes:
        head_size_bytes_max: request line and headers together; above it, 431. So much may also
            come of trailers, or of extensions between two chunks of a body; above it, 413.
        target_size_bytes_max: the request target (path and query); above it, 414.
        headers_max: number of headers; above it, 431.
        body_size_bytes_max: one body; above it, 413, before it is read if its length is announced.
        bodies_size_bytes_max: all bodies that are being received, and those of requests that are
            not answered yet; above it, 503 for whatever has more than a small body.
        small_body_size_bytes: what a body may have to come in nevertheless: so a flood of large
            ones, or services that do not take them, keep nobody from small requests.
        connections_max: open connections; for one more, those are closed that have asked nothing
            for longest, if that is ``silent_s_min`` or more; else it is answered 503 and closed.
            Never more than five eighths of the descriptors that the process may have.
        silent_s_min: see there; it is ``write_wait_s`` for those that have not read all answers.
        head_wait_s: from a connection's opening, or from the first byte of a later request, to the
            end of the headers; past it, 408.
        body_wait_s: from the end of the headers to the end of the body; past it, 408.
        idle_wait_s: a connection without a request for so long is closed.
        ahead_size_bytes_max: all requests that were read and have to wait for the answers before
            them, but for the next ones of each connection; above it, 503 for what comes in more.
        unread_size_bytes_max: all answers that were written and that their clients have not read
            yet; above it, those that have not read for longest are cut off.
        write_wait_s: a client that does not read its answer for so long is cut off: of a long one,
            a part of 64 KiB (see :mod:`rmi_runtime.http.flow`).
    """

    head_size_bytes_max: int = 32 * 1024
    target_size_bytes_max: int = 8 * 1024
    headers_max: int = 100
    body_size_bytes_max: int = 1024 * 1024
    bodies_size_bytes_max: int = 128 * 1024 * 1024
    small_body_size_bytes: int = 16 * 1024
    ahead_size_bytes_max: int = 128 * 1024 * 1024
    unread_size_bytes_max: int = 128 * 1024 * 1024
    connections_max: int = 10_000
    silent_s_min: float = 1.0
    head_wait_s: float = 10.0
    body_wait_s: float = 30.0
    idle_wait_s: float = 75.0
    write_wait_s: float = 30.0

    @property
    def refusals_max(self) -> int:
        """Connections beyond ``connections_max`` that are told so; more are cut off without."""
        return max(1, self.connections_max // 8)

    def within_descriptors(self) -> Self:
        """Return these bounds, with connections that the system's limit on open files has room for.

        Out of descriptors, a server hears of no new connection, and reaches nobody itself.
        """
        room = max(1, descriptors_max() * CONNECTIONS_SHARE)
        return replace(self, connections_max=int(room)) if room < self.connections_max else self

    @property
    def sweep_every_s(self) -> float:
        """Seconds between two looks at the clocks of all connections."""
        shortest = min(self.head_wait_s, self.body_wait_s, self.idle_wait_s, self.write_wait_s)
        return min(1.0, shortest / 4)

"""What a daemon allows, each bound with its unit."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass, replace
from typing import Final, Self

CONNECTIONS_SHARE: Final = 5 / 8
"""How much of the descriptors of a process connections may take."""

HANDSHAKES_SHARE: Final = 2 / 8
"""How much of them those may take who shake hands for TLS; the rest is for files of its own."""

KEPT_BYTES_MAX: Final = 256 * 1024 * 1024
"""What is kept of messages, if these are of the usual size."""

KEPT_MESSAGES: Final = 4
"""So many of the largest are kept in any case: else one would be a ground to hang up, or refuse."""


def kept_bytes_max(size_bytes: int) -> int:
    """Return how much is kept of messages of at most *size_bytes* each."""
    return max(KEPT_BYTES_MAX, KEPT_MESSAGES * size_bytes)


def descriptors_max() -> float:
    """Return how many descriptors this process may have open; perhaps infinity."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def handshakes_bound(wanted: int) -> int:
    """Return how many TLS handshakes may be under way: *wanted*, or their share."""
    return int(max(1, min(wanted, descriptors_max() * HANDSHAKES_SHARE)))


@dataclass(frozen=True, slots=True)
class DaemonLimits:
    """Bounds of one daemon.

    Attributes:
        connections_max: open connections; one more is closed at once. Never more than five eighths
            of the descriptors that the process may have (``ulimit -n``).
        message_size_bytes_max: payload plus annotations of a request, as sent and as inflated.
        stranger_size_bytes_max: the same from anonymous callers of a daemon that can tell who is
            calling.
        stranger_elements_max: likewise of ``elements_max``.
        handshake_size_bytes_max: the same for the handshake, from peers nobody knows yet.
        reply_size_bytes_max: payload of a reply; a larger one becomes an error.
        elements_max: values in one request, checked before it is parsed.
        batch_max: calls in one batch.
        inflight_max: calls under way in the whole daemon; one more is ``Overloaded``. With threads,
            calls that were given up count until a thread has come to them.
        inflight_size_bytes_max: payloads of all requests whose calls are under way; one more of
            over 16 KiB is ``Overloaded``.
        connection_inflight_max: as ``inflight_max``, for one connection.
        streams_max: open item streams; 0: a result that is an iterator is an error.
        connection_streams_max: the same for one connection.
        stream_lifetime_s: see :class:`rmi_runtime.daemon.streams.StreamTable`; 0 is for ever.
        stream_linger_s: likewise.
        halves_size_bytes_max: what has come of messages that are not complete, on the connections
            of all clients and strangers together; above it, whoever has most of it loses those
            connections that have waited for longest.
        handshake_s: a connection that has not finished its handshake by then is closed.
        message_s: a message whose rest has not come by then closes its connection.
        write_buffer_bytes_max: replies a client has not read; above it, it is not listened to.
        unread_bytes_max: the same without the last reply, which may be larger; above it, its
            connection is closed when there is more to send.
        all_unread_bytes_max: replies that all clients and strangers together have not read, on
            connections where some have waited all the time for more than a second, and results of
            batches that are not at their end; above it, whoever has most of it loses those
            connections where some have waited for longest. Who reads, but never all, counts too.
        faults_per_s: faulty requests that one caller (a client, or the strangers at one address)
            may make in a second; beyond ``faults_burst`` it is held back, see
            :mod:`rmi_runtime.daemon.faults`. Infinity holds nobody back.
        faults_burst: see ``faults_per_s``.
    """

    connections_max: int = 20_000
    message_size_bytes_max: int = 8 * 1024 * 1024
    stranger_size_bytes_max: int = 64 * 1024
    stranger_elements_max: int = 4_096
    handshake_size_bytes_max: int = 16 * 1024
    reply_size_bytes_max: int = 64 * 1024 * 1024
    elements_max: int = 65_536
    batch_max: int = 10_000
    inflight_max: int = 16_384
    inflight_size_bytes_max: int = KEPT_BYTES_MAX
    connection_inflight_max: int = 4_096
    streams_max: int = 1_024
    connection_streams_max: int = 256
    stream_lifetime_s: float = 0.0
    stream_linger_s: float = 30.0
    halves_size_bytes_max: int = KEPT_BYTES_MAX
    handshake_s: float = 30.0
    message_s: float = 60.0
    write_buffer_bytes_max: int = 1024 * 1024
    unread_bytes_max: int = KEPT_BYTES_MAX
    all_unread_bytes_max: int = KEPT_BYTES_MAX
    faults_per_s: float = 50.0
    faults_burst: int = 100

    def of_message(self, *, stranger: bool) -> tuple[int, int]:
        """Return the bounds on one message: bytes, and elements."""
        size, elements = self.message_size_bytes_max, self.elements_max
        if stranger:
            size = min(size, self.stranger_size_bytes_max)
            elements = min(elements, self.stranger_elements_max)
        return size, elements

    def within_descriptors(self) -> Self:
        """Return these bounds, with connections that the system's limit on open files has room for.

        Out of descriptors, a daemon could not tell silent connections from others: none could come.
        """
        room = max(1, descriptors_max() * CONNECTIONS_SHARE)
        return replace(self, connections_max=int(room)) if room < self.connections_max else self

"""What :class:`rmi_runtime.compat.Daemon` takes from Pyro5's configuration."""

from __future__ import annotations

import contextlib
import ssl as tls
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from Pyro5 import config
from Pyro5.errors import PyroError

from rmi_runtime.limits import DaemonLimits, kept_bytes_max

ELEMENTS_MAX: Final = 1_000_000
MESSAGE_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
STOCK_MESSAGE_SIZE_BYTES_MAX: Final = 1024 * 1024 * 1024  # a default that nobody chose


def nat_address(
    nathost: object, natport: int | None, unixsocket: str | None
) -> tuple[str, int] | None:
    """Return the address to put into URIs instead of the bound one, or None.

    Args:
        nathost: its host, an IPv6 address with or without brackets; None: as configured; "": none.
        natport: its port, 0 for the bound one; None: as configured.
        unixsocket: what is bound, if it is a Unix domain socket.

    Raises:
        ValueError: it is incomplete, or a socket has none.
    """
    host = nathost if nathost is not None else config.NATHOST
    if natport is None and host is not None:
        natport = config.NATPORT
    if host is None:
        if natport is not None:
            raise ValueError("a natport needs its nathost")
        return None
    host = str(host).strip("[]")
    if not host:
        return None
    if unixsocket:
        raise ValueError("a Unix domain socket has no NAT address")
    return host, natport or 0


def configured_limits() -> DaemonLimits:
    """Return Pyro5's bounds where they were chosen, and ours where not."""
    size = config.MAX_MESSAGE_SIZE
    if size == STOCK_MESSAGE_SIZE_BYTES_MAX:
        size = MESSAGE_SIZE_BYTES_MAX
    streams = {} if config.ITER_STREAMING else {"streams_max": 0}
    kept = kept_bytes_max(size)
    return DaemonLimits(
        message_size_bytes_max=size,
        reply_size_bytes_max=size,
        inflight_size_bytes_max=kept,
        halves_size_bytes_max=kept,
        unread_bytes_max=kept,
        all_unread_bytes_max=kept,
        elements_max=ELEMENTS_MAX,
        batch_max=ELEMENTS_MAX,
        stranger_size_bytes_max=size,  # whom validateHandshake lets in is no stranger
        stranger_elements_max=ELEMENTS_MAX,
        stream_lifetime_s=config.ITER_STREAM_LIFETIME,
        stream_linger_s=config.ITER_STREAM_LINGER,
        **streams,
    )


def configured_threads() -> int:
    """Return how many threads run plain methods: none with the multiplex server.

    Raises:
        PyroError: there is no such type of server.
        ValueError: there would be no threads, which is not how to ask for the multiplex server.
    """
    threads = {"thread": config.THREADPOOL_SIZE, "multiplex": 0}.get(config.SERVERTYPE)
    if threads is None:
        raise PyroError(f"invalid server type {config.SERVERTYPE!r}: it is thread or multiplex")
    if config.SERVERTYPE == "thread" and threads < 1:
        raise ValueError(
            f"THREADPOOL_SIZE is {threads}: expected at least 1, or SERVERTYPE multiplex for none"
        )
    return int(threads)


def configured_ssl() -> tls.SSLContext | None:
    """Return the server context for the configured certificates, or None without SSL.

    Raises:
        ValueError: no certificate is configured.
        OSError: what is configured cannot be used; its text names the files.
    """
    if not config.SSL:
        return None
    if not config.SSL_SERVERCERT:
        raise ValueError("SSL is configured without a certificate: set SSL_SERVERCERT to its file")
    context = tls.create_default_context(tls.Purpose.CLIENT_AUTH)
    with _named("SSL_SERVERCERT", "SSL_SERVERKEY"):
        context.load_cert_chain(
            config.SSL_SERVERCERT, config.SSL_SERVERKEY or None, config.SSL_SERVERKEYPASSWD or None
        )
    if config.SSL_CACERTS:
        directory = Path(config.SSL_CACERTS).is_dir()
        with _named("SSL_CACERTS"):
            context.load_verify_locations(
                **{"capath" if directory else "cafile": config.SSL_CACERTS}
            )
    context.verify_mode = tls.CERT_REQUIRED if config.SSL_REQUIRECLIENTCERT else tls.CERT_NONE
    return context


@contextlib.contextmanager
def _named(*items: str) -> Iterator[None]:
    """Name the files of these items in errors, which the ssl module leaves out."""
    try:
        yield
    except OSError as error:
        files = " and ".join(f"{item} {getattr(config, item)!r}" for item in items)
        said = error.strerror or str(error)
        raise type(error)(error.errno, f"cannot use the configured {files}: {said}") from None

"""The socket a daemon listens on."""

from __future__ import annotations

import errno
import socket
from typing import Final

from rmi_runtime.settings.rules import PORT_MAX

KEEPALIVE_S: Final = 60


def bind(host: str, port: int, unixsocket: str | None) -> tuple[socket.socket, str]:
    """Bind a socket to listen on.

    Args:
        host: name or address.
        port: 0 picks a free one.
        unixsocket: path of a Unix domain socket, instead.

    Returns:
        The socket, and its location in Pyro's notation.

    Raises:
        OSError: the address cannot be bound; its text names the address.
    """
    try:
        return _bind(host, port, unixsocket)
    except OSError as error:
        where = unixsocket or (f"{host}:{port}" if port else host)
        what = f"cannot listen on {where}: {error.strerror or error}; {_advice(error.errno)}"
        raise type(error)(error.errno, what) from None


def _advice(number: int | None) -> str:
    if number == errno.EADDRINUSE:
        return "stop what listens there, or choose another address"
    if number == errno.EACCES:
        return "choose a port of 1024 or above, or a path that may be written"
    return "choose an address of this machine"


def _bind(host: str, port: int, unixsocket: str | None) -> tuple[socket.socket, str]:
    if unixsocket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.bind(unixsocket)
        except OSError:
            sock.close()
            raise
        return sock, "./u:" + unixsocket
    if not 0 <= port <= PORT_MAX:  # the C library takes what is left of it in 16 bits
        raise OSError(errno.EINVAL, f"a port is a number from 0 to {PORT_MAX}")
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _notice_dead_peers(sock)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    port = sock.getsockname()[1]
    return sock, f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def _notice_dead_peers(sock: socket.socket) -> None:
    """Have the system probe silent peers, so that those that lost power do not stay for ever."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted sockets inherit it
    for option, value in (("TCP_KEEPIDLE", KEEPALIVE_S), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

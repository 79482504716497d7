"""Ways to the server: TCP, IPv6, Unix domain sockets, TLS."""

from __future__ import annotations

import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

import Pyro5.errors
import pytest
from Pyro5.api import expose

from rmi_runtime import errors
from tests.compat.certificates import certificates
from tests.compat.clients import Client
from tests.compat.table import BETTER, row
from tests.compat.world import World

FAILED = (Pyro5.errors.CommunicationError, errors.Unavailable, ssl.SSLError)


@expose
class Echo:
    """Gives back what it gets."""

    def echo(self, value: Any) -> Any:
        return value

    def host(self) -> Any:
        return self


@row("transport", "Unix domain sockets")
def unix_socket(world: World) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s"
        server = world.start_server(unixsocket=str(path))
        client = world.client(Echo())
        assert f"./u:{path}" in str(world.serve(Echo()))
        assert client.call("echo", 1) == 1
        client.close()
        server.stop()
        assert not path.exists()


@row("transport", "IPv6")
def ipv6(world: World) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    server = world.start_server(host="::1")
    assert server.location.startswith("[::1]:")
    client = world.client(Echo())
    assert client.call("echo", 1) == 1
    assert world.adopt(client.call("host")).call("echo", 2) == 2


def _secured(world: World, *, mutual: bool) -> Client:
    made = certificates()
    world.configure(**made.stock_config(mutual=mutual))
    world.start_server(host="localhost", tls=made.server_context(mutual=mutual))
    return world.client(Echo(), tls=made.client_context(mutual=mutual))


@row("transport", "TLS")
def tls(world: World) -> None:
    client = _secured(world, mutual=False)
    text = "x" * 100_000
    assert client.call("echo", text) == text
    assert world.adopt(client.call("host")).call("echo", 2) == 2


@row("transport", "TLS with client certificates")
def mutual_tls(world: World) -> None:
    client = _secured(world, mutual=True)
    assert client.call("echo", 1) == 1


@row("transport", "TLS: a client without a certificate is refused, if one is wanted")
def no_certificate(world: World) -> None:
    made = certificates()
    world.configure(**made.stock_config(mutual=True))
    world.start_server(host="localhost", tls=made.server_context(mutual=True))
    uri = world.serve(Echo())
    world.configure(SSL_CLIENTCERT="", SSL_CLIENTKEY="")
    with pytest.raises(FAILED):
        world.connect(uri, tls=made.client_context(mutual=False)).call("echo", 1)


@row("transport", "TLS: a server of another CA is not trusted")
def other_ca(world: World) -> None:
    made, other = certificates(), certificates("other")
    world.configure(**made.stock_config(mutual=False))
    world.start_server(host="localhost", tls=made.server_context(mutual=False))
    uri = world.serve(Echo())
    world.configure(SSL_CACERTS=other.ca)
    with pytest.raises(FAILED):
        world.connect(uri, tls=other.client_context(mutual=False)).call("echo", 1)


@row("transport", "TLS: a client that speaks none is refused")
def plain_client(world: World) -> None:
    made = certificates()
    world.configure(**made.stock_config(mutual=False))
    world.start_server(host="localhost", tls=made.server_context(mutual=False))
    uri = world.serve(Echo())
    world.configure(SSL=False)
    with pytest.raises((*FAILED, errors.Indefinite)):
        world.connect(uri, timeout_s=5.0).call("echo", 1)


def _others_wait(world: World) -> None:
    made = certificates()
    world.configure(**made.stock_config(mutual=False))
    server = world.start_server(host="localhost", tls=made.server_context(mutual=False))
    host, port = server.location.rsplit(":", 1)
    client = world.client(Echo(), tls=made.client_context(mutual=False), timeout_s=0.5)
    with (
        socket.create_connection((host, int(port))),
        pytest.raises((Pyro5.errors.CommunicationError, errors.Unavailable)),
    ):
        client.call("echo", 1)


@row(
    "transport",
    "TLS: somebody who connects and says nothing keeps nobody waiting",
    verdict=BETTER,
    why="a stock daemon accepts nobody else until its handshake is done",
    stock=_others_wait,
)
def silent_stranger(world: World) -> None:
    made = certificates()
    world.configure(**made.stock_config(mutual=False))
    server = world.start_server(host="localhost", tls=made.server_context(mutual=False))
    host, port = server.location.rsplit(":", 1)
    client = world.client(Echo(), tls=made.client_context(mutual=False))
    with socket.create_connection((host, int(port))):
        assert client.call("echo", 1) == 1

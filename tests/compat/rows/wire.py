"""The wire: compression, blobs, sizes."""

from __future__ import annotations

from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest
from Pyro5 import protocol
from Pyro5.api import expose

from rmi_runtime import DaemonLimits, Proxy, errors
from rmi_runtime.wire.blob import SerializedBlob
from tests.compat.table import BETTER, DIFFERENT, row
from tests.compat.world import World


@expose
class Store:
    """Takes and gives large things."""

    def __init__(self) -> None:
        self.blobs: list[Any] = []

    def echo(self, value: Any) -> Any:
        return value

    def size(self, text: str) -> int:
        return len(text)

    def text(self, size: int) -> str:
        return "x" * size

    def blob(self, blob: Any) -> list[Any]:
        self.blobs.append(blob)
        assert isinstance(blob, Pyro5.api.SerializedBlob)
        return [blob.info, blob.deserialized()]


class Gateway:
    """Passes blobs on without reading them."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @expose
    def blob(self, blob: Any) -> Any:
        with Pyro5.api.Proxy(self._uri) as proxy:
            return proxy.blob(blob)


class AsyncGateway:
    """The same for our daemon."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @expose
    async def blob(self, blob: Any) -> Any:
        async with Proxy(self._uri) as proxy:
            return await proxy.blob(blob)


@row("wire", "compressed requests and replies")
def compressed(world: World) -> None:
    client = world.client(Store(), compress=True)
    text = "0123456789" * 10_000
    assert client.call("echo", text) == text


@row("wire", "blobs: an argument that stays serialized")
def blobs(world: World) -> None:
    info = ("name", 1, 2**40, -5, 1.5, None, True, b"\x00", "zażółć")
    for serializer in ("serpent", "msgpack"):
        client = world.client(Store(), serializer=serializer)
        made = Pyro5.api.SerializedBlob if world.direction.client == "stock" else SerializedBlob
        found_info, data = client.call("blob", made(info, [{"a": 1}, [2, 3]]))
        assert found_info[0] == "name"
        assert list(found_info[1:7]) == [1, 2**40, -5, 1.5, None, True]
        assert found_info[8] == "zażółć"
        assert list(data) == [{"a": 1}, [2, 3]]


@row("wire", "blobs are passed on by a gateway")
def passed_on(world: World) -> None:
    store = Store()
    uri = world.serve(store)
    gateway: Any = AsyncGateway(uri) if world.direction.server == "daemon" else Gateway(uri)
    client = world.client(gateway)
    blob = Pyro5.api.SerializedBlob("info", ["data", 1])
    info, data = client.call("blob", blob)
    assert (info, list(data)) == ("info", ["data", 1])


@row("wire", "a blob must be the only argument")
def lonely_blob(world: World) -> None:
    with pytest.raises((Pyro5.errors.SerializeError, ValueError, errors.InvalidRequest)):
        world.client(Store()).call("blob", Pyro5.api.SerializedBlob("info", []), 2)


@row("wire", "ping messages are answered", clients="stock")
def ping(world: World) -> None:
    client = world.client(Store())
    client.proxy._pyroBind()
    protocol.SendingMessage.ping(client.proxy._pyroConnection)
    assert client.call("echo", 1) == 1


def _connection_ends(world: World) -> None:
    world.configure(MAX_MESSAGE_SIZE=100_000)
    world.start_server(limits=DaemonLimits(message_size_bytes_max=100_000))
    client = world.client(Store())
    world.configure(MAX_MESSAGE_SIZE=1024**3 if world.direction.server != "stock" else 100_000)
    with pytest.raises((Pyro5.errors.CommunicationError, errors.ConnectionLost)):
        client.call("size", "x" * 200_000)
    assert client.call("size", "x" * 10) == 10


@row(
    "wire",
    "a request larger than the server takes",
    verdict=BETTER,
    side="client",
    why="stock loses the connection over it; ours learns the bound in the handshake (from our "
    "daemons) and refuses before sending, so that other calls go on",
    stock=_connection_ends,
    servers="daemon dropin",
)
def too_large(world: World) -> None:
    world.configure(MAX_MESSAGE_SIZE=100_000)
    world.start_server(limits=DaemonLimits(message_size_bytes_max=100_000))
    client = world.client(Store())
    client.call("size", "x")
    with pytest.raises(errors.InvalidRequest, match="takes at most 100000"):
        client.call("size", "x" * 200_000)
    assert client.call("size", "x" * 10) == 10


def _reply_ends_connection(world: World) -> None:
    world.configure(MAX_MESSAGE_SIZE=100_000)
    world.start_server()
    with pytest.raises((Pyro5.errors.CommunicationError, errors.RmiError)):
        world.client(Store()).call("text", 200_000)


@row(
    "wire",
    "a reply larger than the server sends is an error that says so",
    verdict=DIFFERENT,
    why="a stock daemon ends the connection without a word",
    stock=_reply_ends_connection,
)
def reply_too_large(world: World) -> None:
    world.configure(MAX_MESSAGE_SIZE=100_000)
    world.start_server(limits=DaemonLimits(reply_size_bytes_max=100_000))
    world.configure(MAX_MESSAGE_SIZE=1024**3)
    client = world.client(Store())
    with pytest.raises((RuntimeError, errors.InternalError), match="at most 100000 may be sent"):
        client.call("text", 200_000)
    assert client.call("text", 3) == "xxx"

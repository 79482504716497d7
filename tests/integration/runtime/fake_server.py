"""A server that does just what a test tells it to, right or wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from rmi_runtime import wire
from rmi_runtime.wire.serializers import BY_ID, BY_NAME

METADATA = {"methods": ["echo", "wait"], "attrs": [], "oneway": ["tell"]}


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = wire.Parser(1 << 30)
        self._messages: list[wire.Message] = []

    async def read(self) -> wire.Message:
        """Return the next message; raises ``EOFError`` at the end."""
        while not self._messages:
            data = await self._reader.read(1 << 16)
            if not data:
                raise EOFError
            self._messages += self._parser.feed(data)
        return self._messages.pop(0)

    async def greet(self, *, pipelining: bool = True, metadata: Any = METADATA) -> wire.Message:
        """Answer the handshake properly."""
        message = await self.read()
        assert message.type == wire.MSG_CONNECT
        notes = {wire.ANNOTATION_PIPELINING: wire.grant(1 << 20)} if pipelining else None
        payload = {"handshake": "hello", "meta": metadata}
        self.send(message, payload, type_=wire.MSG_CONNECTOK, annotations=notes)
        return message

    def send(
        self,
        request: wire.Message,
        value: Any,
        *,
        type_: int = wire.MSG_RESULT,
        seq: int | None = None,
        annotations: dict[str, bytes] | None = None,
        flags: int = 0,
    ) -> None:
        """Answer a request."""
        self.send_bytes(
            encoded(request, value, type_=type_, seq=seq, annotations=annotations, flags=flags)
        )

    def send_bytes(self, data: bytes) -> None:
        """Send whatever."""
        self._writer.write(data)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def closed(self) -> None:
        """Wait until the client has hung up."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(1 << 16):
                pass


def encoded(
    request: wire.Message,
    value: Any,
    *,
    type_: int = wire.MSG_RESULT,
    seq: int | None = None,
    annotations: dict[str, bytes] | None = None,
    flags: int = 0,
) -> bytes:
    """Return an answer to a request as bytes."""
    serializer = BY_ID.get(request.serializer_id) or BY_NAME["serpent"]
    number = request.seq if seq is None else seq
    payload = serializer.dumps(value)
    return wire.encode(type_, serializer.serializer_id, flags, number, payload, annotations)


def argument(message: wire.Message) -> Any:
    """Return the first argument of a call."""
    return BY_ID[message.serializer_id].load_call(message.payload, None)[2][0]


Script = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def fake_server(*scripts: Script) -> AsyncIterator[str]:
    """Serve each connection with the next script, the last one for all that follow.

    Yields:
        The URI of its only object.
    """
    number = 0
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        script = scripts[min(number, len(scripts) - 1)]
        number += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(Peer(reader, writer))
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"PYRO:thing@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not failures, failures


async def echo(peer: Peer) -> None:
    """A script: greet, then answer each call with its first argument."""
    await peer.greet()
    while True:
        message = await peer.read()
        peer.send(message, argument(message))


async def silent(peer: Peer) -> None:
    """A script: greet, then read and say nothing."""
    await peer.greet()
    await peer.closed()

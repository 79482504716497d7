"""HTTP inside TLS: what a connection leaves behind when it ends, and half-way ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rmi_runtime import client_context, server_context
from rmi_runtime.http import HttpLimits, HttpServer, listen
from rmi_runtime.http.exchange import AsgiApp
from rmi_runtime.http.flow import PART_BYTES
from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, GOOD, Echo, Raw, head
from tests.support import eventually

pytestmark = BOTH_EVENT_LOOPS


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@contextlib.asynccontextmanager
async def serving(
    app: AsgiApp, certs: Path, limits: HttpLimits | None = None
) -> AsyncIterator[HttpServer]:
    async with HttpServer(app, limits=limits) as server:
        context = server_context(certs / "localhost.crt", certs / "localhost.key")
        await server.start(listen("127.0.0.1", 0), context)
        yield server


class HalfCloser:
    """A blocking client that says TLS's goodbye and keeps its socket open."""

    def __init__(self, address: tuple[str, int], certs: Path) -> None:
        self._sock = socket.create_connection(address)
        self._sock.settimeout(10)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context(certs / "ca.crt")
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        while not self._shaken():
            self._in.write(self._sock.recv(65536))

    def _shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._sock.sendall(self._out.read())
        return True

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._sock.sendall(self._out.read())

    def half_close(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._sock.sendall(self._out.read())

    def wait_for_the_end(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self._sock.recv(65536):
                pass
        self._sock.close()


@pytest.mark.usefixtures("no_collector")
async def test_a_connection_that_has_ended_leaves_nothing_for_the_collector(certs: Path) -> None:
    async with serving(Echo(), certs) as server:
        context = client_context(certs / "ca.crt")
        reader, writer = await asyncio.open_connection(
            *server.address, ssl=context, server_hostname="localhost"
        )
        writer.write(GOOD)
        assert await reader.readuntil(b"\r\n\r\n")
        (ended,) = map(weakref.ref, server.connections)
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: not server.connections)
        await eventually(lambda: ended() is None, timeout_s=2)


async def test_a_thousand_requests_sent_at_once_are_all_answered_in_order(certs: Path) -> None:
    async with serving(Echo(), certs) as server:
        connection = Raw(
            *await asyncio.open_connection(
                *server.address, ssl=client_context(certs / "ca.crt"), server_hostname="localhost"
            )
        )
        sending = asyncio.ensure_future(
            connection.send(*(head("GET", f"/{n}") for n in range(1000)))
        )
        for n in range(1000):
            assert json.loads((await connection.answer()).body)["path"] == f"/{n}"
        await sending
        connection.writer.close()


async def test_goodbye_before_the_answer_is_nothing_to_warn_of(
    certs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = Echo()
    async with serving(app, certs) as server:
        with caplog.at_level(logging.WARNING):
            client = await asyncio.to_thread(HalfCloser, server.address, certs)
            await asyncio.to_thread(client.send, head("GET", "/slow"))
            await app.entered.wait()
            await asyncio.to_thread(client.half_close)
            await asyncio.to_thread(client.wait_for_the_end)
            await eventually(lambda: not server.connections)
            app.hold.set()
            await eventually(lambda: not server.under_way)
    assert [record.message for record in caplog.records] == []


SIZE_BYTES = 20_000_000  # more than two sockets' buffers take


async def much(scope, receive, send) -> None:
    """Answer with one large body."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(range(250)) * (SIZE_BYTES // 250)})


async def deaf(
    server: HttpServer, certs: Path, *lines: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, ask for the large body, and read nothing."""
    context = client_context(certs / "ca.crt")
    reader, writer = await asyncio.open_connection(
        *server.address, ssl=context, server_hostname="localhost", limit=SIZE_BYTES
    )
    writer.transport.pause_reading()
    writer.write(head("GET", "/", *lines))
    return reader, writer


async def test_who_does_not_read_inside_tls_is_cut_off(certs: Path) -> None:
    async with serving(much, certs, HttpLimits(write_wait_s=0.2)) as server:
        _, writer = await deaf(server, certs)
        await eventually(lambda: bool(server.connections))
        await eventually(lambda: not server.connections)
        writer.transport.abort()


async def test_a_transport_that_encrypts_takes_little_of_what_is_not_read(certs: Path) -> None:
    async with serving(much, certs) as server:
        _, writer = await deaf(server, certs)
        await eventually(lambda: any(c.writing_paused for c in server.connections))
        (connection,) = server.connections
        assert connection.transport.get_write_buffer_size() <= 3 * PART_BYTES
        writer.transport.abort()


async def test_what_is_left_unread_inside_tls_counts_and_is_all_sent_in_the_end(
    certs: Path,
) -> None:
    async with serving(much, certs) as server:
        reader, writer = await deaf(server, certs, "Connection: close")
        await eventually(lambda: any(c.unread_bytes > SIZE_BYTES // 4 for c in server.connections))
        writer.transport.resume_reading()
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            found = await reader.read()
        assert b"".join(chunks(found)) == bytes(range(250)) * (SIZE_BYTES // 250)
        writer.transport.abort()


def chunks(body: bytes) -> Iterator[bytes]:
    """Yield the parts of a chunked body."""
    while True:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            return
        yield body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]

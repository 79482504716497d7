"""A server on a real socket, and a client that sends bytes as they are."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from rmi_runtime.http import HttpLimits, HttpServer, listen
from rmi_runtime.http.direct import DirectRoutes
from rmi_runtime.http.server import NO_ROUTES

# The loops differ where it matters here: in their futures and their transports.
BOTH_EVENT_LOOPS = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


@dataclass
class Echo:
    """An ASGI application that answers with what it got, and can be held up."""

    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.seen.append((scope["method"], scope["path"], body))
        if scope["path"] == "/slow":
            self.entered.set()
            await self.hold.wait()
        if scope["path"] == "/broken":
            raise RuntimeError("secret words")
        if scope["path"] == "/stream":
            await self.stream(send)
            return
        told = json.dumps(
            {
                "method": scope["method"],
                "path": scope["path"],
                "query": scope["query_string"].decode(),
                "size": len(body),
                "headers": [name.decode() for name, _ in scope["headers"]],
            }
        ).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(told))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": told})

    async def stream(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Answer:
    """A parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        return found


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> Raw:
        self.writer.write(b"".join(parts))
        # A server that has refused may have closed: what it said is still to be read.
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()
        return self

    async def answer(self, *, bodiless: bool = False) -> Answer:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")[:-2]
            headers = dict(line.split(": ", 1) for line in lines)
            body = b""
            if not bodiless and headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readline(), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                assert await self.reader.readexactly(2) == b"\r\n"
            elif not bodiless:
                body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return Answer(int(first.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """Everything up to the server's end of the connection."""
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read()
            return b""


class Place:
    """A running server and its application."""

    def __init__(self, server: HttpServer, app: Any) -> None:
        self.server = server
        self.app = app
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Raw:
        reader, writer = await asyncio.open_connection(*self.server.address)
        self._writers.append(writer)
        return Raw(reader, writer)

    async def ask(self, *parts: bytes) -> Answer:
        return await (await (await self.connect()).send(*parts)).answer()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(
    app: Any = None, direct: DirectRoutes = NO_ROUTES, **limits: Any
) -> AsyncIterator[Place]:
    """Serve *app*, or else :class:`Echo`, within *limits*."""
    app = app or Echo()
    async with HttpServer(app, direct=direct, limits=HttpLimits(**limits)) as server:
        await server.start(listen("127.0.0.1", 0))
        place = Place(server, app)
        try:
            yield place
        finally:
            if isinstance(app, Echo):
                app.hold.set()
            place.hang_up()


def head(method: str = "GET", path: str = "/", *lines: str) -> bytes:
    """A request's head with a Host, ended."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: bank", *lines, "", "")).encode()


GOOD = head("GET", "/good")


async def still_serves(place: Place) -> None:
    """Assert that a good request on a new connection is answered."""
    assert (await place.ask(GOOD)).status == 200

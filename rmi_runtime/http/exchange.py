"""One request and its answer, as the ASGI application sees them.

The interface is ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/www.html), version 2.4 of its
HTTP part: sending to a client that is gone raises ``OSError``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from rmi_runtime.errors import InternalError, RmiError
from rmi_runtime.http.answers import CLOSE_LINE
from rmi_runtime.http.problems import phrase, problem_of
from rmi_runtime.sparse_log import sparse_logger

if TYPE_CHECKING:
    from rmi_runtime.http.protocol import HttpProtocol

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

STATUS_LINES = {
    status: f"HTTP/1.1 {status} {phrase(status)}\r\n".encode() for status in range(200, 600)
}

_log = sparse_logger(__name__)
_BODILESS = frozenset({204, 304})


class Exchange:
    """One request, complete with its body, and the answer to it.

    Args:
        protocol: of the connection it came through.
        scope: the ASGI scope.
        body: of the request.
        keep_alive: whether the connection may serve another request after this one.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_chunked",
        "_head",
        "_protocol",
        "_received",
        "_scope",
        "_task",
        "done",
        "keep_alive",
    )

    def __init__(
        self, protocol: HttpProtocol, scope: dict[str, Any], body: bytes, keep_alive: bool
    ) -> None:
        self.keep_alive = keep_alive
        self.done = False
        self._task: Any = None  # kept here, or the event loop alone would hold it, and only weakly
        self._protocol = protocol
        self._scope = scope
        self._body = body
        self._received = False
        self._begun = False  # the application has given status and headers
        self._head = b""  # the answer's head, until it is written together with the first body
        self._chunked = False

    @property
    def body_size_bytes(self) -> int:
        """Of the request."""
        return len(self._body)

    def start(self) -> None:
        """Have the application answer, in a task."""
        server = self._protocol.server
        self._task = server.loop.create_task(self.run(server.app))

    async def run(self, app: AsgiApp) -> None:
        """Have *app* answer. Never raises: what fails is logged, and answered 500 if possible."""
        protocol = self._protocol
        try:
            await app(self._scope, self._receive, self._send)
        except (Exception, asyncio.CancelledError) as error:
            if not (protocol.closed and isinstance(error, OSError)):
                self._log_failure(error)
        finally:
            protocol.server.request_over(self.body_size_bytes)
        if self.done or protocol.closed:
            return
        if not self._begun or self._head:
            problem = problem_of(InternalError(), method=self._scope["method"])
            protocol.answer_and_close(problem)
        else:
            # Part of the answer is out: only a broken connection says that the rest is missing.
            protocol.transport.abort()

    def _log_failure(self, error: BaseException) -> None:
        foreseen = isinstance(error, RmiError) and not isinstance(error, InternalError)
        if self._begun and foreseen:  # an outage in the middle of a stream must not drown the log
            method, path = self._scope["method"], self._scope["path"]
            _log.info("the answer to %s %r is cut off: %s", method, path, error)
        else:
            _log.error("the application failed", exc_info=error)

    async def _receive(self) -> dict[str, Any]:
        if not self._received:
            self._received = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._protocol.wait_closed()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            more = message.get("more_body", False)
            self._send_body(message.get("body", b""), more)
            if more and self._protocol.writing_paused:
                await self._protocol.wait_writable()
        else:
            self._begin(message["status"], message["headers"])

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self._begun:
            raise RuntimeError("an answer can be begun only once")
        protocol = self._protocol
        lines = [STATUS_LINES[status]]
        ends = status in _BODILESS
        for name, value in headers:
            if name == b"content-length":
                ends = True
            lines.append(b"%b: %b\r\n" % (name, value))
        if not ends:
            if self._scope["http_version"] == "1.1":
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # for HTTP/1.0 the connection's end is the body's end
        if protocol.ends_here or not self.keep_alive:
            self.keep_alive = False
            lines.append(CLOSE_LINE)
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise ValueError("a header of the answer has a line break in it")
        self._head = head + protocol.server.common_head
        self._begun = True

    def _send_body(self, body: bytes, more: bool) -> None:
        protocol = self._protocol
        if self.done or not self._begun:
            raise RuntimeError("the parts of an answer came in the wrong order")
        if protocol.closed:
            raise ConnectionResetError("the client is gone")
        if self._scope["method"] == "HEAD":
            body = b""
        elif self._chunked:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        if self._head:
            body = self._head + body
            self._head = b""
        protocol.write(body)
        if not more:
            self.done = True
            protocol.exchange_done(self)

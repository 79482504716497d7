"""A lean HTTP/1.1 client: one connection, one request at a time, and the truth about how it ended.

What a fault harness must know of a failed request is whether it may have reached the server. So
this one never sends anything twice, and says in which of the two ways a request failed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import Any, NamedTuple

import msgspec

from rmi_runtime import errors, split_address

HEAD_SIZE_BYTES_MAX = 64 * 1024
CONNECT_S = 2.0

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: the HTTP status.
        body: the document, decoded; None if there is none.
    """

    status: int
    body: Any

    def raise_for_problem(self) -> None:
        """Raise the error that a problem document stands for.

        Raises:
            RmiError: of the class and definiteness that the document tells.
        """
        if self.status < 400:
            return
        problem: Mapping[str, Any] = self.body if isinstance(self.body, Mapping) else {}
        code = str(problem.get("code", f"http_{self.status}"))
        # Below 500 it is the caller's fault, and nothing was done.
        definite = bool(problem.get("definite", self.status < 500))
        fields = {k: v for k, v in problem.items() if k not in _MEMBERS}
        raise errors.make_error(code, definite, str(problem.get("detail", "")), fields)


_MEMBERS = frozenset(("type", "title", "status", "detail", "code", "definite", "message"))


class HttpClient:
    """One connection to one server, opened when it is needed.

    Args:
        url: returns ``http://host:port``, or with ``https``; asked at every new connection, for a
            server that is started again may have moved.
        token: sent as the bearer's, or None.
        timeout_s: longest wait for an answer.
        ssl: client context for TLS, or None.
    """

    def __init__(
        self,
        url: Callable[[], str],
        token: str | None = None,
        *,
        timeout_s: float = 10.0,
        ssl: SSLContext | None = None,
    ) -> None:
        self._url = url
        self._ssl = ssl
        self._authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._timeout_s = timeout_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = None
    ) -> Answer:
        """Ask, once.

        Args:
            method: ``GET`` or ``POST``.
            path: with its query.
            body: sent as JSON; None sends none.
            key: sent as the ``Idempotency-Key``; None sends none.

        Returns:
            The answer, whatever its status.

        Raises:
            Unavailable: nothing was sent.
            ConnectionLost, CallTimeout: it may have been received.
        """
        reader, writer = await self._connect()
        payload = b"" if body is None else _encode(body)
        head = f"{method} {path} HTTP/1.1\r\nHost: torture\r\n"
        head += self._authorization
        if key is not None:
            head += f"Idempotency-Key: {key}\r\n"
        if payload:
            head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
        elif method == "POST":
            head += "Content-Length: 0\r\n"
        try:
            async with asyncio.timeout(self._timeout_s):
                writer.write(head.encode("ascii") + b"\r\n" + payload)
                return await self._read(reader)
        except TimeoutError:
            self.close()
            raise errors.CallTimeout(f"no answer in {self._timeout_s:g} s") from None
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
            self.close()
            raise errors.ConnectionLost(f"no whole answer: {error!r}") from error
        except BaseException:
            self.close()
            raise

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None:
            reader, writer = self._streams
            if not (reader.at_eof() or writer.is_closing() or reader.exception()):
                return self._streams
            self.close()
        host, port = split_address(self._url().partition("://")[2])
        try:
            async with asyncio.timeout(CONNECT_S):
                self._streams = await asyncio.open_connection(
                    host, port, limit=HEAD_SIZE_BYTES_MAX, ssl=self._ssl
                )
        except (OSError, TimeoutError) as error:
            raise errors.Unavailable(f"cannot connect to the gateway: {error!r}") from error
        return self._streams

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        payload = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, msgspec.json.decode(payload) if payload else None)

    def close(self) -> None:
        """Close the connection, if there is one; the next request opens another."""
        streams, self._streams = self._streams, None
        if streams is not None:
            with contextlib.suppress(OSError, RuntimeError):
                streams[1].close()

"""One HTTP/1.1 connection: reads requests within bounds, hands them on, keeps answers in order.

The grammar is parsed by llhttp (through httptools) in its strict mode, which refuses what request
smuggling lives on. What llhttp leaves open is decided here: sizes and times, the ``Host`` header,
doubled headers, other transfer codings. A request is handed on when all of its body is there, so a
slow client occupies a few bytes and no task, and an incomplete request never has an effect.

References: RFC 9110 (semantics), RFC 9112 (HTTP/1.1 messages).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import httptools

from rmi_runtime.http import heads
from rmi_runtime.http.answers import CLOSE_LINE, CONTINUE, problem_answer
from rmi_runtime.http.direct import DirectExchange
from rmi_runtime.http.exchange import Exchange
from rmi_runtime.http.flow import LINGER_S, PART_BYTES, TAKEN_BYTES, FlowProtocol
from rmi_runtime.http.methods import StopParsing, UnknownMethod, unparsed
from rmi_runtime.http.problems import HttpProblem
from rmi_runtime.http.scopes import asgi_scope, request_path

if TYPE_CHECKING:
    from rmi_runtime.http.admission import Refusal
    from rmi_runtime.http.server import HttpServer

_IDLE, _HEAD, _BODY, _OFFER = range(4)
_STOPS: Final = (httptools.HttpParserError, httptools.HttpParserUpgrade, HttpProblem)
_SPENT: Final = httptools.HttpRequestParser(object())


class HttpProtocol(FlowProtocol):
    """The server's side of one connection.

    Attributes:
        closing: nothing new is taken; what has been is still answered.
    """

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.clock, server.ahead)
        self.server = server
        self.closing = False
        self._limits = server.limits
        self._feed: Callable[[bytes | memoryview], None]
        self._parser = self._new_parser()
        self._current: Exchange | DirectExchange | None = None
        self._fresh: Exchange | DirectExchange | None = None  # the current one, until it is started
        self._waiting: deque[Exchange | DirectExchange] = deque()
        self._deaf = False  # what still comes in is dropped
        self._refusal: HttpProblem | None = None  # our last words, when their turn comes
        self._phase = _IDLE
        self._first = True  # no request has been read completely yet
        self._fed_bytes = 0  # by the read under way; 0 behind the end of a message in it
        self._message_bytes = 0  # by earlier reads, of the head or of the body that is incomplete
        self._framed_from_bytes = 0  # where in those the last of the body itself was
        self._owes_continue = False
        self._asking: asyncio.Task[None] | None = None  # kept, for the event loop does not
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._by_name: dict[bytes, bytes] = {}
        self._version = "1.1"
        self._body: bytes | bytearray = b""

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; refuse if there are too many connections."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without its name
        self.transport.set_write_buffer_limits(high=PART_BYTES)
        self.since_s = self.clock()
        excess = self.server.count_in(self)
        if self.server.draining:
            self.transport.close()
        elif excess > self._limits.refusals_max:
            self.transport.abort()  # even the polite answers below have a bound
        elif excess > 0:
            self.refuse(heads.busy("too many connections are open"))

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what came."""
        self._fed_bytes = len(data)
        if self._deaf or self.ending:
            self.drop(len(data))
            return
        if self._fed_bytes > TAKEN_BYTES and self._fed_bytes > self.part_size_bytes():
            self.take_in_parts(data)
            return
        try:
            self._feed(data)
        except _STOPS as error:
            self._stopped(error, data)
        if self._phase != _IDLE and not self._deaf:
            self._check_incomplete()
        # Not before the parser is done: what it finds in the same bytes may end the connection.
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            fresh.start()

    def eof_received(self) -> bool:
        """The client will send no more: finish what is under way, drop what is incomplete."""
        if self.idle or self.lingering:
            return False
        self._deaf = self.closing = self.heard_all = True
        return self.transport.can_write_eof()  # over TLS there is no answer any more

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection. What is under way in the application goes on to its end."""
        super().connection_lost(error)
        self.server.connections.discard(self)
        self._drop_body()
        self._drop_waiting()
        # Parsers hold their protocols, and those the buffers of TLS: until the collector comes.
        self._parser, self._feed = _SPENT, _SPENT.feed_data

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request's first byte is there."""
        if self._phase != _OFFER:
            self.since_s = self.clock()
            self._message_bytes = 0
        self._phase = _HEAD
        self._target = b""
        self._headers = []

    def on_url(self, target: bytes) -> None:
        """A part of the request target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, without the blanks around its value; or a trailer, which nobody needs."""
        if self._phase == _HEAD:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Decide, before any of the body, whether the request may come in."""
        self._version = self._parser.get_http_version()
        if self._parser.should_upgrade():
            if self._parser.get_method() != b"CONNECT":
                self._phase = _OFFER  # decided when the head comes again, without the offer
                return
            self.closing = True  # nothing can follow
        headers, size_bytes = self._headers, self._message_bytes + self._fed_bytes + TAKEN_BYTES
        by_name = self._by_name = dict(headers)
        problem = heads.head_problem(
            self._version, self._target, headers, by_name, size_bytes, self._limits
        ) or self._expect_body(by_name)
        if problem is not None:
            self._refusal = problem
            raise StopParsing
        self._phase = _BODY
        self._message_bytes, self._framed_from_bytes = 0, self._fed_bytes

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self.server.bodies_size_bytes += len(part)
        self._framed_from_bytes = self._message_bytes + self._fed_bytes
        if not self._body:
            self._body = part
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += part
        if len(self._body) > self._limits.body_size_bytes_max:
            self._refusal = heads.body_too_large(self._limits)
            raise StopParsing

    def on_message_complete(self) -> None:
        """The request is complete: hand it on, or let it wait for its turn."""
        if self._phase == _OFFER:
            return
        body, self._body = bytes(self._body), b""  # it counts until the request is over
        self._phase, self._fed_bytes = _IDLE, 0  # what follows is another message
        self._first = self._owes_continue = False
        parser = self._parser
        keep_alive = self._version == "1.1" and not self.closing and parser.should_keep_alive()
        method = parser.get_method()
        route = self.server.direct.get((method, self._target))
        exchange: Exchange | DirectExchange
        if route is not None:
            exchange = DirectExchange(self, route, self._by_name, body, keep_alive)
        else:
            scope = asgi_scope(self.server, method, self._target, self._version, self._headers)
            exchange = Exchange(self, scope, body, keep_alive)
        if self._current is None and not self._waiting:
            self.server.under_way += 1
            self._current = self._fresh = exchange
        else:
            self._waiting.append(exchange)
            self.pause_reading()

    # What the exchanges and the server call.

    def exchange_done(self, exchange: Exchange | DirectExchange) -> None:
        """Go on after an answer is written."""
        self._current = None
        if self._refusal is not None and not self._waiting and exchange.keep_alive:
            self.answer_and_close(self._refusal)
        elif self.ends_here or not exchange.keep_alive:
            self._close_gently()
        elif self._waiting:
            self._start_next()
        else:
            self.since_s = self.clock()
            if self._owes_continue:
                self._say_continue()
            self.resume_reading()

    def refuse(self, problem: HttpProblem) -> None:
        """Answer *problem* when its turn comes, and close."""
        self._deaf = True
        self._drop_body()
        if self._current is None:
            self.answer_and_close(problem)
        else:
            self._refusal = problem

    def answer_and_close(self, problem: HttpProblem) -> None:
        """Answer *problem* now, to the request whose turn it is, and close."""
        written = problem_answer(problem).written(CLOSE_LINE + self.server.common_head)
        if self._target and self._parser.get_method() == b"HEAD":
            written = written[: written.index(b"\r\n\r\n") + 4]
        self.write(written)
        self.server.on_refused(problem.status)
        self._deaf = True
        self._close_gently()

    def resume_writing(self) -> None:
        """Go on with the next request; called by the event loop."""
        super().resume_writing()
        if self._current is None and self._waiting:
            self._start_next()

    def part_size_bytes(self) -> int:
        """What is missing of a body may come at once: there is no request in it."""
        missing_bytes = heads.announced_bytes(self._by_name) - len(self._body)
        return max(TAKEN_BYTES, missing_bytes) if self._phase == _BODY else TAKEN_BYTES

    def dropped_kept(self) -> None:
        """Refuse it."""
        self.refuse(heads.busy("too many requests have been sent before their turn"))

    def wants_to_read(self) -> bool:
        """Not while a request waits for the answer before."""
        return not self._waiting

    @property
    def idle(self) -> bool:
        """Whether no request is complete and not yet answered."""
        return self._current is None and not self._waiting

    @property
    def ends_here(self) -> bool:
        """Whether nothing follows the answer under way."""
        return self.closing and not self._waiting and self._refusal is None

    def sweep(self, now_s: float) -> None:
        """Look at the clock; called every :attr:`HttpLimits.sweep_every_s`.

        Args:
            now_s: what the server's clock shows.
        """
        waited_s, limits = now_s - self.since_s, self._limits
        if self.lingering or self.writing_paused:
            has_read = self.lingering and not self.unread_bytes
            if waited_s > (LINGER_S if has_read else limits.write_wait_s):
                self.transport.abort()
        elif self._current is not None:
            return  # the application sets itself a time
        elif self.transport.is_closing():
            if waited_s > limits.write_wait_s:
                self.transport.abort()  # else it would hold its socket until all is read
        elif self._phase == _BODY:
            if waited_s > limits.body_wait_s:
                self.refuse(heads.slow("body", limits.body_wait_s))
        elif self._phase == _HEAD or self._first:
            if waited_s > limits.head_wait_s:
                self.refuse(heads.slow("headers", limits.head_wait_s))
        elif waited_s > limits.idle_wait_s:
            self.transport.close()

    def shutdown(self) -> None:
        """Close now if idle, or after the answer under way."""
        self.closing = True
        self._drop_waiting()
        if self._current is None and not self.lingering:
            self.close()

    # Inside.

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        self._feed = parser.feed_data
        return parser

    def _stopped(self, error: Exception, data: bytes | memoryview) -> None:
        """Go on where the parser did not, or refuse; *data* is what it was given last."""
        parts = self._after(error, data)
        while parts:
            data, *parts = parts
            try:
                self._feed(data)
            except _STOPS as another:
                parts = self._after(another, data)

    def _after(self, error: Exception, data: bytes | memoryview) -> list[bytes | memoryview]:
        """Return what is still to be parsed.

        After an offer to upgrade, the parser takes all that follows for another protocol's. We take
        no offers (RFC 9110, section 7.8), so it gets the head again, as if there were none.
        """
        if isinstance(error, httptools.HttpParserUpgrade):
            if self._phase != _OFFER:
                self._deaf = True  # CONNECT: it was handed on, and nothing can follow it
                return []
            method = self._parser.get_method()
            self._parser = self._new_parser()  # the old one might have seen the connection's end
            head = heads.head_without_offer(method, self._target, self._version, self._headers)
            return [head, memoryview(data)[error.args[0] :]]
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            line_max = self._limits.target_size_bytes_max
            self._feed = UnknownMethod(error, self.server.methods, line_max).feed_data
            return [data]
        if not self._deaf:
            self.refuse(self._refusal or unparsed(error, self.server.methods, self._limits))
        return []

    def _expect_body(self, headers: heads.HeadersByName) -> HttpProblem | None:
        """Refuse a body for which there is no room; encourage a client that asks first."""
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            return None
        length_bytes = heads.announced_bytes(headers)
        all_bytes = self.server.bodies_size_bytes + length_bytes
        problem = heads.bodies_problem(length_bytes, all_bytes, self._limits)
        if problem is None and heads.expects_continue(self._version, headers):
            self._owes_continue = True
            if self._current is None:
                self._say_continue()
        return problem

    def _check_incomplete(self) -> None:
        """Refuse a head or body that has become too large without being complete."""
        size_bytes = self._message_bytes = self._message_bytes + self._fed_bytes
        if self._phase == _HEAD:
            problem = heads.incomplete_head_problem(self._target, size_bytes, self._limits)
        else:
            framing_bytes = size_bytes - self._framed_from_bytes
            sizes_bytes = (size_bytes, framing_bytes, len(self._body))
            all_bytes = self.server.bodies_size_bytes
            problem = heads.incomplete_body_problem(*sizes_bytes, all_bytes, self._limits)
        if problem is not None:
            self.refuse(problem)

    def _start_next(self) -> None:
        """Answer the next request, but not to a client that has not read the answers before."""
        if not self.writing_paused:
            self.server.under_way += 1
            self._current = exchange = self._waiting.popleft()
            self.server.loop.call_soon(exchange.start)

    def _say_continue(self) -> None:
        self._owes_continue = False
        if self.server.refusal is None:
            self.write(CONTINUE)
        else:
            method = self._parser.get_method().decode("ascii")
            work = self._continue_or_refuse(self.server.refusal, method, self._by_name)
            self._asking = self.server.loop.create_task(work)

    async def _continue_or_refuse(
        self, refusal: Refusal, method: str, headers: heads.HeadersByName
    ) -> None:
        problem = await refusal(method, request_path(self._target), headers)
        if self._by_name is not headers or self._phase != _BODY or self._deaf or self.closed:
            return  # the body came meanwhile, or never will
        if problem is None:
            self.write(CONTINUE)
        else:
            self.refuse(problem)

    def _close_gently(self) -> None:
        """Close, but read on for a while if the client may still be sending."""
        self._current = None
        self._drop_waiting()
        self._deaf = self._deaf or bool(self._kept)
        (self.linger if self._deaf else self.close)()

    def _drop_waiting(self) -> None:
        self.server.bodies_size_bytes -= sum(each.body_size_bytes for each in self._waiting)
        self._waiting.clear()

    def _drop_body(self) -> None:
        self.server.bodies_size_bytes -= len(self._body)
        self._body = b""

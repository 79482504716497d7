"""Responders with a door of their own: requests that need no framework do not go through it.

A plain responder is a method ``async def on_post(self, headers, body) -> Answer`` under
:func:`plain`, which makes a Falcon responder of it. One under :func:`direct` has two doors: through
Falcon, as any other, and where the method and target of a request are exactly those of its route,
:class:`HttpServer` calls it itself, which saves about half of what such a request costs. Either way
the same code decides, and errors become the same problems.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import falcon.asgi

from rmi_runtime.http.answers import CLOSE_LINE, Answer, problem_answer
from rmi_runtime.http.problems import problem_for

if TYPE_CHECKING:
    from rmi_runtime.http.protocol import HttpProtocol

HeadersByName = Mapping[bytes, bytes]
Respond = Callable[[HeadersByName, bytes], Coroutine[Any, Any, Answer]]
OnAnswered = Callable[[str, str, int, float], None]
"""Is told of each answer: method, route, status, seconds."""

PlainResponder = Callable[[Any, HeadersByName, bytes], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """A method of a path without variable parts, and who answers it.

    Attributes:
        method: in upper case.
        path: of the route.
        respond: the responder.
        on_answered: told of each answer, or None.
    """

    method: str
    path: str
    respond: Respond
    on_answered: OnAnswered | None = None


DirectRoutes = Mapping[tuple[bytes, bytes], DirectRoute]
"""By method and request target."""


def plain(respond: PlainResponder) -> Any:
    """Make a Falcon responder of a plain one.

    Args:
        respond: takes the resource, the headers (names in lower case, values as sent) and the
            body, and returns the answer or raises.
    """

    @functools.wraps(respond)
    async def on_request(
        resource: Any, req: falcon.asgi.Request, resp: falcon.asgi.Response
    ) -> None:
        put_answer(resp, await respond(resource, headers_of(req), await req.stream.readall()))

    return on_request


def direct(respond: PlainResponder) -> Any:
    """Make a Falcon responder of a plain one that has a door of its own too.

    Args:
        respond: as for :func:`plain`. It runs without a task: what it awaits must be futures or
            tasks in the end, for ``asyncio.timeout`` and its like have no task to act on.
    """
    on_request = plain(respond)
    on_request.__rmi_direct__ = respond
    return on_request


def respond_of(resource: object, method: str) -> Respond | None:
    """Return the direct responder of *resource* for a method in lower case, if it has one."""
    responder = getattr(resource, f"on_{method}", None)
    respond = getattr(responder, "__rmi_direct__", None)
    return None if respond is None else functools.partial(respond, resource)


def headers_of(req: falcon.asgi.Request) -> HeadersByName:
    """Return the headers of a request: names in lower case, values as sent; of equal names one."""
    return dict(req.scope["headers"])


def put_answer(resp: falcon.asgi.Response, answer: Answer) -> None:
    """Have Falcon send *answer*."""
    resp.status = answer.status
    resp.content_type = answer.media_type
    resp.data = answer.body
    for name, value in answer.headers.items():
        resp.set_header(name, value)


class DirectExchange:
    """One request, complete with its body, on its way through a direct responder.

    Args:
        protocol: of the connection it came through.
        route: who answers.
        headers: of the request.
        body: of the request.
        keep_alive: whether the connection may serve another request after this one.
    """

    __slots__ = ("_begun_s", "_body", "_headers", "_protocol", "_route", "_work", "keep_alive")

    def __init__(
        self,
        protocol: HttpProtocol,
        route: DirectRoute,
        headers: HeadersByName,
        body: bytes,
        keep_alive: bool,
    ) -> None:
        self.keep_alive = keep_alive
        self._protocol = protocol
        self._route = route
        self._headers = headers
        self._body = body
        self._begun_s = 0.0
        self._work: Coroutine[Any, Any, Answer]

    @property
    def body_size_bytes(self) -> int:
        """Of the request."""
        return len(self._body)

    def start(self) -> None:
        """Answer, now or when what the responder awaits is there."""
        self._begun_s = perf_counter()
        self._work = self._route.respond(self._headers, self._body)
        self._step()

    def _step(self, awaited: object = None) -> None:
        """Run the responder to where it waits, or to its end.

        This is what a task does, without a task's price: a turn of the event loop before the first
        step, a context of its own, a place among all tasks.
        """
        try:
            waits_for = self._work.send(None)
        except StopIteration as end:
            self._finish(end.value)
        except (Exception, asyncio.CancelledError) as error:
            route = self._route
            self._finish(problem_answer(problem_for(error, route.method, route.path)))
        else:
            if waits_for is None:  # it only lets others go first
                self._protocol.server.loop.call_soon(self._step)
                return
            waits_for._asyncio_future_blocking = False  # says that somebody waits, as tasks do
            waits_for.add_done_callback(self._step)

    def _finish(self, answer: Answer) -> None:
        protocol, route = self._protocol, self._route
        protocol.server.request_over(self.body_size_bytes)
        if route.on_answered is not None:
            elapsed_s = perf_counter() - self._begun_s
            route.on_answered(route.method, route.path, answer.status, elapsed_s)
        if protocol.closed:
            return
        last_lines = protocol.server.common_head
        if protocol.ends_here or not self.keep_alive:
            self.keep_alive = False
            last_lines = CLOSE_LINE + last_lines
        protocol.write(answer.written(last_lines))
        protocol.exchange_done(self)

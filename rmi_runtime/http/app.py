"""A Falcon application that serves a route table and answers every error as a problem."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import falcon
import falcon.asgi

from rmi_runtime import errors
from rmi_runtime.http.problems import (
    PROBLEM_MEDIA_TYPE,
    HttpProblem,
    phrase,
    problem_bytes,
    problem_of,
)
from rmi_runtime.http.routes import Route, add_routes

_log = logging.getLogger(__name__)

OnAnswered = Callable[[str, str, int, float], None]
"""Is told of each answer: method, route, status, seconds."""

UNROUTED = "none"
"""Stands for the route of requests that fit none."""

# Falcon's own refusals: codes and words for those a client can meet.
_CODES = {
    400: ("malformed", "the request cannot be read"),
    404: ("not_found", "there is nothing under this path; see /openapi.json"),
    405: ("method_not_allowed", "this path does not take this method; the header Allow has those"),
}


def make_app(routes: Iterable[Route], *, on_answered: OnAnswered | None = None) -> Any:
    """Return the ASGI application.

    Args:
        routes: what it serves.
        on_answered: told of each answer.
    """
    middleware = [_Meter(on_answered)] if on_answered else []
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=middleware)
    app.add_error_handler(Exception, _answer_unforeseen)
    app.add_error_handler(falcon.HTTPError, _answer_http_error)
    app.add_error_handler(errors.RmiError, _answer_error)
    app.add_error_handler(HttpProblem, _answer_problem)
    add_routes(app, routes)
    return app


def put_problem(resp: falcon.asgi.Response, problem: HttpProblem) -> None:
    """Make *problem* the answer."""
    resp.status = problem.status
    resp.content_type = PROBLEM_MEDIA_TYPE
    resp.data = problem_bytes(problem)
    for name, value in problem.headers.items():
        resp.set_header(name, value)


async def _answer_problem(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Any, params: Any
) -> None:
    put_problem(resp, error)


async def _answer_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Any, params: Any
) -> None:
    # Not logged: whoever raised it did, and an outage must not drown the log. /metrics counts it.
    put_problem(resp, problem_of(error))


async def _answer_http_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Any, params: Any
) -> None:
    status = error.status_code
    code, detail = _CODES.get(status, (phrase(status).lower().replace(" ", "_"), error.title))
    put_problem(resp, HttpProblem(status, code, detail, headers=dict(error.headers or {})))


async def _answer_unforeseen(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Any, params: Any
) -> None:
    _log.error("%s %s failed", req.method, req.path, exc_info=error)
    put_problem(resp, problem_of(errors.InternalError()))


class _Meter:
    """Middleware that measures."""

    def __init__(self, on_answered: OnAnswered) -> None:
        self._on_answered = on_answered

    async def process_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Note the time."""
        req.scope["rmi.begun_s"] = time.perf_counter()

    async def process_response(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        resource: object,
        req_succeeded: bool,
    ) -> None:
        """Tell what it led to, and how long it took to the answer's first byte."""
        elapsed_s = time.perf_counter() - req.scope["rmi.begun_s"]
        route = req.uri_template or UNROUTED
        self._on_answered(req.method, route, resp.status_code, elapsed_s)

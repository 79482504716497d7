"""A Falcon application that serves a route table and answers every error as a problem."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import falcon
import falcon.asgi

from rmi_runtime.http.answers import problem_answer
from rmi_runtime.http.direct import DirectRoutes, OnAnswered, put_answer
from rmi_runtime.http.problems import HttpProblem, phrase, problem_for
from rmi_runtime.http.routes import Route, add_routes, direct_routes

UNROUTED = "none"
"""Stands for the route of requests that fit none."""

# Falcon's own refusals: codes and words for those a client can meet.
_CODES = {
    400: ("malformed", "the request cannot be read"),
    404: ("not_found", "there is nothing under this path; see /openapi.json"),
    405: ("method_not_allowed", "this path does not take this method; the header Allow has those"),
}


class App(falcon.asgi.App[Any, Any]):
    """The ASGI application.

    Attributes:
        direct: routes that a server may answer without the application, see
            :mod:`rmi_runtime.http.direct`; the application answers them too.
    """

    direct: DirectRoutes


def make_app(routes: Iterable[Route], *, on_answered: OnAnswered | None = None) -> App:
    """Return the application.

    Args:
        routes: what it serves.
        on_answered: told of each answer.
    """
    middleware = [_Meter(on_answered)] if on_answered else []
    app = App(middleware=middleware)
    app.add_error_handler(Exception, _answer_error)
    app.add_error_handler(falcon.HTTPError, _answer_http_error)
    routes = list(routes)
    add_routes(app, routes)
    app.direct = direct_routes(routes, on_answered)
    return app


async def _answer_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Any, params: Any
) -> None:
    put_answer(resp, problem_answer(problem_for(error, f"{req.method} {req.path}")))


async def _answer_http_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Any, params: Any
) -> None:
    status = error.status_code
    code, detail = _CODES.get(status, (phrase(status).lower().replace(" ", "_"), error.title))
    problem = HttpProblem(status, code, detail, headers=dict(error.headers or {}))
    put_answer(resp, problem_answer(problem))


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

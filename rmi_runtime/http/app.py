"""A Falcon application that serves a route table and answers every error as a problem."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

import falcon
import falcon.asgi

from rmi_runtime.http.admission import Admission, Refusal
from rmi_runtime.http.answers import problem_answer
from rmi_runtime.http.direct import DirectRoutes, OnAnswered, put_answer
from rmi_runtime.http.methods import method_not_allowed
from rmi_runtime.http.problems import HttpProblem, nothing_there, phrase, problem_for
from rmi_runtime.http.routes import Route, add_routes, direct_routes

UNROUTED = "none"
"""Stands for the route of requests that fit none."""

_PATHLESS = re.compile(r"[^/]")

# Falcon's own refusals: codes and words for those a client can meet.
_CODES = {
    400: ("malformed", "the request cannot be read"),
}


class App(falcon.asgi.App[Any, Any]):
    """The ASGI application.

    Attributes:
        direct: routes that a server may answer without the application, see
            :mod:`rmi_runtime.http.direct`; the application answers them too.
        methods: those that some route takes.
        refusal: tells what will be refused whatever its body.
    """

    direct: DirectRoutes
    methods: Sequence[str]
    refusal: Refusal


def make_app(routes: Iterable[Route], *, on_answered: OnAnswered | None = None) -> App:
    """Return the application.

    Args:
        routes: what it serves.
        on_answered: told of each answer.
    """
    middleware: list[Any] = [_Meter(on_answered)] if on_answered else []
    middleware.append(_Paths())
    app = App(middleware=middleware)
    app.add_error_handler(Exception, _answer_error)
    routes = list(routes)
    add_routes(app, routes)
    app.direct = direct_routes(routes, on_answered)
    app.methods = sorted({method for route in routes for method in route.methods})
    app.refusal = Admission(routes).refusal
    refusals = _Refusals(routes, app.methods)
    app.add_error_handler(falcon.HTTPError, refusals.answer)
    app.add_sink(refusals.answer_pathless, _PATHLESS)
    return app


async def _answer_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Any, params: Any
) -> None:
    put_answer(resp, problem_answer(problem_for(error, req.method, req.path)))


class _Refusals:
    """Words of our own for what the framework refuses."""

    def __init__(self, routes: Iterable[Route], methods: Sequence[str]) -> None:
        self._methods = methods
        self._methods_of = {route.template: route.methods for route in routes}

    async def answer(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Any, params: Any
    ) -> None:
        allowed = self._methods_of.get(req.uri_template or "")
        status = error.status_code
        # It says 400 to methods that it does not know, such as PURGE.
        if status == 404:
            problem = nothing_there()
        elif status == 405 or (allowed and req.method not in falcon.COMBINED_METHODS):
            problem = method_not_allowed(allowed or self._methods)
        else:
            usual = phrase(status).lower().replace(" ", "_"), error.title
            code, detail = _CODES.get(status, usual)
            problem = HttpProblem(status, code, detail, headers=dict(error.headers or {}))
        put_answer(resp, problem_answer(problem))

    async def answer_pathless(self, req: Any, resp: Any, **groups: Any) -> None:
        """Answer ``OPTIONS *``, which asks about the server as a whole, and ``CONNECT``."""
        if req.method == "CONNECT":
            raise method_not_allowed(self._methods)
        if req.path != "*" or req.method != "OPTIONS":
            raise falcon.HTTPRouteNotFound
        resp.status = 204
        resp.set_header("Allow", ", ".join(self._methods))


class _Paths:
    """Middleware that takes a path as it is.

    The router passes over slashes at the beginning, so that ``//bank/deposits`` would get past
    whatever guards ``/bank`` on the way here.
    """

    async def process_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Refuse a path with nothing between its first slashes."""
        if req.path.startswith("//"):
            raise falcon.HTTPRouteNotFound


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

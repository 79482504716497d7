"""Who is refused for the head of a request: asked before a client sends a body (RFC 9110, 10.1.1).

A client that sends ``Expect: 100-continue`` wants to know first whether its body is of any use. All
that the routes decide by head alone is asked here, in their order, without their effects: path and
method, who asks, ``Idempotency-Key``, media type.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from rmi_runtime.http.direct import HeadersByName
from rmi_runtime.http.methods import method_not_allowed
from rmi_runtime.http.problems import HttpProblem, nothing_there, problem_for
from rmi_runtime.http.requests import check_media_type, idempotency_key
from rmi_runtime.http.routes import Route

Refusal = Callable[[str, str, HeadersByName], Awaitable[HttpProblem | None]]
"""Takes method, path and headers; returns why the request will be refused, or None."""

_SEGMENTS: Final = {"number": "[0-9]{1,16}"}
"""What the converters read; see :mod:`rmi_runtime.http.routes`."""


class Admission:
    """Asks the routes.

    A resource whose callers have to say who they are has ``async def admit(headers)``, which raises
    what it would answer them.

    Args:
        routes: all that is served.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(re.compile(_pattern(route)), route) for route in routes]

    async def refusal(self, method: str, path: str, headers: HeadersByName) -> HttpProblem | None:
        """Return why a request will be refused whatever its body, or None.

        Args:
            method: of the request.
            path: decoded.
            headers: names in lower case, values as sent.
        """
        try:
            await self._check(method, path, headers)
        except Exception as error:
            return problem_for(error, method, path)
        return None

    async def _check(self, method: str, path: str, headers: HeadersByName) -> None:
        found = (route for pattern, route in self._routes if pattern.fullmatch(path))
        route = next(found, None)
        if route is None:
            raise nothing_there()
        if method not in route.methods:
            raise method_not_allowed(route.methods)
        operation = route.operations().get(method.lower())
        if operation is None:
            return
        if operation.token:
            await route.resource.admit(headers)  # type: ignore[attr-defined]
        if operation.keyed:
            idempotency_key(headers)
        if operation.body is not None:
            check_media_type(headers, operation.body_media_type)


def _pattern(route: Route) -> str:
    """Return the regular expression of the paths of *route*."""
    pattern = re.escape(route.path).replace(r"\{", "{").replace(r"\}", "}")
    for name in re.findall("{(.*?)}", route.path):
        segment = _SEGMENTS.get(route.converters.get(name, ""), "[^/]+")
        pattern = pattern.replace(f"{{{re.escape(name)}}}", segment)
    return pattern

"""The route table: what is served, said once, for the router, the OpenAPI document and the metrics.

A resource is a Falcon one: a class with ``on_get``, ``on_post`` and so on. :func:`describe` writes
beside each responder what it takes and gives; a :class:`Route` puts a resource under a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import falcon.asgi
from falcon.routing import BaseConverter

from rmi_runtime.http.answers import JSON_MEDIA_TYPE
from rmi_runtime.http.direct import DirectRoute, DirectRoutes, OnAnswered, respond_of

METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
_IMPLIED: Final = frozenset({"head", "options"})

Responder = TypeVar("Responder", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path or the query.

    Attributes:
        name: of it.
        text: what it means.
        schema: JSON Schema of its value.
        place: ``path`` or ``query``.
    """

    name: str
    text: str
    schema: Mapping[str, Any]
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of one route takes and gives.

    Attributes:
        summary: in a line.
        body: type of the request's body (a msgspec one), or None if it takes none.
        body_media_type: of it.
        status: of the answer if all goes well.
        answer: type of the answer's body, or None if it is not JSON.
        media_type: of it.
        parameters: of the path and the query.
        keyed: it takes an ``Idempotency-Key``.
        token: it needs a bearer token.
        problems: statuses of the answers if it does not go well, besides those any request can get.
        text: more about it.
    """

    summary: str
    body: Any = None
    body_media_type: str = JSON_MEDIA_TYPE
    status: int = 200
    answer: Any = None
    media_type: str = JSON_MEDIA_TYPE
    parameters: tuple[Parameter, ...] = ()
    keyed: bool = False
    token: bool = False
    problems: tuple[int, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A resource under a path.

    Attributes:
        path: with ``{name}`` for variable parts.
        resource: a Falcon resource whose responders are all described.
        converters: how the path's variable parts are read, by name: the name of a converter.
    """

    path: str
    resource: object
    converters: Mapping[str, str] = field(default_factory=dict)

    @property
    def template(self) -> str:
        """The path as Falcon's router writes it."""
        path = self.path
        for name, converter in self.converters.items():
            path = path.replace(f"{{{name}}}", f"{{{name}:{converter}}}")
        return path

    @property
    def methods(self) -> list[str]:
        """The methods that it takes, in upper case, once it is in an application."""
        return sorted(m.upper() for m in METHODS if hasattr(self.resource, f"on_{m}"))

    def operations(self) -> Mapping[str, Operation]:
        """Return what is described of the resource, by method in lower case."""
        found = {}
        for method in METHODS:
            responder = getattr(self.resource, f"on_{method}", None)
            if responder is not None and method not in _IMPLIED:
                found[method] = operation_of(responder)
        return found


def describe(**facts: Any) -> Callable[[Responder], Responder]:
    """Say what a responder takes and gives.

    Args:
        facts: the attributes of an :class:`Operation`.

    Returns:
        A decorator.
    """
    operation = Operation(**facts)

    def mark(responder: Responder) -> Responder:
        responder.__rmi_operation__ = operation  # type: ignore[attr-defined]
        return responder

    return mark


def operation_of(responder: Callable[..., Any]) -> Operation:
    """Return what :func:`describe` said of *responder*.

    Raises:
        TypeError: it said nothing.
    """
    found = getattr(responder, "__rmi_operation__", None)
    if not isinstance(found, Operation):
        raise TypeError(f"{responder!r} is served over HTTP but not described; use @describe(...)")
    return found


def direct_routes(routes: Iterable[Route], on_answered: OnAnswered | None) -> DirectRoutes:
    """Return the direct responders of *routes*, by method and target.

    Args:
        routes: those without variable parts count.
        on_answered: told of each answer.
    """
    found = {}
    for route in routes:
        for method in METHODS:
            respond = respond_of(route.resource, method)
            if respond is not None and "{" not in route.path:
                name = method.upper()
                key = name.encode(), route.path.encode()
                found[key] = DirectRoute(name, route.path, respond, on_answered)
    return found


class NumberConverter(BaseConverter):
    """Reads a path segment of 1 to 16 ASCII digits; anything else is not found."""

    def convert(self, value: str) -> int | None:
        """Return the number, or None."""
        if value.isascii() and value.isdigit() and len(value) <= 16:
            return int(value)
        return None


def add_routes(app: falcon.asgi.App[Any, Any], routes: Iterable[Route]) -> None:
    """Put *routes* into an application. What answers GET answers HEAD too, and all OPTIONS.

    Raises:
        TypeError: a responder is not described.
    """
    app.router_options.converters["number"] = NumberConverter
    for route in routes:
        if "get" in route.operations() and not hasattr(route.resource, "on_head"):
            route.resource.on_head = route.resource.on_get  # type: ignore[attr-defined]
        route.resource.on_options = None  # type: ignore[attr-defined]  # it is one of the methods
        route.resource.on_options = _Options(route.methods).on_options  # type: ignore[attr-defined]
        app.add_route(route.template, route.resource)


class _Options:
    def __init__(self, methods: Sequence[str]) -> None:
        self._allow = ", ".join(methods)

    async def on_options(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: Any
    ) -> None:
        """Say which methods are taken."""
        resp.status = 204
        resp.set_header("Allow", self._allow)

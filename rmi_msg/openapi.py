"""The OpenAPI document, made from the route table and the types of the bodies.

Format: OpenAPI 3.1.0, https://spec.openapis.org/oas/v3.1.0. Nothing in it is written by hand that
the code says already, so it cannot fall behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from rmi_runtime.http import (
    IDEMPOTENCY_KEY_PATTERN,
    PROBLEM_MEDIA_TYPE,
    Operation,
    Route,
    phrase,
)

TITLE: Final = "rmi_bank and rmi_msg"
_DESCRIPTION: Final = (
    "A bank and a message log behind one gateway. Amounts and balances are whole numbers of minor "
    "units. Errors are problem documents (RFC 9457); `code` is what programs should look at. A 503 "
    "with `definite: false` may have happened: ask again with the same `Idempotency-Key`."
)

ANY_REQUEST: Final = (400, 408, 413, 414, 417, 431, 500, 503)
"""Statuses that any request can get."""

_WITH_TOKEN: Final = (401, 403)
_REF: Final = "#/components/schemas/{name}"
_KEY: Final[Mapping[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The request id: what is asked under one key is done once, however often.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "pattern": IDEMPOTENCY_KEY_PATTERN,
    },
}
_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "How to say who asks."},
    415: {"Accept": "The media type that is taken."},
    503: {"Retry-After": "Seconds to wait."},
}


class Problem(msgspec.Struct):
    """Why a request was not done (RFC 9457). Some codes bring more members."""

    type: str
    title: str
    status: int
    detail: str
    code: str


def openapi_document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Return the document of *routes*.

    Args:
        routes: what is served.
        version: of the interface.
    """
    table = [
        (route, method, operation)
        for route in routes
        for method, operation in route.operations().items()
    ]
    types = [Problem]
    for _, _, operation in table:
        types += [shape for shape in (operation.body, operation.answer) if shape is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = _Schemas(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    statuses: set[int] = set()
    for route, method, operation in table:
        found = _problems(operation)
        statuses.update(found)
        paths.setdefault(route.path, {})[method] = _operation(
            route, method, operation, found, schema_of
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": version, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {f"Problem{status}": _problem(status) for status in sorted(statuses)},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


class _Schemas(dict[str, Any]):
    """Schemas by the type they describe; the key is its repr, for not all types can be hashed."""

    def of(self, shape: Any) -> Any:
        return self[repr(shape)]


def _problems(operation: Operation) -> list[int]:
    statuses = {*ANY_REQUEST, *operation.problems}
    if operation.token:
        statuses.update(_WITH_TOKEN)
    return sorted(statuses)


def _operation(
    route: Route, method: str, operation: Operation, problems: Iterable[int], schemas: _Schemas
) -> dict[str, Any]:
    words = [word.strip("{}") for word in route.path.split("/") if word]
    reference = "#/components/responses/Problem"
    responses: dict[str, Any] = {str(s): {"$ref": f"{reference}{s}"} for s in problems}
    responses[str(operation.status)] = _answer(operation, schemas)
    parameters: list[Mapping[str, Any]] = [
        {
            "name": parameter.name,
            "in": parameter.place,
            "required": parameter.place == "path",
            "description": parameter.text,
            "schema": parameter.schema,
        }
        for parameter in operation.parameters
    ]
    if operation.keyed:
        parameters.append(_KEY)
    found: dict[str, Any] = {
        "operationId": "_".join([method, *words] if words else [method, "seed"]),
        "tags": [_tag(words)],
        "summary": operation.summary,
        "responses": dict(sorted(responses.items())),
    }
    if operation.text:
        found["description"] = operation.text
    if parameters:
        found["parameters"] = parameters
    if operation.body is not None:
        schema = {"schema": schemas.of(operation.body)}
        found["requestBody"] = {"required": True, "content": {operation.body_media_type: schema}}
    if operation.token:
        found["security"] = [{"token": []}]
    return found


def _tag(words: list[str]) -> str:
    if words and words[0] in ("bank", "messages"):
        return words[0]
    return "gateway" if words else "seed"


def _answer(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    schema = {"type": "string"} if operation.answer is None else schemas.of(operation.answer)
    return {
        "description": phrase(operation.status),
        "content": {operation.media_type: {"schema": schema}},
    }


def _problem(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": phrase(status),
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    headers = _HEADERS.get(status)
    if headers:
        found["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        }
    return found

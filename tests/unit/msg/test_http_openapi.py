"""The OpenAPI document says what is served, and what is served is as the document says."""

from __future__ import annotations

import json
import re
from typing import Any

import falcon.inspect
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from rmi_msg.gateway_pages import ServiceRow
from rmi_runtime import Daemon
from rmi_runtime.http import Route, describe, make_app
from tests.unit.msg.http_fakes import TELLER, Gateway, gateway


def served(app: Any) -> set[tuple[str, str]]:
    """Return (path, method) of all that the application routes, without what comes by itself."""
    return {
        (re.sub(r":\w+}", "}", route.path), method.method.lower())
        for route in falcon.inspect.inspect_app(app).routes
        for method in route.methods
        if not method.internal and method.method not in {"HEAD", "OPTIONS"}
    }


def documented(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(path, method) for path, item in document["paths"].items() for method in item}


async def test_what_is_served_is_documented_and_what_is_documented_is_served() -> None:
    async with gateway() as g:
        document = (await g.http.get("/openapi.json")).json()
        assert documented(document) == served(g.app)
        assert len(documented(document)) == 17


async def test_the_document_is_valid_openapi() -> None:
    async with gateway() as g:
        document = (await g.http.get("/openapi.json")).json()
        assert document["openapi"].startswith("3.1.")
        text = json.dumps(document)
        for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
            found: Any = document
            for word in reference.split("/"):
                found = found[word]
        for schema in document["components"]["schemas"].values():
            jsonschema_rs.meta.validate({**schema, "$schema": _DIALECT})
        ids = [item["operationId"] for path in document["paths"].values() for item in path.values()]
        assert len(ids) == len(set(ids))


async def test_every_operation_on_the_bank_and_no_other_needs_a_token() -> None:
    async with gateway() as g:
        document = (await g.http.get("/openapi.json")).json()
        for path, item in document["paths"].items():
            for operation in item.values():
                assert ("security" in operation) == path.startswith("/bank/")
                assert ("401" in operation["responses"]) == path.startswith("/bank/")


async def test_every_change_takes_an_idempotency_key() -> None:
    async with gateway() as g:
        paths = (await g.http.get("/openapi.json")).json()["paths"]
        keyed = {
            path
            for path, item in paths.items()
            if any(
                p["name"] == "Idempotency-Key" for p in item.get("post", {}).get("parameters", ())
            )
        }
        assert keyed == {
            *("/messages", "/bank/accounts", "/bank/deposits"),
            *("/bank/withdrawals", "/bank/transfers", "/bank/batches"),
        }


async def test_the_request_ids_of_a_batch_are_as_narrow_as_keys() -> None:
    async with gateway() as g:
        document = (await g.http.get("/openapi.json")).json()
        parameters = document["paths"]["/bank/batches"]["post"]["parameters"]
        [key] = [p["schema"] for p in parameters if p["name"] == "Idempotency-Key"]
        for kind in ("Deposit", "Withdrawal", "Transfer"):
            shape = document["components"]["schemas"][f"Batch{kind}"]
            assert shape["properties"]["request_id"] == key


async def test_the_numbers_that_every_service_tells_are_documented() -> None:
    async with Daemon() as daemon:
        told = set(daemon.stats()) - {"location", "objects"}
    assert told <= set(ServiceRow.__struct_fields__)


def test_a_responder_that_nobody_described_is_not_served() -> None:
    class Bare:
        async def on_get(self, req: Any, resp: Any) -> None: ...

    class Half:
        @describe(summary="x")
        async def on_get(self, req: Any, resp: Any) -> None: ...

        async def on_post(self, req: Any, resp: Any) -> None: ...

    for resource in (Bare(), Half()):
        with pytest.raises(TypeError, match="not described"):
            make_app([Route("/bare", resource)])


_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_gateway = Gateway()
schemathesis_schema = schemathesis.openapi.from_asgi("/openapi.json", _gateway.app)


@schemathesis_schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_generated_requests_are_answered_as_documented(case: Any) -> None:
    # What fits the schema may still be refused by a rule: two equal accounts, a key used before.
    case.call_and_validate(headers=TELLER, excluded_checks=[positive_data_acceptance])

"""What the gateway says about itself."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rmi_msg.cluster_state import judge
from rmi_msg.gateway_metrics import BOUNDS_S, GatewayMetrics
from rmi_runtime.http import HttpServer
from tests.unit.msg.http_fakes import assert_problem, gateway

ROW = {
    "name": "bank.business.1",
    "uri": "PYRO:bank.business.1@127.0.0.1:5",
    "address": "127.0.0.1:5",
    "state": "ready",
    "uptime_s": 2.5,
    "calls": 7,
    "errors": 1,
    "calls_per_s": 3.5,
}


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_health_counts_what_was_answered() -> None:
    async with gateway() as g:
        await g.get("/bank/accounts/1")
        g.bank.error = RuntimeError("x")
        await g.post("/bank/deposits", {"account": 1, "amount": 1})
        health = (await g.http.get("/healthz")).json()
        assert (health["state"], health["calls"], health["errors"]) == ("ready", 2, 1)
        assert health["uptime_s"] >= 0
        assert health["pid"] > 0


async def test_ready_is_200_and_not_ready_is_503_with_the_reasons() -> None:
    async with gateway() as g:
        assert (await g.http.get("/readyz")).json() == {"ready": True}
        g.reasons = ["no facade is announced"]
        response = await g.http.get("/readyz")
        document = assert_problem(response, 503, "not_ready")
        assert document["reasons"] == ["no facade is announced"]
        assert response.headers["retry-after"] == "1"


async def test_a_gateway_that_stops_lives_but_is_not_ready() -> None:
    async with gateway() as g:
        g.pages.server = HttpServer(g.app)
        g.pages.server.draining = True
        assert_problem(await g.http.get("/readyz"), 503, "not_ready")
        health = await g.http.get("/healthz")
        assert (health.status_code, health.json()["state"]) == (200, "draining")


async def test_status_lists_the_services_and_the_gateway_itself() -> None:
    async with gateway() as g:
        g.rows = [ROW]
        g.pages.server = HttpServer(g.app)
        g.pages.server.address = ("127.0.0.1", 8080)
        services = (await g.http.get("/status")).json()["services"]
        assert services[0] == ROW
        assert services[1]["name"] == "gateway"
        assert services[1]["uri"] == "http://127.0.0.1:8080"
        assert services[1]["state"] == "ready"


async def test_metrics_count_by_route_and_status_and_measure_time() -> None:
    async with gateway() as g:
        g.rows = [ROW, {"name": "msg.facade.1", "state": "unreachable"}]
        for path in ("/bank/accounts/1", "/bank/accounts/2", "/bank/accounts/99", "/nothing"):
            await g.get(path)
        response = await g.http.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = samples(response.text)
        route = "/bank/accounts/{account:number}"

        def count(name: str, route: str, status: str) -> Any:
            labels = (("method", "GET"), ("route", route), ("status", status))
            return found[(name, labels)]

        assert count("rmi_http_requests_total", route, "200") == 2
        assert count("rmi_http_requests_total", route, "404") == 1
        assert count("rmi_http_requests_total", "none", "404") == 1
        assert count("rmi_http_request_seconds_count", route, "200") == 2
        assert found["rmi_service_up", (("service", "bank.business.1"),)] == 1
        assert found["rmi_service_up", (("service", "msg.facade.1"),)] == 0
        assert found["rmi_service_calls_total", (("service", "bank.business.1"),)] == 7
        assert found["rmi_service_uptime_seconds", (("service", "bank.business.1"),)] == 2.5


def test_latencies_fall_into_their_buckets() -> None:
    metrics = GatewayMetrics()
    for seconds in (0.0, 0.003, 99.0):
        metrics.on_answered("POST", "/x", 201, seconds)
    found = samples(metrics.exposition({}, []).decode())

    def bucket(bound: str) -> float:
        labels = (("le", bound), ("method", "POST"), ("route", "/x"), ("status", "201"))
        return found["rmi_http_request_seconds_bucket", labels]

    assert [bucket(b) for b in ("0.0005", "0.0025", "0.005", "10.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert len([name for name, _ in found if name.endswith("_bucket")]) == len(BOUNDS_S) + 1


def test_the_number_of_series_is_bounded() -> None:
    metrics = GatewayMetrics()
    for n in range(3000):
        metrics.on_answered("GET", f"/{n}", 200, 0.0)
    text = metrics.exposition({}, []).decode()
    assert text.count("rmi_http_requests_total{") <= 1025
    assert 'route="other"' in text


def test_the_rate_is_that_of_the_last_seconds() -> None:
    now = [0.0]
    metrics = GatewayMetrics(clock=lambda: now[0])
    for second in range(1, 20):
        now[0] = float(second)
        for _ in range(0 if second < 10 else 30):
            metrics.on_answered("GET", "/", 200, 0.0)
        metrics.sample()
    assert metrics.stats()["calls_per_s"] == 30.0


def test_what_the_server_refuses_is_counted_too() -> None:
    metrics = GatewayMetrics()
    metrics.on_refused(413)
    assert 'status="413"' in metrics.exposition({}, []).decode()
    assert metrics.stats()["calls"] == 1


def told(members: int, losses: int | None) -> dict[str, Any]:
    """What a logger tells of a cluster of three."""
    present = ["h:1", "h:2", "h:3"][:members]
    state = judge(present, ["h:1", "h:2", "h:3"], losses, was_whole=True)
    return {**ROW, "name": "msg.logger.1", "store": msgspec.to_builtins(state)}


async def test_readiness_and_status_tell_what_the_cluster_does_and_a_loss_is_no_reason() -> None:
    async with gateway() as g:
        g.rows = [ROW, told(2, 1)]
        ready = (await g.http.get("/readyz")).json()
        assert ready["ready"] is True
        assert (ready["store"]["state"], ready["store"]["safe"]) == ("lost", True)
        assert ready["store"]["absent"] == ["h:3"]
        status = (await g.http.get("/status")).json()
        assert status["store"] == ready["store"]
        assert status["services"][1]["store"] == ready["store"]
        g.rows = [ROW, told(1, 0)]
        alone = await g.http.get("/readyz")
        assert (alone.status_code, alone.json()["store"]["safe"]) == (200, False)


async def test_without_any_member_the_gateway_is_not_ready() -> None:
    async with gateway() as g:
        g.rows = [ROW, told(0, None)]
        document = assert_problem(await g.http.get("/readyz"), 503, "not_ready")
        assert "none of 3 members can be reached" in document["reasons"][0]
        assert document["store"]["state"] == "unreachable"


async def test_services_that_are_slow_to_tell_do_not_hold_up_readiness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rmi_msg.gateway_pages.STORE_WAIT_S", 0.01)
    async with gateway() as g:
        g.rows = [told(3, 2)]
        assert (await g.http.get("/readyz")).json()["store"]["state"] == "safe"

        async def never() -> list[dict[str, Any]]:
            await asyncio.Event().wait()
            return []

        g.pages.rows = never
        assert (await g.http.get("/readyz")).json()["store"]["state"] == "safe"

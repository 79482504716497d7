"""Metrics: separate registries, bounded series, readable text."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rmi_runtime.metrics import MetricsRegistry


def samples(metrics: MetricsRegistry) -> dict[tuple[str, ...], float]:
    text, _ = metrics.exposition()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counters_count_by_label() -> None:
    metrics = MetricsRegistry()
    requests = metrics.counter("requests", "Requests answered.", ["route", "status"])
    requests.add("/bank", "201")
    requests.add("/bank", "201", by=2)
    requests.add("/bank", "409")
    found = samples(metrics)
    assert found["rmi_requests_total", "/bank", "201"] == 3
    assert found["rmi_requests_total", "/bank", "409"] == 1


def test_latencies_fall_into_buckets() -> None:
    metrics = MetricsRegistry("x")
    latency = metrics.latency("call_seconds", "Duration of calls.", buckets_s=[0.1, 1.0])
    latency.observe(0.05)
    latency.observe(0.5)
    found = samples(metrics)
    assert found["x_call_seconds_bucket", "0.1"] == 1
    assert found["x_call_seconds_bucket", "1.0"] == 2
    assert found["x_call_seconds_sum",] == pytest.approx(0.55)


def test_gauges_are_read_when_asked() -> None:
    metrics = MetricsRegistry()
    inflight = 0
    metrics.gauge("inflight", "Calls under way.", lambda: inflight)
    inflight = 7
    assert samples(metrics)["rmi_inflight",] == 7


def test_label_values_past_the_bound_are_counted_together() -> None:
    metrics = MetricsRegistry(series_max=2)
    requests = metrics.counter("requests", "Requests.", ["route"])
    latency = metrics.latency("request_seconds", "Durations.", ["route"], [1.0])
    for n in range(50):
        requests.add(f"/{n}")
        latency.observe(0.1, f"/{n}")
    found = samples(metrics)
    assert found["rmi_requests_total", "other"] == 48
    assert found["rmi_request_seconds_count", "other"] == 48
    assert len([key for key in found if key[0] == "rmi_requests_total"]) == 3


def test_two_registries_share_nothing() -> None:
    first, second = MetricsRegistry(), MetricsRegistry()
    first.counter("requests", "Requests.").add()
    second.counter("requests", "Requests.")
    assert samples(first)["rmi_requests_total",] == 1
    assert samples(second)["rmi_requests_total",] == 0


def test_the_text_names_its_media_type() -> None:
    _, media_type = MetricsRegistry().exposition()
    assert media_type.startswith("text/plain; version=0.0.4")

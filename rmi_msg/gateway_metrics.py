"""What the gateway counts, and how it is shown: ``/metrics``, and the numbers of ``/healthz``.

Counting happens on every request, so it is two additions and a search in a list; Prometheus'
objects are made only when somebody asks.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from rmi_runtime.http import UNROUTED

BOUNDS_S: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the latency histogram's buckets, in seconds."""

METRICS_MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
RATE_SAMPLES: Final = 5
"""Samples, one a second, that the present rate is taken from."""

_LABELS: Final = ("method", "route", "status")
# Series: 35 methods the parser knows, times routes, times statuses we answer; far less in practice.
_SERIES_MAX: Final = 1024
# Of a daemon's stats(), by the name of the metric.
_SERVICE_GAUGES: Final = {
    "rmi_service_uptime_seconds": "uptime_s",
    "rmi_service_connections": "connections",
    "rmi_service_inflight": "inflight",
}
_SERVICE_COUNTERS: Final = {
    "rmi_service_calls": "calls",
    "rmi_service_errors": "errors",
    "rmi_service_overloads": "overloads",
    "rmi_service_refusals": "refusals",
}


class _Series:
    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0


class GatewayMetrics:
    """Counts of one gateway process.

    Args:
        clock: returns seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun_s = clock()
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._samples: deque[tuple[float, int]] = deque([(self._begun_s, 0)], RATE_SAMPLES)
        self.calls = 0
        self.errors = 0

    def on_answered(self, method: str, route: str, status: int, elapsed_s: float) -> None:
        """Count an answer of the application."""
        series = self._series.get((method, route, status))
        if series is None:
            series = self._new_series((method, route, status))
        series.counts[bisect_left(BOUNDS_S, elapsed_s)] += 1
        series.sum_s += elapsed_s
        self.calls += 1
        if status >= 500:
            self.errors += 1

    def on_refused(self, status: int) -> None:
        """Count a request that was refused before it had a route."""
        self.on_answered("none", UNROUTED, status, 0.0)

    def sample(self) -> None:
        """Remember the present count; to be called once a second."""
        self._samples.append((self._clock(), self.calls))

    def stats(self) -> dict[str, Any]:
        """Return numbers by the names that a Pyro daemon's ``stats()`` has."""
        now_s = self._clock()
        at_s, calls = self._samples[0]
        rate = (self.calls - calls) / (now_s - at_s) if now_s > at_s else 0.0
        return {
            "pid": os.getpid(),
            "uptime_s": round(now_s - self._begun_s, 3),
            "calls": self.calls,
            "errors": self.errors,
            "calls_per_s": round(rate, 1),
        }

    def exposition(
        self, gauges: Mapping[str, tuple[str, float]], services: Sequence[Mapping[str, Any]]
    ) -> bytes:
        """Return everything as Prometheus text.

        Args:
            gauges: more of the gateway's own: name to description and value.
            services: rows of the status table.
        """
        registry = CollectorRegistry()
        registry.register(_Snapshot([*self._own(gauges), *_of_services(services)]))
        return generate_latest(registry)

    def _new_series(self, key: tuple[str, str, int]) -> _Series:
        if len(self._series) >= _SERIES_MAX:
            key = ("other", "other", 0)
        return self._series.setdefault(key, _Series())

    def _own(self, gauges: Mapping[str, tuple[str, float]]) -> Iterator[Metric]:
        requests = CounterMetricFamily("rmi_http_requests", "Requests answered.", labels=_LABELS)
        seconds = HistogramMetricFamily(
            "rmi_http_request_seconds", "Time to the answer's first byte.", labels=_LABELS
        )
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        for (method, route, status), series in self._series.items():
            labels = (method, route, str(status))
            sums = list(accumulate(series.counts))
            requests.add_metric(labels, sums[-1])
            seconds.add_metric(labels, list(zip(bounds, sums, strict=True)), series.sum_s)
        yield requests
        yield seconds
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"rmi_http_{name}", text, value=value)


def _of_services(services: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    up = GaugeMetricFamily("rmi_service_up", "1 if the service answers.", labels=("service",))
    for row in services:
        up.add_metric((row["name"],), 1.0 if row["state"] == "ready" else 0.0)
    yield up
    families: Any = ((GaugeMetricFamily, _SERVICE_GAUGES), (CounterMetricFamily, _SERVICE_COUNTERS))
    for family, names in families:
        for name, stat in names.items():
            metric = family(name, f"The service's {stat}.", labels=("service",))
            for row in services:
                if isinstance(row.get(stat), (int, float)):
                    metric.add_metric((row["name"],), row[stat])
            yield metric


class _Snapshot(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics

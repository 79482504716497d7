"""Counters, gauges and latencies for ``/metrics``, without any global registry.

A thin layer over prometheus-client: each :class:`MetricsRegistry` is its own world, so that several
services can live in one process (as they do in tests), and every metric has a bound on its label
values: whatever a caller sends can never grow the memory of a service. The text format is
Prometheus' own, https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

LATENCY_BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the latency histogram's buckets, in seconds."""

OTHER = "other"
"""Stands for every label value past a metric's bound."""


class CounterMetric:
    """A number that only rises, one per combination of label values.

    Made by :meth:`MetricsRegistry.counter`.
    """

    def __init__(self, counter: Counter, label_count: int, series_max: int) -> None:
        self._counter = counter
        self._label_count = label_count
        self._series_max = series_max
        self._series: dict[tuple[str, ...], Counter] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        """Add *by* to the series of these label values (in the order of the labels' names)."""
        series = self._series.get(labels)
        if series is None:
            series = self._new(labels)
        series.inc(by)

    def _new(self, labels: tuple[str, ...]) -> Counter:
        if not self._label_count:
            series = self._counter
        elif len(self._series) < self._series_max:
            series = self._counter.labels(*labels)
        else:
            return self._counter.labels(*[OTHER] * self._label_count)
        self._series[labels] = series
        return series


class LatencyMetric:
    """A histogram of seconds, one per combination of label values.

    Made by :meth:`MetricsRegistry.latency`.
    """

    def __init__(self, histogram: Histogram, label_count: int, series_max: int) -> None:
        self._histogram = histogram
        self._label_count = label_count
        self._series_max = series_max
        self._series: dict[tuple[str, ...], Histogram] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one duration of *seconds* in the series of these label values."""
        series = self._series.get(labels)
        if series is None:
            series = self._new(labels)
        series.observe(seconds)

    def _new(self, labels: tuple[str, ...]) -> Histogram:
        if not self._label_count:
            series = self._histogram
        elif len(self._series) < self._series_max:
            series = self._histogram.labels(*labels)
        else:
            return self._histogram.labels(*[OTHER] * self._label_count)
        self._series[labels] = series
        return series


class MetricsRegistry:
    """The metrics of one service.

    Args:
        prefix: put before every metric's name, with an underscore.
        series_max: most combinations of label values per metric; those past it are counted
            together under the label value ``other``.
    """

    def __init__(self, prefix: str = "rmi", *, series_max: int = 256) -> None:
        self._prefix = prefix
        self._series_max = series_max
        self._registry = CollectorRegistry(auto_describe=True)

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> CounterMetric:
        """Make a counter.

        Args:
            name: in snake case, without prefix and without ``_total``, which is added.
            text: what it counts, in a sentence.
            labels: names of its labels.

        Raises:
            ValueError: there is a metric of this name already.
        """
        counter = Counter(f"{self._prefix}_{name}", text, labels, registry=self._registry)
        return CounterMetric(counter, len(labels), self._series_max)

    def latency(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        buckets_s: Sequence[float] = LATENCY_BUCKETS_S,
    ) -> LatencyMetric:
        """Make a histogram of durations.

        Args:
            name: in snake case, without prefix; ends in ``_seconds`` by Prometheus' custom.
            text: what it measures, in a sentence.
            labels: names of its labels.
            buckets_s: rising upper bounds of its buckets, in seconds.

        Raises:
            ValueError: there is a metric of this name already.
        """
        histogram = Histogram(
            f"{self._prefix}_{name}", text, labels, registry=self._registry, buckets=buckets_s
        )
        return LatencyMetric(histogram, len(labels), self._series_max)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Make a gauge whose value is read when the metrics are asked for.

        Args:
            name: in snake case, without prefix.
            text: what it shows, in a sentence.
            read: returns the present value; must not block.

        Raises:
            ValueError: there is a metric of this name already.
        """
        gauge = Gauge(f"{self._prefix}_{name}", text, registry=self._registry)
        gauge.set_function(read)

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics as Prometheus text, and that text's media type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

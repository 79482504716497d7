"""What the benchmarks say of the disk."""

from __future__ import annotations

from benchmarks.disk import DiskProbe, in_words
from tests.support import sync_eventually


def test_a_probe_measures_durable_writes_until_its_context_ends() -> None:
    with DiskProbe() as probe:
        sync_eventually(lambda: len(probe._took_s) >= 3)
    found = probe.figures()
    assert found["writes"] >= 3
    assert 0 < found["p50_us"] <= found["p99_us"] <= found["longest_us"]
    assert found["longest_us"] == round(max(probe._took_s) * 1e6, 1)
    assert not probe._thread.is_alive()


def test_its_figures_in_words_have_units() -> None:
    found = {"writes": 1234, "p50_us": 171.4, "p99_us": 1260.0, "longest_us": 181_000.0}
    assert in_words(found) == ("171 µs in the middle, 1.3 ms at p99, 181 ms at most (1,234 writes)")

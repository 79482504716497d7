"""Members' metrics and the table made of them, without a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hazelcast.errors import HazelcastError
from hazelcast.metrics import MetricDescriptor, MetricsCompressor, ProbeUnit

from rmi_msg.hazelcast import map_stats
from rmi_msg.hazelcast.cluster import Cluster
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.map_stats import (
    MapStatistics,
    as_json,
    human_bytes,
    map_statistics,
)
from rmi_msg.hazelcast.room import FILL_MAX, Room
from rmi_msg.hazelcast.statistics import Metric, decode_metrics
from rmi_msg.hazelcast.stores import HazelcastMessageStore
from rmi_runtime import errors


def packed(*metrics: Metric) -> bytes:
    """Pack metrics with the client's own encoder."""
    compressor = MetricsCompressor()
    for metric in metrics:
        descriptor = MetricDescriptor(
            metric=metric.name,
            prefix=metric.prefix,
            discriminator="name" if metric.subject else None,
            discriminator_value=metric.subject or None,
            unit=ProbeUnit.COUNT,
        )
        if isinstance(metric.value, float):
            compressor.add_double(descriptor, metric.value)
        else:
            compressor.add_long(descriptor, metric.value)
    return bytes(compressor.generate_blob())


def test_metrics_are_read_as_they_were_written() -> None:
    metrics = [
        Metric("map", "ownedEntryCount", "messages", 3),
        Metric("map", "ownedEntryCount", "consumed", 2**40),
        Metric("map", "putCount", "Übung 消息", 0),
        Metric("", "load", "", 0.25),
    ]
    assert list(decode_metrics(packed(*metrics))) == metrics


def test_another_version_is_refused_rather_than_guessed() -> None:
    blob = packed(Metric("map", "hits", "m", 1))
    with pytest.raises(errors.InternalError, match="version 2"):
        list(decode_metrics(b"\x00\x02" + blob[2:]))


@pytest.mark.parametrize("cut", [0, 1, 5, 9, 20, 40])
def test_damaged_metrics_are_an_error(cut: int) -> None:
    blob = packed(Metric("map", "hits", "m", 1))
    with pytest.raises(errors.InternalError):
        list(decode_metrics(blob[:cut]))


def member(entries: int, backups: int, queued: int = 0) -> list[Metric]:
    return [
        Metric("map", "ownedEntryCount", "messages", entries),
        Metric("map", "backupEntryCount", "messages", backups),
        Metric("map", "ownedEntryMemoryCost", "messages", 163 * entries),
        Metric("map", "putCount", "messages", entries),
        Metric("map", "ownedEntryCount", "other", 1),
        Metric("map", "backupEntryCount", "other", 0),
        Metric("partitions", "migrationQueueSize", "", queued),
    ]


def statistics(*members: list[Metric]) -> MapStatistics:
    return map_statistics("messages", {f"127.0.0.1:{5700 + n}": m for n, m in enumerate(members)})


def test_rows_are_of_the_map_asked_for_and_add_up() -> None:
    found = map_statistics(
        "messages",
        {
            "b:2": [Metric("map", "ownedEntryCount", "messages", 5)],
            "a:1": [
                Metric("map", "ownedEntryCount", "messages", 2),
                Metric("map", "ownedEntryCount", "other", 7),
                Metric("queue", "ownedEntryCount", "messages", 9),
            ],
        },
    )
    assert [(row.member, row.entries) for row in found.rows] == [("a:1", 2), ("b:2", 5)]
    assert (found.total.member, found.total.entries) == ("TOTAL", 7)
    assert found.entries == 14  # of all maps


def test_three_members_with_two_backups_of_all_are_safe() -> None:
    whole = [Metric("map", "ownedEntryCount", "m", 2), Metric("map", "backupEntryCount", "m", 4)]
    safety = statistics(whole, whole, whole).safety
    assert (safety.safe, safety.losses, safety.migrating, safety.backups_missing) == (
        True,
        2,
        False,
        0,
    )
    assert str(safety).startswith("safe:")


def test_missing_backups_of_any_map_and_migrations_are_not_safe() -> None:
    assert statistics(member(2, 4), member(2, 4), member(2, 4)).safety.backups_missing == 6
    moving = [Metric("partitions", "migrationQueueSize", "", 3)]
    safety = statistics(moving, [], []).safety
    assert (safety.safe, safety.migrating) == (False, True)
    assert str(safety).startswith("not safe yet")


def test_two_members_are_safe_for_one_loss_and_one_member_for_none() -> None:
    half = [Metric("map", "ownedEntryCount", "m", 1), Metric("map", "backupEntryCount", "m", 1)]
    assert statistics(half, half).safety.losses == 1
    assert "third member" in str(statistics(half, half).safety)
    alone = statistics([Metric("map", "ownedEntryCount", "m", 1)]).safety
    assert (alone.losses, alone.safe) == (0, False)
    assert str(alone).startswith("not safe")


def test_the_json_form_has_the_members_the_total_and_the_verdict() -> None:
    plain = as_json(statistics(member(1, 2)))
    assert plain["map"] == "messages"
    assert plain["total"]["entries"] == 1  # type: ignore[index]
    assert plain["cluster"]["safe"] is False  # type: ignore[index]


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [
        (0, "0.00 B"),
        (326, "326.00 B"),
        (1630, "1.59 kB"),
        (1024**2, "1.00 MB"),
        (2**50, "1024.00 TB"),
    ],
)
def test_sizes_are_said_as_the_management_center_does(size_bytes: int, said: str) -> None:
    assert human_bytes(size_bytes) == said


def test_the_fullest_member_tells_how_full_the_cluster_is() -> None:
    def heap(cost: int, size: int = 1000) -> list[Metric]:
        return [
            Metric("map", "heapCost", "messages", cost),
            Metric("map", "heapCost", "consumed", cost),
            Metric("runtime", "maxMemory", "", size),
        ]

    found = statistics(heap(10), heap(300), heap(20, 900))
    assert (found.fill, found.heap_bytes) == (0.6, 900)
    one_silent = statistics(heap(10), [])
    assert (one_silent.fill, one_silent.heap_bytes) == (0.02, 0)
    assert (statistics([]).fill, map_statistics("messages", {}).heap_bytes) == (0.0, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_a_member_measures_and_cannot_tell_spoils_nothing(value: float) -> None:
    load = Metric("os", "systemCpuLoad", "", value)
    found = statistics([load, Metric("map", "ownedEntryCount", "messages", 7)])
    assert found.total.entries == 7


async def test_past_its_bound_nothing_new_is_taken() -> None:
    room = Room()
    room.on_figures(FILL_MAX + 0.01, 1000, 3)
    cluster = Cluster(Link([], "rmi"), 1.0, room)
    with pytest.raises(errors.StoreFull, match="hazelcast-heap-mib"):
        await HazelcastMessageStore(cluster).put_many([("a", "x")], "L")


async def test_a_member_that_refuses_is_told_of_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object) -> None:
        raise HazelcastError("Requested metrics for another member\n\tat com.hazelcast.Some.java:1")

    monkeypatch.setattr(map_stats, "read_metrics", refuse)
    member = SimpleNamespace(uuid=None, address=SimpleNamespace(host="127.0.0.1", port=1))
    client: Any = SimpleNamespace(cluster_service=SimpleNamespace(get_members=lambda: [member]))
    with pytest.raises(errors.Unavailable, match="another member") as refused:
        await map_stats.gather_map_statistics(client, "messages", fresh_s=0)
    assert "\n" not in str(refused.value)

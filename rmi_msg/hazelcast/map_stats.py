"""The statistics of one map, member by member, and whether the cluster could lose a member now."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hazelcast.asyncio import HazelcastClient
from hazelcast.errors import HazelcastError

from rmi_msg.hazelcast.statistics import Metric, decode_metrics, read_metrics
from rmi_runtime import errors

BACKUPS: Final = 2
"""Backups of every entry, if there are members enough."""

FRESH_S_MAX: Final = 3.0
"""How long to wait for a collection that was begun after the question, in seconds."""

_POLL_S: Final = 0.1
_MEMBER_S_MAX: Final = 5.0

_METRICS: Final = {
    "entries": "ownedEntryCount",
    "gets": "getCount",
    "puts": "putCount",
    "removals": "removeCount",
    "sets": "setCount",
    "entry_memory_bytes": "ownedEntryMemoryCost",
    "backups": "backupEntryCount",
    "backup_memory_bytes": "backupEntryMemoryCost",
    "events": "numberOfEvents",
    "hits": "hits",
    "locks": "lockedEntryCount",
    "dirty_entries": "dirtyEntryCount",
}
"""Fields of a row, and the member's own names of them."""


@dataclass(frozen=True, slots=True)
class MapRow:
    """One member's part of a map, or the sum of all.

    Attributes:
        member: ``host:port``.
        entries: entries that it owns.
        gets: and the following four: operations on them since the member started.
        entry_memory_bytes: what they occupy.
        backups: entries that it keeps for others.
        backup_memory_bytes: what those occupy.
        events: events it sent to listeners.
        hits: reads that found an entry.
        locks: entries that are locked.
        dirty_entries: entries not yet written to a store behind the map.
    """

    member: str
    entries: int = 0
    gets: int = 0
    puts: int = 0
    removals: int = 0
    sets: int = 0
    entry_memory_bytes: int = 0
    backups: int = 0
    backup_memory_bytes: int = 0
    events: int = 0
    hits: int = 0
    locks: int = 0
    dirty_entries: int = 0


@dataclass(frozen=True, slots=True)
class Safety:
    """How many members may be lost at once, as far as their statistics tell.

    Attributes:
        members: how many there are.
        losses: how many of them may be lost at once without losing an entry.
        migrating: whether data is being moved between them.
        backups_missing: copies that ought to be there, and are not (yet).
    """

    members: int
    losses: int
    migrating: bool
    backups_missing: int

    @property
    def safe(self) -> bool:
        """Whether the next loss of a member loses nothing."""
        return self.losses > 0

    def __str__(self) -> str:
        if self.migrating or self.backups_missing:
            return (
                f"not safe yet: the {self.members} members are moving data, "
                f"{self.backups_missing} backups are still missing"
            )
        if self.losses >= BACKUPS:
            return (
                f"safe: {self.members} members, every entry has {BACKUPS} backups; any {BACKUPS} "
                "members may be lost at once"
            )
        if self.losses:
            return (
                "safe for one loss: 2 members, every entry has one backup; a third member would "
                "make it two"
            )
        return "not safe: there is one member, and nobody has a backup"


@dataclass(frozen=True, slots=True)
class MapStatistics:
    """The statistics of one map.

    Attributes:
        name: of the map.
        rows: a row per member, by address.
        safety: of the cluster as a whole, all maps together.
        fill: share (0 to 1) of its heap that the entries of all maps occupy, in the fullest member.
        heap_bytes: of the smallest heap; 0: not all members told of theirs.
        entries: of all maps together, without their backups.
    """

    name: str
    rows: tuple[MapRow, ...]
    safety: Safety
    fill: float
    heap_bytes: int
    entries: int = 0

    @property
    def total(self) -> MapRow:
        """The sum of all rows."""
        sums = {name: sum(getattr(row, name) for row in self.rows) for name in _METRICS}
        return MapRow("TOTAL", **sums)


def map_statistics(name: str, members: Mapping[str, Iterable[Metric]]) -> MapStatistics:
    """Compute the statistics of one map.

    Args:
        name: of the map.
        members: address of each member to its metrics.
    """
    rows = []
    entries = backups = queued = 0
    fill = 0.0
    heaps_bytes: list[int] = []
    for member, metrics in sorted(members.items()):
        found: dict[str, int] = {}
        cost_bytes = heap_bytes = 0
        for metric in metrics:
            # Others may be no numbers to count with, such as a load that the system does not tell.
            value = int(metric.value) if math.isfinite(metric.value) else 0
            if metric.prefix == "map":
                if metric.subject == name:
                    found[metric.name] = value
                if metric.name == "ownedEntryCount":
                    entries += value
                elif metric.name == "backupEntryCount":
                    backups += value
                elif metric.name == "heapCost":
                    cost_bytes += value
            elif metric.prefix == "partitions" and metric.name == "migrationQueueSize":
                queued += value
            elif metric.prefix == "runtime" and metric.name == "maxMemory":
                heap_bytes = value
        fill = max(fill, cost_bytes / heap_bytes if heap_bytes else 0.0)
        heaps_bytes.append(heap_bytes)
        fields = {field: found.get(metric, 0) for field, metric in _METRICS.items()}
        rows.append(MapRow(member, **fields))
    losses = min(BACKUPS, max(len(rows) - 1, 0))
    missing = max(losses * entries - backups, 0)
    settled = not missing and not queued
    safety = Safety(len(rows), losses if settled else 0, queued > 0, missing)
    return MapStatistics(name, tuple(rows), safety, fill, min(heaps_bytes, default=0), entries)


async def gather_map_statistics(
    client: HazelcastClient, name: str, *, fresh_s: float = FRESH_S_MAX
) -> MapStatistics:
    """Ask all members.

    Args:
        client: a connected client.
        name: of the map.
        fresh_s: how long to wait for figures collected after this call began, in seconds; 0 takes
            what is there.

    Raises:
        Unavailable: a member did not answer.
    """
    deadline = asyncio.get_running_loop().time() + fresh_s
    while True:
        found = await _gather(client, name, fresh_s)
        # Members do not count at the same moment: a copy made in between is missing once only.
        if not found.safety.backups_missing or found.safety.migrating:
            return found
        if asyncio.get_running_loop().time() > deadline:
            return found


async def _gather(client: HazelcastClient, name: str, fresh_s: float) -> MapStatistics:
    members = client.cluster_service.get_members()
    if not members:
        raise errors.Unavailable("the cluster has no members; start a logger")
    try:
        async with asyncio.timeout(fresh_s + _MEMBER_S_MAX):
            found = await asyncio.gather(
                *(_metrics(client, member.uuid, fresh_s) for member in members)
            )
    except (HazelcastError, OSError, TimeoutError) as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0]  # Java's stack comes after
        raise errors.Unavailable(
            f"a Hazelcast member did not tell its statistics ({said}); try again"
        ) from error
    addresses = [f"{member.address.host}:{member.address.port}" for member in members]
    return map_statistics(name, dict(zip(addresses, found, strict=True)))


async def _metrics(
    client: HazelcastClient, member: uuid.UUID | None, fresh_s: float
) -> Sequence[Metric]:
    """Return one member's metrics, collected after now if that can be had in time."""
    there = await read_metrics(client, member)
    if fresh_s:
        deadline = asyncio.get_running_loop().time() + fresh_s
        newer = there
        while newer.next_sequence <= there.next_sequence:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_POLL_S)
            newer = await read_metrics(client, member, there.next_sequence)
        if newer.blob:
            there = newer
    return list(decode_metrics(there.blob)) if there.blob else []


def as_json(statistics: MapStatistics) -> dict[str, object]:
    """Return *statistics* as plain values."""
    safety = dataclasses.asdict(statistics.safety)
    return {
        "map": statistics.name,
        "members": [dataclasses.asdict(row) for row in statistics.rows],
        "total": dataclasses.asdict(statistics.total),
        "cluster": safety
        | {
            "safe": statistics.safety.safe,
            "says": str(statistics.safety),
            "fill": round(statistics.fill, 4),
        },
    }


def human_bytes(size_bytes: int) -> str:
    """Return a size for people: ``326.00 B``, ``1.59 kB``, in steps of 1024."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TB"

"""``rmi map-stats``: what each Hazelcast member holds of a map, and whether it is safe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rmi_launch.failures import NotRunning
from rmi_launch.options import with_settings
from rmi_launch.tables import new_table, show
from rmi_msg.hazelcast.install import check_client
from rmi_runtime import Loaded

if TYPE_CHECKING:
    from rmi_msg.hazelcast.map_stats import MapRow, MapStatistics

WATCH_S = 1.0
CONNECT_S = 5.0

_COLUMNS = (
    ("Entries", "entries"),
    ("Gets", "gets"),
    ("Puts", "puts"),
    ("Removals", "removals"),
    ("Sets", "sets"),
    ("Entry Memory", "entry_memory_bytes"),
    ("Backups", "backups"),
    ("Backup Memory", "backup_memory_bytes"),
    ("Events", "events"),
    ("Hits", "hits"),
    ("Locks", "locks"),
    ("Dirty Entries", "dirty_entries"),
)


@click.command("map-stats", short_help="Show what each Hazelcast member holds of the messages.")
@click.option("--map", "name", default="messages", show_default=True, help="Name of the map.")
@click.option("--watch", is_flag=True, help="Show it anew every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@with_settings("data_dir", "hazelcast_members", "hazelcast_cluster")
def map_stats(loaded: Loaded, name: str, watch: bool, as_json: bool) -> None:
    """Show what each Hazelcast member holds of the messages, and whether the cluster is safe.

    Ends with exit code 3 if there is no member.
    """
    if as_json:
        indent = None if watch else 1
        asyncio.run(_show(loaded, name, watch, lambda s: _print_json(s, indent)))
        return
    if not watch:
        asyncio.run(_show(loaded, name, watch, _print))
        return
    with Live(auto_refresh=False) as live:
        asyncio.run(
            _show(
                loaded,
                name,
                watch,
                lambda s: live.update(Group(table_of(s), verdict(s)), refresh=True),
            )
        )


def _print_json(statistics: MapStatistics, indent: int | None) -> None:
    from rmi_msg.hazelcast.map_stats import as_json  # noqa: PLC0415

    click.echo(json.dumps(as_json(statistics), indent=indent))


def _print(statistics: MapStatistics) -> None:
    show(table_of(statistics))
    Console().print(verdict(statistics), highlight=False, soft_wrap=True)


async def _show(
    loaded: Loaded, name: str, watch: bool, tell: Callable[[MapStatistics], None]
) -> None:
    from rmi_msg.hazelcast.member import find_members  # noqa: PLC0415

    members, cluster = find_members(loaded.settings)
    if not members:
        raise NotRunning(
            f"no Hazelcast member runs on data directory {loaded.settings.data_dir}; start the "
            "system with `rmi up --store hazelcast`, or name members with --hazelcast-members"
        )
    check_client()
    from rmi_msg.hazelcast.link import Link  # noqa: PLC0415 - see check_client
    from rmi_msg.hazelcast.map_stats import gather_map_statistics  # noqa: PLC0415

    async with Link(members, cluster) as link:
        while True:
            client = await link.client(CONNECT_S)
            tell(await gather_map_statistics(client, name))
            if not watch:
                return
            await asyncio.sleep(WATCH_S)


def table_of(statistics: MapStatistics) -> Table:
    """Return *statistics* as people like to read them."""
    titles = tuple(title for title, _ in _COLUMNS)
    table = new_table("Member", *titles, right=titles)
    for row in statistics.rows:
        table.add_row(*_cells(row))
    table.add_row(*_cells(statistics.total), style="bold")
    return table


def verdict(statistics: MapStatistics) -> Text:
    """Return in words whether the cluster is safe, and how full."""
    fill = f"entries occupy {statistics.fill:.1%} of the fullest member's heap"
    style = "green" if statistics.safety.safe else "yellow"
    return Text(f"{statistics.safety}\n{fill}", style=style)


def _cells(row: MapRow) -> list[str]:
    from rmi_msg.hazelcast.map_stats import human_bytes  # noqa: PLC0415

    cells = [row.member]
    for _, field in _COLUMNS:
        value = getattr(row, field)
        cells.append(human_bytes(value) if field.endswith("_bytes") else str(value))
    return cells

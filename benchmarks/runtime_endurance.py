"""Does the daemon stay as small as it was: ``python -m benchmarks.runtime_endurance``.

Makes very many calls and connections, and compares the server's memory and open files before and
after. Ends with 1 if they have grown.
"""

from __future__ import annotations

import asyncio
import sys

import click
import uvloop
from rich.console import Console
from rich.table import Table

import rmi_runtime
from benchmarks.echo_processes import server

GROUP = 500
RSS_GROWTH_MIB_MAX = 4.0


async def _calls(uri: str, count: int) -> None:
    async with rmi_runtime.Proxy(uri, timeout_s=60) as proxy:
        for _ in range(0, count, GROUP):
            await asyncio.gather(*[proxy.echo("hello") for _ in range(GROUP)])


async def _connects(uri: str, count: int) -> None:
    async def once() -> None:
        async with rmi_runtime.Proxy(uri, timeout_s=60) as proxy:
            await proxy.echo("hello")

    for _ in range(0, count, 50):
        await asyncio.gather(*[once() for _ in range(50)])


async def _state(uri: str) -> tuple[float, int]:
    async with rmi_runtime.Proxy(uri) as proxy:
        return await proxy.rss_bytes() / 2**20, await proxy.open_files()


async def measure(uri: str, calls: int, connects: int) -> list[tuple[str, float, int]]:
    """Return what was done, and the server's memory in MiB and open files after it."""
    await _calls(uri, 10 * GROUP)
    await _connects(uri, 500)
    rows = [("warm", *await _state(uri))]
    await _calls(uri, calls)
    rows.append((f"{calls:,} calls", *await _state(uri)))
    await _connects(uri, connects)
    rows.append((f"{connects:,} connections", *await _state(uri)))
    return rows


@click.command()
@click.option("--calls", default=100_000, show_default=True)
@click.option("--connects", default=10_000, show_default=True)
def main(calls: int, connects: int) -> None:
    """Make many calls and connections; see whether the server grows."""
    with server("ours-async") as (uri, _):
        rows = uvloop.run(measure(uri, calls, connects))
    table = Table("after", "memory, MiB", "open files")
    for name, memory, files in rows:
        table.add_row(name, f"{memory:.1f}", str(files))
    Console().print(table)
    grown = rows[-1][1] - rows[0][1]
    if grown > RSS_GROWTH_MIB_MAX or rows[-1][2] > rows[0][2]:
        print(f"the server has grown by {grown:.1f} MiB", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

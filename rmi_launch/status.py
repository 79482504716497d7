"""``rmi status``: every service, where it is and how it does."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any

import click
import msgspec
from Pyro5.core import DAEMON_NAME
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rmi_launch.failures import NotRunning
from rmi_launch.options import REACH_SETTINGS, with_settings
from rmi_launch.plan import GATEWAY, is_gateway
from rmi_launch.system import System, find_system
from rmi_launch.tables import new_table, plain, show
from rmi_msg.cluster_state import STORE, common_state
from rmi_runtime import TROUBLE, URI, Loaded, NameServers, Proxy, split_address
from rmi_runtime.errors import Forbidden, RmiError, Unauthenticated
from rmi_runtime.settings.rules import is_unspecified

PROBE_TIMEOUT_S = 2.0
"""How long one service may take to answer before it is called unreachable."""

UNREACHABLE = "unreachable"
REFUSED = "refuses"
_KNOWN_ABSENT = frozenset({"waiting", "dead", "starting", "stopping", "draining"})
_COLOURS = {"ready": "green", "draining": "yellow", "starting": "yellow", "waiting": "yellow"}


@dataclass(frozen=True)
class ServiceStatus:
    """One line of the table; None where nobody could be asked.

    Args:
        name: Pyro name, or ``gateway``.
        address: ``host:port``.
        state: ``ready``, ``draining``, ``unreachable``, ``refuses`` (it is there, but tells nothing
            without the cluster key), or what ``rmi up`` says of one that does
            not run: ``starting``, ``waiting`` (to be started again), ``dead``.
        pid: process id.
        uptime_s: seconds since its start.
        calls_per_s: calls in a second, over the last few.
        calls: calls since its start.
        errors: those of them that ended in an error.
        store: what it says of the cluster that messages are kept on (:mod:`rmi_msg.cluster_state`).
        trouble: why it cannot do its work although it answers.
    """

    name: str
    address: str
    state: str
    pid: int | None = None
    uptime_s: float | None = None
    calls_per_s: float | None = None
    calls: int | None = None
    errors: int | None = None
    store: Mapping[str, Any] | None = None
    trouble: str | None = None


@click.command(short_help="Show every service: where it is, and how it does.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@with_settings(*REACH_SETTINGS, "http")
def status(loaded: Loaded, as_json: bool) -> None:
    """Show every service: name, address, process, state, uptime, calls, errors.

    If messages are kept on Hazelcast, a line below tells what its cluster is doing, and whether it
    is safe for the next loss. Another tells of services that answer and cannot do their work, as
    their store is gone. Ends with exit code 3 if nothing is running.
    """
    system = find_system(loaded, as_anybody=True)
    rows = asyncio.run(gather_status(system))
    refused = any(row.state == REFUSED for row in rows)
    if not refused and not any(row.pid or row.state == "ready" for row in rows):
        raise NotRunning(
            "no service answers that the name server at "
            f"{' or '.join(system.ns)} knows, if there is one, and no gateway at {system.http}; "
            f"{system.advice}"
        )
    if refused:
        click.echo(
            "services refuse to tell more without their cluster key: name the data directory that "
            f"has it with --data-dir, or copy cluster.key to {loaded.settings.data_dir}",
            err=True,
        )
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    else:
        show(status_table(rows))
        if line := store_line(rows):
            Console().print(line, highlight=False, soft_wrap=True)
        for line in trouble_lines(rows):
            Console().print(line, highlight=False, soft_wrap=True)


async def gather_status(system: System) -> list[ServiceStatus]:
    """Ask everybody, all at once.

    Args:
        system: where to look: its name servers, its gateway, and what its ``rmi up`` wrote.

    Returns:
        A line for each service, by name.
    """
    known = {
        str(service["name"]): (str(service["address"]), str(service["state"]))
        for service in system.services
    }
    gateways = [service for service in system.services if is_gateway(str(service["name"]))]
    for service in gateways:
        del known[service["name"]]
    async with NameServers(
        system.ns, handshake=system.handshake, timeout_s=PROBE_TIMEOUT_S, ssl=system.ssl
    ) as name_servers:
        try:
            entries = await name_servers.list()
        except RmiError:
            # The services may well be there without it; those of our own rmi up are known.
            entries = {}
    for name, entry in entries.items():
        if "rmi" in entry.metadata:
            state = "draining" if "rmi.draining" in entry.metadata else ""
            known[name] = (URI(entry.uri).location, state)
    gateway, *services = await asyncio.gather(
        asyncio.to_thread(_ask_gateway, system.http, system.ssl),
        *(_ask_service(system, name, address, state) for name, (address, state) in known.items()),
    )
    rows = sorted(services, key=lambda row: row.name)
    return [*rows, *_gateway_rows(gateway, gateways)]


def _gateway_rows(
    answer: ServiceStatus, gateways: Sequence[Mapping[str, Any]]
) -> list[ServiceStatus]:
    """Return a line per gateway process: *answer* is that of the one which took the connection."""
    if len(gateways) < 2:
        absent = {str(each["state"]) for each in gateways} & _KNOWN_ABSENT
        down = absent if answer.state == UNREACHABLE else None
        return [dataclasses.replace(answer, state=down.pop()) if down else answer]
    others = [
        ServiceStatus(str(each["name"]), str(each["address"]), str(each["state"]), each["pid"])
        for each in gateways
    ]
    return [
        dataclasses.replace(answer, name=other.name) if other.pid == answer.pid else other
        for other in others
    ]


async def _ask_service(system: System, name: str, address: str, state: str) -> ServiceStatus:
    """Ask the daemon at *address*; *state* is what others say of it."""
    if not address:
        return ServiceStatus(name, address, state or UNREACHABLE)
    uri = f"PYRO:{DAEMON_NAME}@{address}"
    try:
        async with Proxy(
            uri, handshake=system.handshake, timeout_s=PROBE_TIMEOUT_S, ssl=system.ssl
        ) as daemon:
            stats: Mapping[str, Any] = await daemon._call("stats")
    except (RmiError, AttributeError, OSError) as error:
        if not system.handshake and isinstance(error, Unauthenticated | Forbidden):
            return ServiceStatus(name, address, REFUSED)
        # One that leaves, or does not run, takes no new connection: others know why.
        down = state if state in _KNOWN_ABSENT else UNREACHABLE
        return ServiceStatus(name, address, down)
    return _row(name, address, stats)


def _row(name: str, address: str, stats: Mapping[str, Any]) -> ServiceStatus:
    return ServiceStatus(
        name,
        address,
        state=str(stats.get("state", "ready")),
        pid=stats.get("pid"),
        uptime_s=stats.get("uptime_s"),
        calls_per_s=stats.get("calls_per_s"),
        calls=stats.get("calls"),
        errors=stats.get("errors"),
        store=stats.get(STORE),
        trouble=stats.get(TROUBLE),
    )


class _Health(msgspec.Struct):
    """What a gateway says of itself; any other program that listens there says something else."""

    pid: int
    uptime_s: float
    calls: int
    errors: int
    calls_per_s: float
    state: str


def _ask_gateway(address: str, ssl: SSLContext | None) -> ServiceStatus:
    host, port = split_address(address)
    if is_unspecified(host):  # it listens on all addresses; we ask on this machine's own
        host = "127.0.0.1" if "." in host else "::1"
    connection = (
        http.client.HTTPSConnection(host, port, timeout=PROBE_TIMEOUT_S, context=ssl)
        if ssl
        else http.client.HTTPConnection(host, port, timeout=PROBE_TIMEOUT_S)
    )
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        health = msgspec.json.decode(response.read(64 * 1024), type=_Health)
        if response.status != http.HTTPStatus.OK:
            return ServiceStatus(GATEWAY, address, UNREACHABLE)
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return ServiceStatus(GATEWAY, address, UNREACHABLE)
    finally:
        connection.close()
    return _row(GATEWAY, address, msgspec.structs.asdict(health))


def status_table(rows: list[ServiceStatus]) -> Table:
    """Return *rows* as people like to read them."""
    numbers = ("uptime", "calls/s", "errors")
    table = new_table("name", "address", "pid", "state", *numbers, right=("pid", *numbers))
    for row in rows:
        colour = _COLOURS.get(row.state, "red")
        table.add_row(
            plain(row.name),
            plain(row.address),
            _cell(row.pid),
            f"[{colour}]{row.state}[/]",
            duration(row.uptime_s),
            _cell(row.calls_per_s),
            f"[red]{row.errors}[/]" if row.errors else _cell(row.errors),
        )
    return table


def store_line(rows: Sequence[ServiceStatus]) -> Text | None:
    """Return what the messages' cluster is doing, or None if there is none."""
    state = common_state([{STORE: row.store} for row in rows])
    if state is None:
        return None
    style = "green" if state["safe"] else "yellow" if state["members"] else "red"
    return Text(f"Hazelcast: {state['says']}", style=style)


def trouble_lines(rows: Sequence[ServiceStatus]) -> list[Text]:
    """Return why services cannot do their work, each reason once."""
    who: dict[str, list[str]] = {}
    for row in rows:
        if row.trouble:
            who.setdefault(row.trouble, []).append(row.name)
    return [Text(f"{', '.join(names)}: {why}", style="red") for why, names in who.items()]


def duration(seconds: float | None) -> str:
    """Return a time for people: ``42s``, ``3m 20s``, ``5h 07m``, ``2d 03h``; ``-`` for None."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d {hours % 24:02}h"
    if hours:
        return f"{hours}h {minutes % 60:02}m"
    return f"{minutes}m {whole % 60:02}s" if minutes else f"{whole}s"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value}"

"""``rmi hazelcast``: fetching Hazelcast, and a member by hand."""

from __future__ import annotations

import asyncio
import dataclasses

import click
from rich.console import Console

from rmi_launch import data_dir
from rmi_launch.options import WholeRange, with_settings
from rmi_launch.stdout import say
from rmi_launch.zygote import log_to_stderr
from rmi_msg.hazelcast.install import (
    VERSION,
    check_client,
    check_java,
    find_java,
    install_hazelcast,
    is_installed,
)
from rmi_runtime import (
    Loaded,
    Settings,
    SettingsError,
    cancelled_by,
    split_address,
    stop_on_signals,
)
from rmi_runtime.settings.rules import is_loopback, normal_address

HAZELCAST_SETTINGS = (
    "hazelcast_members",
    "hazelcast_cluster",
    "hazelcast_port",
    "hazelcast_heap_mib",
)
"""Settings of whatever starts or uses Hazelcast members."""

_SHOWN_CHARS_MAX = 72


@click.group()
def hazelcast() -> None:
    """Fetch Hazelcast, or run one of its members by hand."""


@hazelcast.command()
@with_settings("data_dir")
def install(loaded: Loaded) -> None:
    """Fetch Hazelcast with Maven into the data directory, once.

    Needs Java 17 or newer, and Maven. `rmi up --store hazelcast` does it by itself.
    """
    settings = loaded.settings
    there = is_installed(settings.data_dir)
    fetch_hazelcast(settings)
    if there:
        click.echo(f"Hazelcast {VERSION} is there already")


def prepare_store(settings: Settings) -> None:
    """See that the loggers find what the chosen store needs."""
    if settings.store == "hazelcast":
        check_client()
        if not settings.hazelcast_members:
            fetch_hazelcast(settings)


def fetch_hazelcast(settings: Settings) -> None:
    """See that the Hazelcast jar is in the data directory; show what is going on.

    Raises:
        JavaMissing: there is no Java, or too old a one.
        MavenMissing: it must be fetched, and there is no Maven.
        FetchFailed: Maven failed.
    """
    if is_installed(settings.data_dir):
        check_java(find_java())
        return
    console = Console(stderr=True)
    with console.status("") as status:

        def tell(line: str) -> None:
            status.update(line[:_SHOWN_CHARS_MAX])

        console.print(f"fetching Hazelcast {VERSION} with Maven, once", highlight=False)
        lib = install_hazelcast(settings.data_dir, tell)
    console.print(f"Hazelcast {VERSION} is in {lib}", highlight=False, soft_wrap=True)


@hazelcast.command(short_help="Run one member that belongs to no logger.")
@click.option(
    "--id", "number", type=WholeRange(1, 999_999), default=1, help="Its number. [default: 1]"
)
@click.option(
    "--listen", required=True, metavar="HOST:PORT", help="Address that it listens on; no other."
)
@with_settings("data_dir", "insecure", "log_level", "start_wait_s", *HAZELCAST_SETTINGS)
def member(loaded: Loaded, number: int, listen: str) -> None:
    """Run one member that belongs to no logger, until SIGINT, SIGTERM or SIGHUP.

    This is how a cluster spans machines: start one on each, all with the same --hazelcast-members,
    and give the loggers and messages services that list too. Members have no passwords and no TLS,
    so an address other than loopback needs --insecure, and a network that nobody else is on.
    """
    settings = loaded.settings
    try:
        address = normal_address(listen)
    except ValueError as error:
        raise SettingsError(f"--listen: {error}", field="listen", source="--listen") from None
    host, port = split_address(address)
    if port == 0:
        raise SettingsError(
            "--listen: port 0 is any free one, and the other members must know which; name one",
            field="listen",
            source="--listen",
        )
    if not is_loopback(host) and not settings.insecure:
        raise SettingsError(
            f"--listen: {host} can be reached from other machines, and a Hazelcast member has "
            "neither passwords nor TLS; listen on 127.0.0.1, or accept this with --insecure",
            field="listen",
            source="--listen",
        )
    members = settings.hazelcast_members or (address,)
    if address not in members:
        raise SettingsError(
            f"--hazelcast-members: {address} must be one of them, as the others know it",
            field="hazelcast_members",
            source="--hazelcast-members",
        )
    settings = dataclasses.replace(settings, hazelcast_members=members)
    check_client()
    data_dir.prepare(settings.data_dir)
    log_to_stderr(settings.log_level)
    fetch_hazelcast(settings)
    asyncio.run(_run_member(settings, number, address))


async def _run_member(settings: Settings, number: int, address: str) -> None:
    from rmi_msg.hazelcast.opening import open_member  # noqa: PLC0415 - see check_client

    stopping = stop_on_signals()
    async with cancelled_by(stopping) as built, open_member(settings, number, address):
        built()
        say(f"member {address} ready")
        await stopping.wait()

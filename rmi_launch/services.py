"""One service each, by hand, in the foreground: the same functions that ``rmi up`` runs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
from collections.abc import Coroutine, Iterator
from typing import Any

import click
import uvloop

from rmi_launch import data_dir
from rmi_launch.options import OPERATION_LOG_SETTINGS, TLS_SETTINGS, WholeRange, with_settings
from rmi_launch.plan import GATEWAY, NAMESERVER, ServiceSpec
from rmi_launch.processes import READY_SIZE_BYTES_MAX
from rmi_launch.stdout import say
from rmi_launch.supervisor import StartFailed
from rmi_launch.zygote import log_to_stderr
from rmi_runtime import Loaded, NameServers, Settings, load_tls
from rmi_runtime.errors import RmiError, Unavailable

_COMMON = ("data_dir", "host", "ns", "insecure", *TLS_SETTINGS, "log_level")
_LOGGED = (*_COMMON, *OPERATION_LOG_SETTINGS)
_BANK = ("lock_wait_s", "lock_lease_s", "call_timeout_s", "batch_max", "queue_max")
_MESSAGES = ("store", "call_timeout_s", "batch_max", "queue_max")
_CLUSTER = (
    "loggers",
    "hazelcast_members",
    "hazelcast_cluster",
    "hazelcast_port",
    "hazelcast_heap_mib",
)

DELAY_TOLD_S = 2.0
"""A service that is not ready after this tells what it waits for."""

number = click.option(
    "--id", "number", type=WholeRange(1, 999_999), required=True, help="Its number."
)


@click.command(short_help="Run a name server that forgets the dead.")
@with_settings(
    *("data_dir", "ns", "ns_broadcast_port", "insecure", *TLS_SETTINGS, "log_level", "lease_s")
)
def nameserver(loaded: Loaded) -> None:
    """Run a name server that forgets the dead, at the first address of --ns."""
    run_by_hand(ServiceSpec(NAMESERVER, "rmi_bank:run_nameserver"), loaded.settings)


@click.command()
@with_settings(*_LOGGED, "demo", "lock_wait_s", "lock_lease_s", "batch_max", "queue_max")
def data(loaded: Loaded) -> None:
    """Run the data object, the owner of accounts, locks and journal."""
    run_by_hand(ServiceSpec("bank.data", "rmi_bank:run_data"), loaded.settings)


@click.command(short_help="Run a business object: it moves money, by the rules.")
@number
@with_settings(*_LOGGED, *_BANK)
def business(loaded: Loaded, number: int) -> None:
    """Run a business object: deposits, withdrawals, transfers, balances."""
    spec = ServiceSpec(f"bank.business.{number}", "rmi_bank:run_business", (number,))
    run_by_hand(spec, loaded.settings)


@click.command(short_help="Run a facade: it hands each message to a logger.")
@click.option(
    "--id", "number", type=WholeRange(1, 999_999), default=1, help="Its number. [default: 1]"
)
@with_settings(*_LOGGED, *_MESSAGES)
def facade(loaded: Loaded, number: int) -> None:
    """Run a facade: it hands each message to a logger, and reads from them."""
    spec = ServiceSpec(f"msg.facade.{number}", "rmi_msg:run_facade", (number,))
    run_by_hand(spec, loaded.settings)


@click.command()
@number
@with_settings(*_LOGGED, *_MESSAGES, *_CLUSTER)
def logger(loaded: Loaded, number: int) -> None:
    """Run a logger: it keeps messages in the shared store."""
    spec = ServiceSpec(f"msg.logger.{number}", "rmi_msg:run_logger", (number,))
    run_by_hand(spec, loaded.settings)


@click.command()
@number
@with_settings(*_LOGGED, *_MESSAGES, *_CLUSTER)
def messages(loaded: Loaded, number: int) -> None:
    """Run a messages service: it consumes the queue."""
    spec = ServiceSpec(f"msg.messages.{number}", "rmi_msg:run_messages", (number,))
    run_by_hand(spec, loaded.settings)


@click.command()
@with_settings(
    *_COMMON, "http", "gateway_workers", "call_timeout_s", "body_size_bytes_max", "queue_max"
)
def gateway(loaded: Loaded) -> None:
    """Run the HTTP gateway to the bank and the messages."""
    run_by_hand(ServiceSpec(GATEWAY, "rmi_msg:run_gateway"), loaded.settings)


def run_by_hand(spec: ServiceSpec, settings: Settings) -> None:
    """Run one service until SIGINT, SIGTERM or SIGHUP; print a line once it is ready.

    Args:
        spec: which service.
        settings: handed to it.
    """
    data_dir.prepare(settings.data_dir)
    log_to_stderr(settings.log_level)
    module, _, function = spec.target.partition(":")
    service = getattr(importlib.import_module(module), function)
    with (
        _told_when_ready() as ready_fd,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            runner.run(_serve(service(settings, *spec.args), spec.name, settings, ready_fd))
        except Unavailable as error:  # it is the service itself that cannot be there
            raise StartFailed(error.message, service=spec.name) from None


@contextlib.contextmanager
def _told_when_ready() -> Iterator[int | None]:
    """Let the service say that it is ready to us, unless somebody outside waits for that."""
    if "RMI_READY_FD" in os.environ:
        yield None
        return
    ready_fd, write_fd = os.pipe()
    os.environ["RMI_READY_FD"] = str(write_fd)
    try:
        yield ready_fd
    finally:
        os.close(ready_fd)


async def _serve(
    service: Coroutine[Any, Any, None], name: str, settings: Settings, ready_fd: int | None
) -> None:
    if ready_fd is None:
        await service
        return
    loop = asyncio.get_running_loop()

    delay = asyncio.create_task(_tell_delay(name, settings))

    def on_ready(fd: int) -> None:
        loop.remove_reader(fd)
        delay.cancel()
        said = json.loads(os.read(fd, READY_SIZE_BYTES_MAX) or "{}")
        say(f"{name} ready at {said.get('location', '')}")

    loop.add_reader(ready_fd, on_ready, ready_fd)
    try:
        await service
    finally:
        delay.cancel()
        loop.remove_reader(ready_fd)


async def _tell_delay(name: str, settings: Settings) -> None:
    """After a while, say what the service waits for."""
    await asyncio.sleep(DELAY_TOLD_S)
    where = " or ".join(settings.ns)
    says = f"waits for a name server at {where}; is one running?"
    with contextlib.suppress(RmiError):
        tls = load_tls(settings)
        async with NameServers(settings.ns, ssl=tls.client if tls else None) as name_servers:
            await name_servers.find(name)
        says = f"is not ready, though a name server answers at {where}: its store may take long"
    click.echo(f"{name} {says}", err=True)

"""The running system, as a command finds it and asks it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any, TypeVar

from rmi_launch.data_dir import read_running, runner
from rmi_launch.failures import NotRunning
from rmi_runtime import Loaded, NameServers, Proxy, load_or_create_cluster_key, load_tls
from rmi_runtime.errors import Indefinite, NotFound, Unavailable

Result = TypeVar("Result")

ASK_TIMEOUT_S = 5.0
"""How long an administrative call may take."""


@dataclass(frozen=True)
class System:
    """Where the system is, and how to speak to it as one of its services.

    Args:
        ns: addresses of the name servers.
        http: address of the gateway.
        handshake: handshake data that shows the cluster key.
        services: what ``rmi up`` last wrote of its services (see ``data_dir.write_running``).
        ssl: client context for TLS, or None.
        advice: what to do if it does not answer.
    """

    ns: tuple[str, ...]
    http: str
    handshake: dict[str, str] = field(repr=False)
    services: tuple[dict[str, Any], ...] = ()
    ssl: SSLContext | None = None
    advice: str = "start the system with `rmi up`"


def find_system(loaded: Loaded, *, as_anybody: bool = False) -> System:
    """Find the system of a data directory.

    Addresses and certificates that were set anywhere are taken as they are; others come from the
    ``rmi up`` that runs on the data directory, so that they need not be repeated.

    Args:
        loaded: the settings in force.
        as_anybody: go without the cluster key if there is none and a name server was set.

    Raises:
        NotRunning: nothing was ever started on that data directory.
    """
    settings = loaded.settings
    has_key = (settings.data_dir / "cluster.key").exists()
    if not has_key and not (as_anybody and loaded.sources["ns"] != "default"):
        raise NotRunning(
            f"nothing was ever started on data directory {settings.data_dir}; "
            "start the system with `rmi up`, or name its directory with --data-dir"
        )
    pid = runner(settings.data_dir)
    running = {} if pid is None else read_running(settings.data_dir) or {}
    ns, http = settings.ns, settings.http
    if loaded.sources["ns"] == "default":
        ns = tuple(running.get("ns", ns))
    if loaded.sources["http"] == "default":
        http = running.get("http", http)
    key = {"cluster_key": load_or_create_cluster_key(settings.data_dir)} if has_key else {}
    if not settings.tls and (paths := running.get("tls")):
        settings = dataclasses.replace(settings, **paths)
    tls = load_tls(settings)
    services = tuple(running.get("services", ()))
    found = System(ns, http, key, services, tls.client if tls else None)
    if pid is not None:
        found = dataclasses.replace(found, advice=_advice(settings.data_dir, pid, bool(running)))
    return found


def _advice(data_dir: Path, pid: int, is_known: bool) -> str:
    """Return what to do if a system does not answer although ``rmi up`` runs, as process *pid*."""
    runs = f"`rmi up` runs on data directory {data_dir} (process {pid})"
    if is_known:
        return f"{runs}: `rmi status` tells how its services are"
    return (
        f"{runs}, and has not written yet where, or its running.json was removed: try again, name "
        "its addresses with --ns (and --http), or stop it and start it again"
    )


@contextlib.asynccontextmanager
async def data_object(system: System) -> AsyncIterator[Proxy]:
    """Yield a proxy of the data object, with a service's rights.

    Raises:
        NotRunning: it cannot be reached.
    """
    async with NameServers(system.ns, handshake=system.handshake, ssl=system.ssl) as name_servers:
        try:
            uri = await name_servers.lookup("bank.data")
            proxy = Proxy(uri, handshake=system.handshake, timeout_s=ASK_TIMEOUT_S, ssl=system.ssl)
            await proxy._bind()
        except (NotFound, Unavailable) as error:
            raise NotRunning(
                f"the data object cannot be reached ({error.message}); {system.advice}"
            ) from None
        async with proxy:
            yield proxy


def ask(system: System, question: Callable[[Proxy], Coroutine[Any, Any, Result]]) -> Result:
    """Put one question to the data object, from a plain function.

    Args:
        system: where it is.
        question: coroutine function that gets the data object's proxy.

    Returns:
        What *question* returns.

    Raises:
        NotRunning: the data object cannot be reached.
        Indefinite: no answer came, so that nobody knows; it says where to look.
    """

    async def put() -> Result:
        async with data_object(system) as data:
            try:
                return await question(data)
            except Indefinite as error:
                raise type(error)(
                    f"{error.message}; what was asked for may have been done: see `rmi account "
                    "list` or `rmi token list` before you ask again"
                ) from error

    return asyncio.run(put())

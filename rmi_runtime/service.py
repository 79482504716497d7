"""The life of a service process: bind, build, announce, serve, drain, leave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from Pyro5.errors import PyroError

from rmi_runtime.credentials.authenticator import (
    Identify,
    ServiceAuthenticator,
    load_or_create_cluster_key,
)
from rmi_runtime.credentials.tls import load_tls
from rmi_runtime.daemon.daemon import Daemon
from rmi_runtime.errors import Conflict, RmiError
from rmi_runtime.files.log_files import LogLimits
from rmi_runtime.limits import DaemonLimits, kept_bytes_max
from rmi_runtime.proxy.proxy import Proxy
from rmi_runtime.registry.client import Announcer, NameServers
from rmi_runtime.settings.settings import Settings, check_reachable

log = logging.getLogger(__name__)

_MIB = 1024 * 1024

READY_VARIABLE = "RMI_READY_FD"

ANSWER_S = 1.0
"""How long another service of the same name may take to show that it is there."""

TROUBLE = "trouble"
"""Under this name a service tells in its daemon's ``stats()``, in a sentence, why it cannot do its
work although it answers: see :meth:`ServiceContext.tell`."""

COLLECT_AFTER = 20_000
"""Python's cycle collector runs when this many more containers were made than freed (its default:
700). What a request leaves behind is freed without it, and its visits are a twelfth of the time."""


class ServiceContext:
    """What a service may use while it is built and while it lives.

    Args:
        name: its Pyro name.
        settings: the settings in force.
        cluster_key: what services show each other.

    Attributes:
        daemon: where its object will be registered; it does not answer yet during the build.
        tls: the contexts for TLS, or None.
        name_servers: to find other services; :class:`Endpoints` take their TLS from it.
        cluster_handshake: handshake data for proxies of other services.
        log_path: file for its operation log; the directory exists.
        log_limits: bounds of that log.
        before_leaving: awaited when the service is told to stop, while it goes on as if it had not
            been told; must have a bound, well below ``stop_wait_s``.
        before_drain: called when the service stops, before it waits for the calls under way: lets
            those end that wait for other calls, which from now on are refused.

    Raises:
        SettingsError: others would be told of an address that they cannot reach.
        TlsUnusable: the certificate, its key or the CA cannot be used.
    """

    def __init__(self, name: str, settings: Settings, cluster_key: str) -> None:
        check_reachable(settings)
        self.name = name
        self.settings = settings
        self.cluster_handshake: dict[str, str] = {"cluster_key": cluster_key}
        self.tls = load_tls(settings)
        self._authenticator = ServiceAuthenticator(cluster_key)
        self.daemon = Daemon(
            settings.host,
            authenticate=self._authenticator,
            ssl=self.tls.server if self.tls else None,
            limits=DaemonLimits(
                message_size_bytes_max=(size := settings.message_size_bytes_max),
                inflight_size_bytes_max=kept_bytes_max(size),
                halves_size_bytes_max=kept_bytes_max(size),
            ),
            insecure=settings.insecure,
        )
        self.name_servers = NameServers(
            settings.ns,
            handshake=self.cluster_handshake,
            ssl=self.tls.client if self.tls else None,
        )
        logs = Path(settings.data_dir) / "log"
        logs.mkdir(parents=True, exist_ok=True)
        self.log_path = logs / f"{name}.log"
        self.log_limits = LogLimits(settings.log_size_mib_max * _MIB, settings.log_files_max)
        self.before_leaving: Callable[[], Awaitable[None]] = _at_once
        self.before_drain: Callable[[], object] = lambda: None

    def tell(self, name: str, note: Callable[[], object]) -> None:
        """Add something to what the daemon tells of itself in ``stats()``.

        Args:
            name: under which it is told; none of those that ``stats()`` has.
            note: returns it, as a plain value, or None if there is nothing to tell; called
                whenever somebody asks, so it must not block.
        """
        self.daemon.daemon_object.notes[name] = note

    async def refuse_second(self) -> None:
        """Refuse to start beside a service of this name that answers.

        For services of which there may be one only, such as the owner of the books: started with
        another data directory it would take the name, and clients would find other books.

        Raises:
            Conflict: there is one; it says where.
        """
        try:
            uri = await self.name_servers.find(self.name)
            if uri is None:
                return
            options: dict[str, Any] = {"handshake": self.cluster_handshake, "timeout_s": ANSWER_S}
            async with Proxy(uri, ssl=self.name_servers.ssl, **options):
                pass
        except (RmiError, PyroError):
            return  # nobody is there, or nobody who answers: as after a crash
        raise Conflict(
            f"{self.name} runs already, at {uri.partition('@')[2]}, and there may be one only: "
            "stop that one first, or give this one other name servers (--ns)",
            name=self.name,
        )

    @property
    def identify(self) -> Identify | None:
        """How to find who a client's token belongs to; None: clients' tokens are refused."""
        return self._authenticator.identify

    @identify.setter
    def identify(self, identify: Identify | None) -> None:
        self._authenticator.identify = identify


Build = Callable[[ServiceContext], AbstractAsyncContextManager[object]]


async def run_service(
    name: str,
    build: Build,
    settings: Settings,
    *,
    tags: Iterable[str] = (),
    stop: asyncio.Event | None = None,
) -> None:
    """Run one service until it is told to stop.

    Args:
        name: its Pyro name, such as ``bank.business.1``.
        build: makes the Pyro object, as an async context manager that cleans up after it.
        settings: the settings in force.
        tags: metadata for the name server, besides ``rmi`` and ``rmi.<kind>``.
        stop: set it to stop the service. None: SIGTERM, SIGINT and SIGHUP stop it.

    Raises:
        Exception: whatever prevents the service from starting.
    """
    stopping = stop if stop is not None else stop_on_signals()
    context = ServiceContext(name, settings, load_or_create_cluster_key(settings.data_dir))
    async with cancelled_by(stopping) as built, contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(context.name_servers.aclose)
        stack.push_async_callback(context.daemon.close)
        served = await stack.enter_async_context(build(context))
        built()
        uri = str(context.daemon.register(served, name))
        await stack.enter_async_context(_serving(context, uri, tags, stopping))
        await stopping.wait()
        await context.before_leaving()
        log.info("%s is stopping", name)


@contextlib.asynccontextmanager
async def _serving(
    context: ServiceContext, uri: str, tags: Iterable[str], stopping: asyncio.Event
) -> AsyncIterator[None]:
    """Answer and be announced; on the way out leave the name servers first, then drain."""
    await context.daemon.start()
    announcer = Announcer(
        context.name_servers,
        context.name,
        uri,
        metadata={"rmi", f"rmi.{_kind(context.name)}", *tags},
        lease_s=context.settings.lease_s,
    )
    try:
        async with announcer:
            await _first_of(announcer.announced, stopping)
            if announcer.announced.is_set():
                collect_rarely()
                signal_ready(context.name, {"location": context.daemon.location, "uri": uri})
                log.info("%s is ready at %s", context.name, context.daemon.location)
            yield
            await announcer.drain()
            context.before_drain()
            drained = await context.daemon.drain(context.settings.stop_wait_s)
            if not drained:
                log.warning("%s gives up calls that did not finish in time", context.name)
    finally:
        await context.daemon.close()


async def _at_once() -> None:
    """Wait for nothing."""


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _kind(name: str) -> str:
    """Return what sort of service a Pyro name is of: ``business`` of ``bank.business.1``."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else name


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM, SIGINT and SIGHUP set, on the running loop.

    SIGHUP, the end of the terminal, is heeded unless it was ignored at the start (``nohup``).
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stopping.set)
    return stopping


@contextlib.asynccontextmanager
async def cancelled_by(stopping: asyncio.Event) -> AsyncIterator[Callable[[], object]]:
    """Cancel the block, without an error, if *stopping* is set before it says that all is built.

    What a service needs may be long in coming (a disk, a cluster), and who stops it meanwhile need
    not wait for that.

    Args:
        stopping: set when the service is told to stop.

    Yields:
        A function to call once all is built: from then on the block minds *stopping* itself.
    """
    block = asyncio.current_task()
    assert block is not None
    told = False

    async def watch() -> None:
        nonlocal told
        await stopping.wait()
        told = True
        block.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield watcher.cancel
    except asyncio.CancelledError:
        if not told or block.uncancel():
            raise
        log.info("told to stop before all was built")
    finally:
        watcher.cancel()


def collect_rarely() -> None:
    """Let the cycle collector pass over what is there now, and look at what comes less often.

    For a service that has been built: what it has made so far stays.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)


def signal_ready(name: str, detail: Mapping[str, Any]) -> None:
    """Tell whoever started this process that the service is ready.

    Writes one line of JSON, ``{"name": …, "pid": …, **detail}``, to the file descriptor that the
    environment variable ``RMI_READY_FD`` names; does nothing if there is none.
    """
    number = os.environ.get(READY_VARIABLE, "")
    if not (number.isascii() and number.isdigit()):
        return
    line = json.dumps({"name": name, "pid": os.getpid(), **detail}) + "\n"
    try:
        os.write(int(number), line.encode())
    except (OSError, ValueError, OverflowError) as error:  # or it can be no descriptor's number
        log.warning("nobody is listening for readiness: %s", error)

"""``rmi up``: the whole system, from one command to one Ctrl-C."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import signal
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from rmi_launch import data_dir
from rmi_launch.hazelcast import HAZELCAST_SETTINGS, prepare_store
from rmi_launch.options import OPERATION_LOG_SETTINGS, TLS_SETTINGS, tls_paths, with_settings
from rmi_launch.outputs import output_tail
from rmi_launch.plan import PRELOAD, check_gateways, plan_services
from rmi_launch.processes import END_WAIT_S, ZYGOTE, ZygoteProcess
from rmi_launch.supervisor import Service, StartFailed, State, Supervisor
from rmi_launch.up_view import UpView, make_view
from rmi_runtime import Loaded, Settings, load_tls, split_address
from rmi_runtime.errors import Conflict
from rmi_runtime.settings import check_reachable

ZYGOTE_EXTRA_S = 2.0
"""How much longer than a service's own grace the zygote waits, should ``rmi up`` be killed."""

WRITE_AGAIN_S = 0.5
"""Pause before running.json is written again, if it could not be."""


class AddressInUse(Conflict):
    """A port that the system is to listen on is taken. ``fields['address']`` is which."""

    code = "address_in_use"


@click.command()
@with_settings(
    "business",
    "loggers",
    "messages",
    "gateway_workers",
    "store",
    *HAZELCAST_SETTINGS,
    "http",
    "ns",
    "host",
    "data_dir",
    "demo",
    "restart",
    "insecure",
    *TLS_SETTINGS,
    "log_level",
    *OPERATION_LOG_SETTINGS,
)
def up(loaded: Loaded) -> None:
    """Start the whole system, and stop it on Ctrl-C."""
    began = time.monotonic()
    settings = loaded.settings
    check_gateways(settings)
    check_reachable(settings)
    settings = _absolute(settings)
    load_tls(settings)  # what is wrong with it is better said now than by every service
    log_dir = data_dir.prepare(settings.data_dir)
    grace_s = settings.stop_wait_s + ZYGOTE_EXTRA_S
    # By then the zygote of one that was killed has killed what did not end by itself.
    with data_dir.locked(settings.data_dir, grace_s + END_WAIT_S) as lock_fd:
        refuse_taken_addresses(settings)
        prepare_store(settings)
        with ZygoteProcess.start(PRELOAD, log_dir, grace_s, (lock_fd,)) as zygote:
            view = make_view(began)
            asyncio.run(_supervise(settings, zygote, log_dir, view))
            view.stopped()


def _absolute(settings: Settings) -> Settings:
    """Return *settings* with paths that mean the same from everywhere."""
    try:
        paths: dict[str, Any] = {"data_dir": settings.data_dir.absolute()}
        for name, path in tls_paths(settings).items():
            paths[name] = str(Path(path).absolute())
    except FileNotFoundError as error:
        error.add_note("the current directory")
        raise
    return dataclasses.replace(settings, **paths)


def refuse_taken_addresses(settings: Settings) -> None:
    """Raise AddressInUse if a fixed address is taken; better said now than by a dying service."""
    for flag, address in (("--ns", settings.ns[0]), ("--http", settings.http)):
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise AddressInUse(
                    f"{address} {_why_not(error.errno, error.strerror)} choose another address "
                    f"with {flag} (port 0 for any free one)",
                    address=address,
                ) from None


def _why_not(number: int | None, words: str | None) -> str:
    """Return why an address cannot be listened on, and what to do about it or else."""
    match number:
        case errno.EADDRINUSE:
            return "is already in use; stop what listens there, or"
        case errno.EACCES:
            return f"cannot be used: {words}; this port needs the administrator's rights:"
        case errno.EADDRNOTAVAIL:
            return f"cannot be used: {words}; this machine does not have that address:"
    return f"cannot be used: {words};"


async def _supervise(
    settings: Settings, zygote: ZygoteProcess, log_dir: Path, view: UpView
) -> None:
    await _Run(settings, zygote, log_dir, view).run()


class _Run:
    """One run of ``rmi up``, inside the event loop."""

    def __init__(
        self, settings: Settings, zygote: ZygoteProcess, log_dir: Path, view: UpView
    ) -> None:
        self._zygote = zygote
        self._log_dir = log_dir
        self._view = view
        self._stop = asyncio.Event()
        self._ready = False
        self._writing_again: asyncio.TimerHandle | None = None
        self._supervisor = Supervisor(
            plan_services(settings), settings, zygote, log_dir, self._on_change
        )

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup rmi up: it is to outlive the terminal.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal)
        self._zygote.attach()
        settings = self._supervisor.settings
        try:
            self._view.starting(len(self._supervisor.services), settings)
            if await self._first_of(self._supervisor.start()):
                self._ready = True
                self._tell_running()
                settings = self._supervisor.settings
                self._view.ready(settings, self._supervisor.services)
                await self._first_of(self._zygote.lost.wait())
                if self._zygote.lost.is_set() and not self._stop.is_set():
                    raise self._zygote_lost()
        finally:
            self._ready = False
            self._view.stopping()
            await self._supervisor.stop()
            data_dir.remove_running(settings.data_dir)
            self._zygote.detach()

    async def _first_of(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Wait for *work* or for the order to stop; True if *work* was done first."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            task.result()
            return not stop.done()
        finally:
            for one in (task, stop):
                one.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._supervisor.hurry()
        self._stop.set()

    def _on_change(self, service: Service) -> None:
        self._view.changed(service)
        if self._ready and service.state is not State.STARTING:
            self._tell_running()

    def _tell_running(self) -> None:
        """Write down who runs, and go on trying while the disk is full or fails.

        The services are looked after all the same: nobody may be left dead because of a file.
        """
        if self._writing_again is not None:
            self._writing_again.cancel()
            self._writing_again = None
        if not self._ready:
            return
        try:
            self._write_running()
        except OSError:
            loop = asyncio.get_running_loop()
            self._writing_again = loop.call_later(WRITE_AGAIN_S, self._tell_running)

    def _write_running(self) -> None:
        settings = self._supervisor.settings
        services = [
            {
                "name": service.name,
                "address": service.address,
                "pid": service.process.pid if service.process else None,
                "state": service.state.value,
                "restarts": service.restarts,
            }
            for service in self._supervisor.services
        ]
        running = {"pid": os.getpid(), "ns": list(settings.ns), "http": settings.http}
        running["tls"] = tls_paths(settings)
        data_dir.write_running(settings.data_dir, running | {"services": services})

    def _zygote_lost(self) -> StartFailed:
        tail = output_tail(self._log_dir, ZYGOTE, after_bytes=self._zygote.printed_bytes)
        return StartFailed(
            "the process that starts the services has ended, so no dead service could be started "
            f"again; everything is stopped. Its last words: {tail or 'none'}",
            service=ZYGOTE,
        )

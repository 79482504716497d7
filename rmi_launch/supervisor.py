"""Keeps a set of services running: starts them, waits until they are ready, starts the dead again,
and stops them all in order.

It decides nothing by waiting blindly: a service says that it is ready, and the zygote says that it
has ended. What happens is told to an observer, who shows it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from rmi_launch.backoff import Backoff
from rmi_launch.outputs import keep_bounded, output_size_bytes, output_tail
from rmi_launch.plan import NAMESERVER, ServiceSpec, is_gateway
from rmi_launch.processes import ZYGOTE, ServiceProcess, ZygoteProcess
from rmi_runtime import Settings
from rmi_runtime.errors import Definite

STOP_EXTRA_S = 1.0
"""A service may use all of ``stop_wait_s`` to drain, and needs a moment more to close."""

KILL_WAIT_S = 5.0
"""A killed process has ended after this; more means that the system is in trouble itself."""


class StartFailed(Definite):
    """A service could not be started. ``fields['service']`` names it."""

    code = "start_failed"


class State(Enum):
    """Where a service is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    DEAD = "dead"


@dataclass
class Service:
    """One service under supervision, over all its restarts.

    Attributes:
        spec: what to run.
        state: where it is now.
        process: its newest process, or None before the first.
        address: ``host:port`` it said when it was ready, or an empty text.
        restarts: how often it was started again.
        why: what happened last, for people.
        printed_bytes: size of its output before its newest process.
    """

    spec: ServiceSpec
    state: State = State.WAITING
    process: ServiceProcess | None = None
    address: str = ""
    restarts: int = 0
    why: str = ""
    printed_bytes: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    first_start: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def name(self) -> str:
        """The service's name."""
        return self.spec.name


Observer = Callable[[Service], None]


class Supervisor:
    """Runs groups of services.

    Args:
        groups: from first started to last started (see :func:`rmi_launch.plan.plan_services`).
        settings: handed to the services; ``restart``, ``start_wait_s``, ``stop_wait_s`` rule here.
        zygote: attached to the running event loop.
        log_dir: directory for the output of the services.
        observe: called at every change of a service's state.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[ServiceSpec]],
        settings: Settings,
        zygote: ZygoteProcess,
        log_dir: Path,
        observe: Observer = lambda service: None,
    ) -> None:
        self.settings = settings
        self._groups = [[Service(spec) for spec in group] for group in groups]
        self._zygote = zygote
        self._log_dir = log_dir
        self._observe = observe
        self._keepers: list[asyncio.Task[None]] = []
        self._outputs: asyncio.Task[None] | None = None
        self._stopping = False
        self._hurry = asyncio.Event()

    @property
    def services(self) -> list[Service]:
        """All services, in the order of their start."""
        return [service for group in self._groups for service in group]

    async def start(self) -> None:
        """Start everything; return when every service is ready.

        Raises:
            StartFailed: one ended, or was not ready in time. The others may be running: call
                :meth:`stop`.
        """
        names = [ZYGOTE, *(service.name for service in self.services)]
        self._outputs = asyncio.create_task(keep_bounded(self._log_dir, names))
        first, *others = self._groups
        await self._start(first)
        await self._start(service for group in others for service in group)

    async def _start(self, services: Iterable[Service]) -> None:
        starting = list(services)
        self._keepers += [asyncio.create_task(self._keep(service)) for service in starting]
        await asyncio.gather(*(service.first_start for service in starting))

    async def stop(self) -> None:
        """Stop all services, last started first, each group within ``stop_wait_s``; then kill."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for group in reversed(self._groups):
            await self._stop(group)
        if self._outputs:
            self._outputs.cancel()
            await asyncio.gather(self._outputs, return_exceptions=True)

    def hurry(self) -> None:
        """Stop waiting for anybody's grace: whoever still runs during :meth:`stop` is killed."""
        self._hurry.set()

    async def _stop(self, group: Sequence[Service]) -> None:
        ends: dict[asyncio.Future[int], Service] = {}
        for service in group:
            if service.process and not service.process.exited.done():
                service.process.signal(signal.SIGTERM)
                self._change(service, State.STOPPING, "asked to stop")
                ends[service.process.exited] = service
        left = await self._wait_for(ends, self.settings.stop_wait_s + STOP_EXTRA_S)
        for end in left:
            process = ends[end].process
            if process:
                process.signal(signal.SIGKILL)
        if left:
            await asyncio.wait(left, timeout=KILL_WAIT_S)
        for end, service in ends.items():
            why = "killed, it did not stop in time" if end in left else _how_ended(end.result())
            self._change(service, State.DEAD, why)

    async def _wait_for(
        self, ends: Iterable[asyncio.Future[int]], wait_s: float
    ) -> set[asyncio.Future[int]]:
        """Wait until all *ends* are done, the time is over, or there is hurry; return the rest."""
        deadline = time.monotonic() + wait_s
        hurry: asyncio.Task[Any] = asyncio.create_task(self._hurry.wait())
        left = set(ends)
        try:
            while left and not self._hurry.is_set() and time.monotonic() < deadline:
                await asyncio.wait(
                    {*left, hurry},
                    timeout=deadline - time.monotonic(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                left = {end for end in left if not end.done()}
        finally:
            hurry.cancel()
        return left

    async def _keep(self, service: Service) -> None:
        """Run *service* until the supervisor stops, over and over."""
        while True:
            ready_for_s = await self._live(service)
            self._change(service, State.DEAD, service.why)
            if not service.first_start.done():
                service.first_start.set_exception(self._start_failed(service))
                return
            if not self.settings.restart:
                return
            delay_s = service.backoff.delay_s(ready_for_s)
            self._change(service, State.WAITING, f"{service.why}; starts again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            service.restarts += 1

    async def _live(self, service: Service) -> float:
        """Run *service* once, from its start to its end; return how long it was ready, in s."""
        service.printed_bytes = output_size_bytes(self._log_dir, service.name)
        process = self._zygote.spawn(service.spec, self.settings, self._log_dir)
        service.process = process
        self._change(service, State.STARTING, "started")
        either: set[asyncio.Future[Any]] = {process.ready, process.exited}
        await asyncio.wait(
            either,
            timeout=self.settings.start_wait_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not process.ready.done():
            process.signal(signal.SIGKILL)
            await asyncio.shield(process.exited)
            service.why = f"not ready within {self.settings.start_wait_s:g} s"
            return 0.0
        since = time.monotonic()
        if not process.ready.cancelled():
            service.address = str(process.ready.result().get("location", ""))
            self._keep_port(service)
            self._change(service, State.READY, "ready")
            if not service.first_start.done():
                service.first_start.set_result(None)
        status = await asyncio.shield(process.exited)
        service.why = process.not_started or _how_ended(status)
        return 0.0 if process.ready.cancelled() else time.monotonic() - since

    def _keep_port(self, service: Service) -> None:
        """Settle a port that was "any free one": others must know it, and a restart keep it."""
        if service.name == NAMESERVER and service.address:
            ns = (service.address, *self.settings.ns[1:])
            self.settings = dataclasses.replace(self.settings, ns=ns)
        elif is_gateway(service.name) and service.address:
            self.settings = dataclasses.replace(self.settings, http=service.address)

    def _start_failed(self, service: Service) -> StartFailed:
        lost = self._zygote.lost.is_set()
        culprit = ZYGOTE if lost else service.name
        before_bytes = self._zygote.printed_bytes if lost else service.printed_bytes
        tail = output_tail(self._log_dir, culprit, after_bytes=before_bytes)
        path = self._log_dir / f"{culprit}.out"
        said = f"Its last words, from {path}:\n{tail}" if tail else f"It said nothing in {path}."
        if service.process is not None and service.process.not_started:
            said = ""
        return StartFailed(
            f"{service.name} did not start: {service.why}. {said}".rstrip(), service=service.name
        )

    def _change(self, service: Service, state: State, why: str) -> None:
        service.state = state
        service.why = why
        self._observe(service)


def _how_ended(status: int) -> str:
    """Say in words how a process ended."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"ended by {name}"
    return "ended" if status == 0 else f"ended with status {status}"

"""What surrounds a system that is to be tortured: its directory, and the means of its faults."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType

from rmi_msg.hazelcast.addresses import ports_taken
from rmi_runtime.errors import Unavailable
from rmi_torture import hook
from rmi_torture.faults.base import Fault
from rmi_torture.faults.hazelcast import KillMembers
from rmi_torture.faults.link import LinkFault
from rmi_torture.faults.machine import (
    ClockJump,
    DiskFull,
    PowerCut,
    may_mount,
    mount_small_disk,
    own_mounts,
    unmount,
)
from rmi_torture.faults.network import NetworkFault, NetworkProxy
from rmi_torture.faults.processes import Kill, Pause
from rmi_torture.namespaces import A, TwoHosts, why_no_relay
from rmi_torture.system_under_test import RunningSystem, SystemUnderTest
from rmi_torture.targets import KINDS, MEMBERS, NETWORK, TWO_HOSTS_KINDS
from rmi_torture.two_hosts import TwoHostsSystem

PORTS = range(17_701, 32_000, 10)
"""Where Hazelcast members may begin: below the ports that systems give out by themselves."""

_MEMBERS = 3


def missing_means(hosts: int = 1) -> dict[str, str]:
    """Return the kinds of faults that this machine has not the means for, and why.

    Args:
        hosts: on how many the system runs, 1 or 2.
    """
    if hosts == 2:
        missing = {
            kind: "is not to be had with --hosts 2" for kind in KINDS if kind not in TWO_HOSTS_KINDS
        }
        if why := why_no_relay():
            how = f"needs a TUN device ({why}); without --hosts 2, a TCP proxy does it"
            missing |= dict.fromkeys(("delay", "loss"), how)
        return missing
    missing = {}
    if not may_mount():
        missing["full"] = "needs root, to mount a disk of its own"
    return missing


def missing_java() -> str:
    """Say that Hazelcast members cannot run here, as there is no Java; nothing if there is."""
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") or (home and shutil.which("java", path=str(Path(home) / "bin"))):
        return ""
    return "needs Java, for Hazelcast members, and there is none"


def possible_kinds(store: str = "sqlite", hosts: int = 1) -> tuple[str, ...]:
    """Return all kinds of faults that this machine has the means for, with store and hosts."""
    missing = missing_means(hosts).keys() | (MEMBERS if store == "sqlite" else set())
    return tuple(kind for kind in KINDS if kind not in missing)


def free_ports() -> int:
    """Return the first of free ports for the members.

    Raises:
        Unavailable: there are none.
    """
    for first in PORTS:
        with ExitStack() as stack, contextlib.suppress(OSError):
            for port in ports_taken(first, _MEMBERS):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise Unavailable("there are no free ports for Hazelcast members")


async def _install_hazelcast(data_dir: Path) -> None:
    """Fetch Hazelcast, as a user does it.

    Raises:
        Unavailable: it cannot be had.
    """
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("rmi")), "hazelcast", "install"),
        *("--data-dir", str(data_dir)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        raise Unavailable(f"Hazelcast cannot be fetched: {said.decode(errors='replace')}")


class Surroundings:
    """The means of a run's faults; an async context manager.

    Args:
        out_dir: of the run; the system's own directory is ``data`` in it.
        kinds: of faults.
        seed: of what the means leave to chance.
        store: where messages are kept, ``sqlite`` or ``hazelcast``.
        bug: name of a planted bug, or nothing.
        backups: how many the Hazelcast cluster has of each entry when all is well.
        hosts: 1, or 2, which are network namespaces; then the harness itself is on host A.
    """

    def __init__(
        self,
        out_dir: Path,
        kinds: Sequence[str],
        seed: int,
        store: str = "sqlite",
        bug: str = "",
        backups: int = 2,
        hosts: int = 1,
    ) -> None:
        self._out_dir = out_dir
        self._data_dir = out_dir / "data"
        self._kinds = kinds
        self._seed = seed
        self._store = store
        self._bug = bug
        self._backups = backups
        self._hosts = TwoHosts(seed) if hosts == 2 else None
        self._stack = AsyncExitStack()
        self._proxy: NetworkProxy | None = None
        self._clock: ClockJump | None = None

    async def __aenter__(self) -> Surroundings:
        try:
            await self._prepare()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _prepare(self) -> None:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        if "full" in self._kinds:
            own_mounts()
            mount_small_disk(self._data_dir)
        if self._store == "hazelcast":
            await _install_hazelcast(self._data_dir)
        if "clock" in self._kinds:
            self._clock = ClockJump(self._out_dir / "clock", self._seed)
        if self._hosts is not None:
            self._stack.enter_context(self._hosts)
            if {"delay", "loss"} & set(self._kinds):
                self._hosts.start_relay()
            self._stack.enter_context(self._hosts.inside(A))
        elif NETWORK & set(self._kinds):
            self._proxy = await self._stack.enter_async_context(
                NetworkProxy(self._out_dir / "proxy.sock", self._seed)
            )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        if "full" in self._kinds:
            # The small disk is taken away again; what the services said is worth keeping.
            outputs = self._out_dir / "log"
            outputs.mkdir(exist_ok=True)
            for path in (self._data_dir / "log").glob("*.out*"):
                shutil.copy(path, outputs / path.name)
            unmount(self._data_dir)

    def system(
        self, environment: Mapping[str, str], arguments: Sequence[str] = ()
    ) -> SystemUnderTest | TwoHostsSystem:
        """Return the system, to be started."""
        if self._hosts is not None:
            return TwoHostsSystem(self._data_dir, self._hosts, environment)
        variables = dict(environment) | hook.environment(
            self._out_dir / "hook",
            bug=self._bug,
            proxy=None if self._proxy is None else self._proxy.path,
            clock=None if self._clock is None else self._out_dir / "clock",
            forgetful="power" in self._kinds,
        )
        if self._store == "hazelcast":
            # A name and ports of its own: it must not join anybody else's cluster.
            variables["RMI_HAZELCAST_CLUSTER"] = f"torture-{os.getpid()}"
            variables["RMI_HAZELCAST_PORT"] = str(free_ports())
            arguments = (*arguments, "--store", "hazelcast")
        return SystemUnderTest(self._data_dir, arguments, variables)

    def faults(self, system: RunningSystem) -> dict[str, Fault]:
        """Return the faults, by kind."""
        turn = asyncio.Lock()
        made: dict[str, Fault] = {
            "kill": Kill(system),
            "nameserver": Kill(system),
            "pause": Pause(system),
            "power": PowerCut(system),
            "full": DiskFull(self._data_dir),
            "member": KillMembers(self._data_dir, 1, self._seed, turn, self._backups),
            "members": KillMembers(self._data_dir, 2, self._seed, turn, self._backups),
        }
        if self._clock is not None:
            made["clock"] = self._clock
        if self._proxy is not None:
            made |= {kind: NetworkFault(self._proxy, kind) for kind in NETWORK}
        if self._hosts is not None:
            active: set[str] = set()
            made |= {kind: LinkFault(self._hosts, active, kind) for kind in NETWORK}
        return {kind: made[kind] for kind in self._kinds}

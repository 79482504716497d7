"""The system on two hosts: its services by hand, with mutual TLS, as ``docs/operations.md`` has it.

The harness takes the supervisor's part: it starts again whoever dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from rmi_runtime import client_context, load_or_create_cluster_key
from rmi_runtime.credentials.certificates import create_authority, create_certificate
from rmi_runtime.errors import Unavailable
from rmi_torture import belongings
from rmi_torture.namespaces import ADDRESSES, A, B, TwoHosts
from rmi_torture.system_under_test import RunningSystem, Service
from rmi_torture.targets import NAME_SERVER, ON_HOST

START_S = 60.0
STOP_S = 20.0
AGAIN_S = 0.5
STARTS_MAX = 3
"""How often a service may fail at the start of the system."""

_NS = f"{ADDRESSES[B]}:9090"
_HTTP = f"{ADDRESSES[A]}:8443"


def words_for(name: str) -> tuple[str, ...]:
    """Return the words after ``rmi`` that start a service: ``business --id 1``. Pure code."""
    if name == NAME_SERVER:
        return ("nameserver",)
    _, _, rest = name.partition(".")
    kind, _, number = (rest or name).partition(".")
    return (kind, "--id", number) if number else (kind,)


class TwoHostsSystem(RunningSystem):
    """Services on two hosts (:data:`rmi_torture.targets.ON_HOST`); an async context manager.

    Args:
        directory: gets a data directory for each host, and the certificates; must exist.
        hosts: made already.
        environment: more variables for all services.
    """

    def __init__(
        self, directory: Path, hosts: TwoHosts, environment: Mapping[str, str] | None = None
    ) -> None:
        self._directories = {host: directory / host for host in ADDRESSES}
        super().__init__(self._directories[B], environment or {})
        self.name_server = _NS
        self._certs = directory / "certs"
        self._hosts = hosts
        self._services = {name: Service(name, None, "starting", 0) for name in ON_HOST}
        self._keepers: list[asyncio.Task[None]] = []
        self._ending = False

    async def __aenter__(self) -> TwoHostsSystem:
        self._make_keys()
        try:
            self._keepers.append(asyncio.create_task(self._keep(NAME_SERVER)))
            await self._started(NAME_SERVER)
            others = [name for name in ON_HOST if name != NAME_SERVER]
            self._keepers += [asyncio.create_task(self._keep(name)) for name in others]
            for name in others:
                await self._started(name)
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None or not issubclass(kind, asyncio.CancelledError):
                await self._stop_gently()
        finally:
            await self.end()

    def _make_keys(self) -> None:
        """Make the CA and certificates, and give both hosts the cluster key."""
        now = datetime.now(UTC)
        create_authority(self._certs, now)
        for host, directory in self._directories.items():
            directory.mkdir(mode=0o700)
            create_certificate(self._certs, [ADDRESSES[host]], now)
        load_or_create_cluster_key(self._directories[B])
        shutil.copy(self._directories[B] / "cluster.key", self._directories[A])
        tls = self._tls(A)
        # The harness is on host A. With a cluster key it passes for a service, with a token it is
        # a client, and then nobody minds the certificate.
        self.ssl = client_context(tls["RMI_TLS_CA"], tls["RMI_TLS_CERT"], tls["RMI_TLS_KEY"])

    def _tls(self, host: str) -> dict[str, str]:
        files = {"CERT": f"{ADDRESSES[host]}.crt", "KEY": f"{ADDRESSES[host]}.key", "CA": "ca.crt"}
        return {f"RMI_TLS_{what}": str(self._certs / file) for what, file in files.items()}

    def _variables(self, host: str) -> dict[str, str]:
        settings = {
            "RMI_DATA_DIR": str(self._directories[host]),
            "RMI_HOST": ADDRESSES[host],
            "RMI_NS": _NS,
            "RMI_HTTP": _HTTP,
            "RMI_DEMO": "true",
            **self._tls(host),
        }
        return {**os.environ, **settings, **self._environment}

    async def _started(self, name: str) -> None:
        def decided() -> bool:
            service = self._services[name]
            return service.state == "ready" or service.restarts >= STARTS_MAX

        if not await self.until(decided, START_S) or self._services[name].state != "ready":
            said = "\n".join(self.output)
            raise Unavailable(f"{name} did not become ready; the services said:\n{said}")

    async def _keep(self, name: str) -> None:
        """Run a service, and start it again whenever it is dead, until the end."""
        for restarts in itertools.count():
            await self._run(name, restarts)
            self._services[name] = Service(name, None, "waiting", restarts + 1)
            if self._ending:
                break
            await asyncio.sleep(AGAIN_S)

    async def _run(self, name: str, restarts: int) -> None:
        rmi = str(Path(sys.executable).with_name("rmi"))
        host = ON_HOST[name]
        process = await asyncio.create_subprocess_exec(
            *self._hosts.command(host, rmi, *words_for(name)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._variables(host),
            start_new_session=True,
        )
        self._services[name] = Service(name, process.pid, "starting", restarts)
        assert process.stdout is not None
        async for line in process.stdout:
            if self._printed(line).startswith(f"{name} ready at "):
                self._services[name] = replace(self._services[name], state="ready")
        await process.wait()

    async def _stop_gently(self) -> None:
        """Ask all to end, and wait until they have."""
        self._ending = True
        self._let_go_on()
        for service in self._services.values():
            if service.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(service.pid, signal.SIGTERM)
        await asyncio.wait(self._keepers, timeout=STOP_S)

    async def end(self) -> None:
        """Kill whoever is left, at once."""
        self._ending = True
        for keeper in self._keepers:
            keeper.cancel()
        await belongings.end_all(self._mark)
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def url(self) -> str:
        """Return where the gateway is."""
        return f"https://{_HTTP}"

    def services(self) -> dict[str, Service]:
        """Return the services, by name."""
        return dict(self._services)

"""Two name servers in processes of their own; none, one or both of them are up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from Pyro5.core import URI
from Pyro5.server import expose

from rmi_runtime import (
    Announcer,
    Daemon,
    Endpoints,
    NameServers,
    Proxy,
    ServiceAuthenticator,
    errors,
    load_or_create_cluster_key,
)
from tests.integration.runtime.names import free_location
from tests.support import eventually

SCRIPT = """
import asyncio, sys
from pathlib import Path
from rmi_bank import run_nameserver
from rmi_runtime import Settings
asyncio.run(run_nameserver(Settings(data_dir=Path(sys.argv[1]), ns=(sys.argv[2],))))
"""
LEASE_S = 0.6


class NameServerProcess:
    """A name server that can be killed and started again, always at the same place."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.location = free_location()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; return when it is ready."""
        read_fd, write_fd = os.pipe()
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, str(self.data_dir), self.location),
            env={**os.environ, "RMI_READY_FD": str(write_fd)},
            pass_fds=[write_fd],
        )
        os.close(write_fd)
        with os.fdopen(read_fd) as pipe:
            json.loads(await asyncio.to_thread(pipe.readline))

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
        if self.process is not None:
            await self.process.wait()


@expose
class Number:
    """Tells its number."""

    def __init__(self, number: int) -> None:
        self.value = number

    def number(self) -> int:
        """Return it."""
        return self.value


class Cluster:
    """Two name servers, and services that announce themselves at both."""

    def __init__(self, servers: list[NameServerProcess], names: NameServers, key: str) -> None:
        self.servers = servers
        self.names = names
        self.key = key
        self.stack = AsyncExitStack()

    async def service(self, number: int) -> Announcer:
        """Start the service ``n.<number>``."""
        daemon = Daemon(authenticate=ServiceAuthenticator(self.key))
        uri = daemon.register(Number(number), f"n.{number}")
        await self.stack.enter_async_context(daemon)
        return await self.stack.enter_async_context(
            Announcer(self.names, f"n.{number}", uri, lease_s=LEASE_S)
        )

    async def known(self, server: NameServerProcess) -> set[str]:
        """Return the services that one name server knows."""
        async with NameServers([server.location]) as only:
            return set(await only.list("n."))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    servers = [NameServerProcess(tmp_path / name) for name in ("a", "b")]
    key = load_or_create_cluster_key(tmp_path / "a")
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b" / "cluster.key").touch(0o600)
    (tmp_path / "b" / "cluster.key").write_text(key)
    locations = [server.location for server in servers]
    async with NameServers(locations, handshake={"cluster_key": key}, timeout_s=1.0) as names:
        made = Cluster(servers, names, key)
        try:
            yield made
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(made.stack.aclose(), 10)
            for server in servers:
                await server.kill()


async def test_with_none_then_one_then_both_up_services_are_announced_and_found(
    cluster: Cluster,
) -> None:
    one, other = cluster.servers
    announcer = await cluster.service(1)
    with pytest.raises(errors.Unavailable, match="no name server answers"):
        await cluster.names.lookup("n.1")
    assert not announcer.announced.is_set()

    await other.start()
    await asyncio.wait_for(announcer.announced.wait(), 10)
    assert URI(await cluster.names.lookup("n.1")).object == "n.1"

    await one.start()
    await eventually(lambda: _knows(cluster, one, {"n.1"}))
    assert await cluster.known(other) == {"n.1"}


async def test_calls_go_on_with_one_and_with_none_and_new_services_come_when_one_is_back(
    cluster: Cluster,
) -> None:
    one, other = cluster.servers
    await asyncio.gather(one.start(), other.start())
    await cluster.service(1)
    handshake = {"cluster_key": cluster.key}
    async with Endpoints(cluster.names, "n.", handshake=handshake, refresh_s=0.05) as endpoints:
        assert await endpoints.call("number") == 1
        await one.kill()
        second = await cluster.service(2)
        await asyncio.wait_for(second.announced.wait(), 10)
        await eventually(lambda: len(endpoints.view()) == 2)

        await other.kill()
        third = await cluster.service(3)
        for _ in range(50):
            assert await endpoints.call("number") in (1, 2)
        assert not third.announced.is_set()

        await one.start()

        async def all_answer() -> bool:
            return {await endpoints.call("number") for _ in range(200)} == {1, 2, 3}

        await eventually(all_answer)


async def test_each_keeps_its_names_on_its_own_disk(cluster: Cluster) -> None:
    one, other = cluster.servers
    await asyncio.gather(one.start(), other.start())
    uri = "PYRO:lasting@127.0.0.1:1"
    await cluster.names.call_at(one.location, "register", "n.lasting", uri)
    await one.kill()
    with pytest.raises(errors.NotFound):
        await cluster.names.lookup("n.lasting")
    await one.start()
    await other.kill()
    assert await cluster.names.lookup("n.lasting") == uri


async def test_a_name_is_found_at_whichever_knows_it_and_that_none_does_is_no_error(
    cluster: Cluster,
) -> None:
    one, other = cluster.servers
    with pytest.raises(errors.Unavailable, match="no name server answers"):
        await cluster.names.find("n.1")
    await asyncio.gather(one.start(), other.start())
    uri = "PYRO:lasting@127.0.0.1:1"
    await cluster.names.call_at(other.location, "register", "n.12", uri)
    for _ in range(10):  # whichever is asked first
        assert await cluster.names.find("n.12") == uri
        assert await cluster.names.find("n.1") is None
    for server in cluster.servers:
        handshake = {"cluster_key": cluster.key}
        async with Proxy(f"PYRO:Pyro.Daemon@{server.location}", handshake=handshake) as daemon:
            assert (await daemon.stats())["errors"] == 0


async def _knows(cluster: Cluster, server: NameServerProcess, names: set[str]) -> bool:
    return await cluster.known(server) == names

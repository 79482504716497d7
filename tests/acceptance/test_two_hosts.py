"""Two hosts, which are network namespaces here, with mutual TLS; the name server of one dies.

The way is that of ``docs/operations.md``: certificates by ``rmi certs``, four files copied to the
second host, services by hand on both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.system import BIN, ROOT

A, B = "10.83.0.1", "10.83.0.2"
NAME_SERVER = f"{A}:9090"
GATEWAY = f"{B}:8443"
WAIT_S = 60.0


def ip(*arguments: str) -> None:
    """Run ``ip``, which must succeed."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def no_namespaces() -> str:
    """Return why there can be no network namespaces here, or nothing."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if shutil.which("ip") is None:
        return "network namespaces need the command ip (iproute2)"
    name = f"rmi-probe-{os.getpid()}"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if probe.returncode:
        return f"network namespaces are not to be had: {probe.stderr.decode().strip()}"
    try:
        probe = subprocess.run(
            ["ip", "-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1"],
            capture_output=True,
            check=False,
        )
    finally:
        ip("netns", "del", name)
    return f"no veth: {probe.stderr.decode().strip()}" if probe.returncode else ""


class Host:
    """A network namespace, a data directory, and the processes started there."""

    def __init__(self, name: str, address: str, data_dir: Path) -> None:
        self.namespace = f"rmi-{name}-{os.getpid()}"
        self.address = address
        self.data_dir = data_dir
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Settings of everything on this host."""
        certs = self.data_dir / "certs"
        settings = {
            "RMI_DATA_DIR": str(self.data_dir),
            "RMI_HOST": self.address,
            "RMI_NS": NAME_SERVER,
            "RMI_HTTP": GATEWAY,
            "RMI_TLS_CERT": str(certs / f"{self.address}.crt"),
            "RMI_TLS_KEY": str(certs / f"{self.address}.key"),
            "RMI_TLS_CA": str(certs / "ca.crt"),
        }
        return {**os.environ, **settings}

    def inside(self, *command: str) -> list[str]:
        """Return a command line that runs *command* on this host."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def output(self, name: str) -> str:
        """Return what a service has printed."""
        path = self.data_dir / f"{name}.printed"
        return path.read_text() if path.exists() else ""

    def start(self, *arguments: str) -> str:
        """Start a service by hand; return its name for :meth:`output` and :meth:`kill`."""
        name = "".join(arguments)
        with (self.data_dir / f"{name}.printed").open("wb") as out:
            self.processes[name] = subprocess.Popen(
                self.inside(str(BIN / "rmi"), *arguments),
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=ROOT,
            )
        return name

    def wait_for(self, name: str, words: str) -> None:
        """Wait until a service has printed *words*."""
        deadline = time.monotonic() + WAIT_S
        while words not in self.output(name):
            assert self.processes[name].poll() is None, self.output(name)
            assert time.monotonic() < deadline, f"{name}: {self.output(name)}"
            threading.Event().wait(0.05)

    def kill(self, name: str) -> None:
        """End a service at once."""
        self.processes[name].kill()
        self.processes[name].wait()

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command to its end; return what it printed."""
        done = subprocess.run(
            self.inside(*command),
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=ROOT,
            timeout=WAIT_S,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout if check else done.stdout + done.stderr

    def rmi(self, *arguments: str) -> str:
        """Run ``rmi``."""
        return self.run(str(BIN / "rmi"), *arguments)

    def python(self, script: str, *arguments: str, check: bool = True) -> str:
        """Run a Python script."""
        return self.run(sys.executable, "-c", textwrap.dedent(script), *arguments, check=check)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    if why := no_namespaces():
        pytest.skip(why)
    a, b = Host("a", A, tmp_path / "a"), Host("b", B, tmp_path / "b")
    made = []
    try:
        for host in (a, b):
            ip("netns", "add", host.namespace)
            made.append(host)
            host.data_dir.mkdir(mode=0o700)
        peer = ["peer", "name", "eth0", "netns", b.namespace]
        ip("-n", a.namespace, "link", "add", "eth0", "type", "veth", *peer)
        for host in (a, b):
            ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "brd", "+", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", host.namespace, "link", "set", link, "up")
            ip("-n", host.namespace, "route", "add", "default", "dev", "eth0")
        yield a, b
    finally:
        for host in made:
            for process in host.processes.values():
                process.kill()
                process.wait()
            ip("netns", "del", host.namespace)  # and the link with it


def share_keys(a: Host, b: Host) -> None:
    """Make the CA and certificates on the first host; copy what the second one needs."""
    a.rmi("certs", "create-ca")
    told = [a.rmi("certs", "host", host.address) for host in (a, b)][1]
    (b.data_dir / "certs").mkdir(mode=0o700)
    for line in told.splitlines():
        path = Path(line.strip())
        if line.startswith("  /") and path.is_file():
            shutil.copy(path, b.data_dir / path.relative_to(a.data_dir))  # with its mode
    assert sorted(path.name for path in b.data_dir.rglob("*.*")) == [
        *(f"{B}.crt", f"{B}.key", "ca.crt", "cluster.key")
    ]


TRANSFER = """
import asyncio, json, sys
from rmi_bank import BankClient
from rmi_runtime import client_context

async def main(name_server, ca, token):
    async with BankClient([name_server], token=token, ssl=client_context(ca)) as bank:
        for _ in range(20):
            await bank.transfer(1, 2, 1)
        print(json.dumps([await bank.balance(1), await bank.balance(2)]))

asyncio.run(main(*sys.argv[1:]))
"""

# A gateway client that goes on until its input ends, and then says what came of it.
GO_ON = """
import json, ssl, sys, threading
import httpx

url, ca, token = sys.argv[1:]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
statuses = []
with httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=ca)) as http:
    http.headers["Authorization"] = f"Bearer {token}"
    while not ended.is_set() or len(statuses) < 100:
        body = {"source": 2, "target": 1, "amount": 1}
        statuses.append(http.post("/bank/transfers", json=body, timeout=20).status_code)
        if len(statuses) == 10:
            print("going on", flush=True)
print(json.dumps(statuses), flush=True)
"""

STOCK = """
import sys
import Pyro5.api

ca, token = sys.argv[1:]
Pyro5.config.SSL = True
Pyro5.config.SSL_CACERTS = ca
Pyro5.config.NS_HOST = "10.83.0.9"  # nobody's: the name server is found by broadcast
with Pyro5.api.locate_ns() as names:
    uri = names.lookup("bank.business.1")
with Pyro5.api.Proxy(uri) as bank:
    bank._pyroHandshake = {"token": token}
    print(uri.host, bank.balance(1)["account"])
"""

STRANGER = """
import asyncio, sys
from pathlib import Path
from rmi_runtime import NameServers, client_context, errors

name_server, ca, key = sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_text().strip()

async def main():
    for ssl in (None, client_context(ca)):
        handshake = {"cluster_key": key}
        async with NameServers([name_server], handshake=handshake, ssl=ssl) as names:
            try:
                await names.call_at(name_server, "register", "x", "PYRO:x@10.83.0.2:1")
                print("registered")
            except errors.RmiError as error:
                print(type(error).__name__)

asyncio.run(main())
"""


def start_all(a: Host, b: Host) -> str:
    """Start the system on both hosts; return the name of the name server's process."""
    name_server = a.start("nameserver")
    a.wait_for(name_server, "ready at")
    started = [
        *((a, a.start(*words)) for words in (["data"], ["business", "--id", "1"])),
        *(
            (b, b.start(*words))
            for words in (
                ["business", "--id", "2"],
                ["logger", "--id", "1"],
                ["facade"],
                ["messages", "--id", "1"],
                ["gateway"],
            )
        ),
    ]
    for host, name in started:
        host.wait_for(name, "ready at")
    return name_server


def states(host: Host) -> dict[str, str]:
    """Return the state of every service, as *host* sees it."""
    found: list[dict[str, Any]] = json.loads(host.rmi("status", "--json"))
    return {row["name"]: row["state"] for row in found}


@pytest.mark.timeout(240)
def test_calls_go_on_without_the_name_server_and_a_new_service_comes_when_it_is_back(
    hosts: tuple[Host, Host],
) -> None:
    a, b = hosts
    share_keys(a, b)
    name_server = start_all(a, b)
    for number in ("1", "2"):
        b.rmi("account", "create", number, "--balance", "1000000")
    token = b.rmi("token", "create", "--client", "1", "--quiet").strip()
    ca = str(b.data_dir / "certs" / "ca.crt")
    assert set(states(b).values()) == {"ready"}

    # Clients on the other host: ours by the private CA and a token, a stock one by broadcast.
    assert json.loads(b.python(TRANSFER, NAME_SERVER, ca, token)) == [999_980, 1_000_020]
    assert b.python(STOCK, ca, token).split() == [A, "1"]
    key = str(b.data_dir / "cluster.key")
    assert b.python(STRANGER, NAME_SERVER, ca, key).split() == ["Unavailable", "Forbidden"]

    client = subprocess.Popen(
        b.inside(sys.executable, "-c", GO_ON, f"https://{GATEWAY}", ca, token),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "going on\n"
        a.kill(name_server)
        third = b.start("business", "--id", "3")
        b.wait_for(third, "waits for a name server")
        output, _ = client.communicate(timeout=WAIT_S)
    finally:
        client.kill()
        client.wait()
    statuses = json.loads(output)
    assert set(statuses) == {201}
    assert len(statuses) >= 100

    a.wait_for(a.start("nameserver"), "ready at")
    b.wait_for(third, "ready at")
    assert states(b)["bank.business.3"] == "ready"
    balances = [row["balance"] for row in json.loads(a.rmi("account", "list", "--json"))]
    assert sum(balances) == 2_000_000
    assert balances[0] == 999_980 + len(statuses)

"""Daemons in processes of their own, stock and ours, and a crowd of idle clients.

``python -m tests.integration.runtime.servers ours`` prints its URI and serves until it is killed.
Settings of a stock daemon come from ``PYRO_…`` variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import resource
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import Pyro5.api
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rmi_runtime import Daemon, expose
from tests.raw_client import RawClient
from tests.support import eventually


@expose
class Target:
    """What is attacked. It does the same on both sides, each in its own way."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._applied: dict[str, int] = {}
        self._gate: Any = threading.Event()

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value

    def leave(self) -> None:
        """Try to end the process."""
        raise SystemExit(1)

    def look_at(self, value: Any) -> str:
        """Touch an argument, as any method may."""
        return str(getattr(value, "name", "no name") is not None)

    def wait(self) -> None:
        """Wait until :meth:`release` is called."""
        self._gate.wait(60)

    def release(self) -> None:
        """Let the waiting go on."""
        self._gate.set()

    def slowly(self, key: str, seconds: float) -> None:
        """Count a call, then take some time."""
        self._counts[key] = self._counts.get(key, 0) + 1
        time.sleep(seconds)

    def count(self, key: str) -> int:
        """Return how often :meth:`slowly` was called."""
        return self._counts.get(key, 0)

    def add_once(self, key: str, amount: int, request_id: str) -> int:
        """Add to a sum, once for each request id; return the sum."""
        if request_id not in self._applied:
            self._counts[key] = self._counts.get(key, 0) + amount
            self._applied[request_id] = self._counts[key]
        return self._applied[request_id]


@expose
class AsyncTarget(Target):
    """The same with coroutines where it waits."""

    async def wait(self) -> None:  # type: ignore[override]
        """Wait until :meth:`release` is called."""
        await eventually(self._gate.is_set, timeout_s=60)

    async def slowly(self, key: str, seconds: float) -> None:  # type: ignore[override]
        """Count a call, then take some time."""
        self._counts[key] = self._counts.get(key, 0) + 1
        await asyncio.sleep(seconds)


def server_context(directory: str) -> ssl.SSLContext:
    """Return a TLS context with the certificate made by :func:`make_certificate`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")
    return context


async def _serve_ours(directory: str | None) -> None:
    context = server_context(directory) if directory else None
    async with Daemon(ssl=context) as daemon:
        print(daemon.register(AsyncTarget(), "target"), flush=True)
        await asyncio.Event().wait()


def _hold(address: str, count: int) -> None:
    """Open idle, greeted connections and hold them until standard input ends."""
    host, _, port = address.rpartition(":")
    held = [RawClient((host, int(port))) for _ in range(count)]
    print(f"holding {len(held)}", flush=True)
    sys.stdin.read()


def main(kind: str, argument: str | None, count: str | None) -> None:
    """Serve for ever."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if kind == "hold" and argument and count:
        _hold(argument, int(count))
    elif kind == "ours":
        asyncio.run(_serve_ours(argument))
    else:
        _serve_stock(argument)


def _serve_stock(directory: str | None) -> None:
    if directory:
        Pyro5.config.SSL = True
        Pyro5.config.SSL_SERVERCERT = f"{directory}/cert.pem"
        Pyro5.config.SSL_SERVERKEY = f"{directory}/key.pem"
    daemon = Pyro5.api.Daemon()
    print(daemon.register(Target(), "target"), flush=True)
    daemon.requestLoop()


@contextlib.contextmanager
def idle_clients(server: Server, count: int) -> Iterator[str]:
    """Hold so many greeted connections in another process; yields what it says."""
    host, port = server.address
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, "hold", f"{host}:{port}", str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def make_certificate(directory: Path) -> None:
    """Write ``cert.pem`` and ``key.pem`` for 127.0.0.1, signed by themselves."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Server:
    """A daemon's process.

    Attributes:
        uri: of its object.
        address: of its socket.
    """

    def __init__(self, process: subprocess.Popen[str], uri: str) -> None:
        self.process = process
        self.uri = uri
        host, _, port = uri.partition("@")[2].rpartition(":")
        self.address = (host, int(port))

    def memory_peak_bytes(self) -> int:
        """Return the most memory it ever had resident."""
        return self._status("VmHWM") * 1024

    def threads(self) -> int:
        """Return how many threads it has."""
        return self._status("Threads")

    def _status(self, field: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition(f"{field}:")[2].split()[0])


@contextlib.contextmanager
def serving(kind: str, tls: Path | None = None, **settings: str) -> Iterator[Server]:
    """Run a daemon: ``ours`` or ``stock``; *settings* are Pyro's, such as ``SERVERTYPE``."""
    arguments = [kind, *([str(tls)] if tls else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.runtime.servers", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **{f"PYRO_{name}": value for name, value in settings.items()}},
    )
    try:
        assert process.stdout is not None
        yield Server(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


if __name__ == "__main__":
    main(*[*sys.argv[1:], None, None][:3])  # type: ignore[arg-type]

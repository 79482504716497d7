"""Many who never finish their TLS handshake, and one who does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from Pyro5.server import expose

from rmi_runtime import (
    Daemon,
    DaemonLimits,
    Proxy,
    SyncProxy,
    client_context,
    errors,
    server_context,
)
from rmi_runtime.credentials import tls
from rmi_runtime.daemon import tls_listener
from rmi_runtime.daemon.faults import NEWCOMER_HOLD_S_MAX
from tests.processes import descriptors
from tests.support import eventually

WAITING_MAX = 32
CROWD = 200


@expose
class Echo:
    """Answers."""

    def echo(self, text: str) -> str:
        """Return *text*."""
        return text


@contextlib.asynccontextmanager
async def serving(certs: Path, limits: DaemonLimits | None = None) -> AsyncIterator[Daemon]:
    context = server_context(certs / "localhost.crt", certs / "localhost.key", certs / "ca.crt")
    async with Daemon(ssl=context, limits=limits) as daemon:
        daemon.register(Echo(), "echo")
        yield daemon


@pytest.fixture
async def daemon(certs: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    monkeypatch.setattr(
        tls_listener.TlsListener.__init__, "__kwdefaults__", {"waiting_max": WAITING_MAX}
    )
    async with serving(certs) as made:
        yield made


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


def connect(daemon: Daemon) -> socket.socket:
    host, _, port = daemon.location.rpartition(":")
    sock = socket.create_connection((host, int(port)))
    sock.setblocking(False)
    return sock


async def call(daemon: Daemon, certs: Path) -> str:
    ssl = client_context(certs / "ca.crt")
    async with Proxy(f"PYRO:echo@{daemon.location}", ssl=ssl, timeout_s=5) as proxy:
        return str(await proxy.echo("here"))


def waiting(daemon: Daemon) -> int:
    assert isinstance(daemon._server, tls_listener.TlsListener)
    return daemon._server.waiting


async def test_silent_sockets_are_so_many_and_the_newest(
    daemon: Daemon, crowd: list[socket.socket]
) -> None:
    before = descriptors()
    for _ in range(CROWD):
        crowd.append(connect(daemon))
        await asyncio.sleep(0)

    def cut_off(sock: socket.socket) -> bool:
        try:
            return sock.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    await eventually(lambda: sum(map(cut_off, crowd)) == CROWD - WAITING_MAX)
    assert waiting(daemon) == WAITING_MAX
    assert not any(map(cut_off, crowd[-WAITING_MAX:]))
    assert descriptors() <= before + CROWD + WAITING_MAX + 4


async def test_who_shakes_hands_gets_through_the_crowd(
    daemon: Daemon, certs: Path, crowd: list[socket.socket]
) -> None:
    for _ in range(10):
        for _ in range(CROWD // 10):
            crowd.append(connect(daemon))
        assert await call(daemon, certs) == "here"


async def test_half_a_handshake_counts_as_none(
    daemon: Daemon, certs: Path, crowd: list[socket.socket]
) -> None:
    for _ in range(CROWD):
        crowd.append(connect(daemon))
        crowd[-1].send(b"\x16\x03\x01\x02\x00\x01")
    await eventually(lambda: waiting(daemon) == WAITING_MAX)
    assert await call(daemon, certs) == "here"


async def test_a_handshake_has_its_time(certs: Path, crowd: list[socket.socket]) -> None:
    async with serving(certs, DaemonLimits(handshake_s=0.2)) as daemon:
        crowd.append(connect(daemon))
        await eventually(lambda: waiting(daemon) == 1)
        await eventually(lambda: waiting(daemon) == 0)
        assert daemon.stats()["refusals"] == 1


async def fail_to_shake_hands(daemon: Daemon) -> None:
    before = daemon.stats()["refusals"]
    with connect(daemon) as sock:
        sock.send(b"GET / HTTP/1.1\r\n\r\n")
        await eventually(lambda: daemon.stats()["refusals"] > before)


async def test_whoever_fails_often_waits_before_the_next_handshake(certs: Path) -> None:
    limits = DaemonLimits(faults_per_s=1.0, faults_burst=2)
    async with serving(certs, limits) as daemon:
        for _ in range(limits.faults_burst + 1):
            await fail_to_shake_hands(daemon)
        began_s = time.monotonic()
        assert await call(daemon, certs) == "here"
        assert time.monotonic() - began_s >= NEWCOMER_HOLD_S_MAX


async def test_handshakes_that_fail_now_and_then_cost_no_wait(certs: Path) -> None:
    async with serving(certs) as daemon:
        await fail_to_shake_hands(daemon)
        assert daemon.faults.newcomer_wait_s("127.0.0.1", time.monotonic()) == 0
        assert await call(daemon, certs) == "here"


async def test_whoever_makes_way_while_it_waits_is_hung_up_on(certs: Path) -> None:
    async with serving(certs, DaemonLimits(faults_per_s=0.001, faults_burst=1)) as daemon:
        for _ in range(2):
            await fail_to_shake_hands(daemon)
        sock = connect(daemon)
        await eventually(lambda: waiting(daemon) == 1)
    loop = asyncio.get_running_loop()
    assert await asyncio.wait_for(loop.sock_recv(sock, 1), 5) == b""
    sock.close()


async def test_closing_cuts_off_those_who_shake_hands(
    daemon: Daemon, crowd: list[socket.socket]
) -> None:
    crowd += [connect(daemon) for _ in range(5)]
    await eventually(lambda: waiting(daemon) == 5)
    await daemon.close()
    await eventually(lambda: waiting(daemon) == 0)
    with pytest.raises(ConnectionRefusedError):
        connect(daemon)


async def test_without_descriptors_it_pauses_and_goes_on(
    daemon: Daemon, certs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listener = daemon._server
    assert isinstance(listener, tls_listener.TlsListener)

    class Exhausted:
        """Stands in for the listening socket, once."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def accept(self) -> None:
            """Fail, and put the socket back."""
            listener._sock = self.sock
            raise OSError(24, "Too many open files")

        def fileno(self) -> int:
            """Return the socket's."""
            return self.sock.fileno()

    monkeypatch.setattr(listener, "_sock", Exhausted(listener._sock))
    assert await call(daemon, certs) == "here"
    assert "Too many open files" in caplog.text


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
async def test_a_loop_that_ends_after_a_proxy_was_closed_leaves_no_socket_behind(
    certs: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def one_call(uri: str) -> None:
        async with Proxy(uri, ssl=client_context(certs / "ca.crt")) as proxy:
            assert await proxy.echo("x") == "x"

    def run(uri: str) -> list[str]:
        with warnings.catch_warnings(record=True) as told:
            gc.collect()  # what other tests have left
            told.clear()
            warnings.simplefilter("always", ResourceWarning)
            for _ in range(10):
                with asyncio.Runner(loop_factory=new_loop) as runner:
                    runner.run(one_call(uri))
            gc.collect()
        port = f"raddr=('127.0.0.1', {uri.rpartition(':')[2]})"
        messages = [str(one.message) for one in told]
        return [one for one in messages if port in one or "TCPTransport" in one]  # asyncio, uvloop

    async with serving(certs) as daemon:
        assert await asyncio.to_thread(run, f"PYRO:echo@{daemon.location}") == []


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
async def test_nor_does_one_whose_proxy_had_left_a_silent_server_before(
    certs: Path,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls, "SHUTDOWN_S", 0.1)

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()
        writer.transport.abort()

    async def fail(proxy: Proxy) -> None:
        with pytest.raises(errors.Unavailable):
            await proxy.echo("x")
        await proxy._close()

    def run(uri: str) -> list[str]:
        options = {"ssl": client_context(certs / "ca.crt"), "timeout_s": 0.2}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ResourceWarning)
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(fail(Proxy(uri, **options)))
            script = SyncProxy(uri, **options)
            with pytest.raises(errors.Unavailable):
                script._bind()
            script._close()
            gc.collect()
        return [str(one.message) for one in told]

    over = asyncio.Event()
    context = server_context(certs / "localhost.crt", certs / "localhost.key")
    server = await asyncio.start_server(be_silent, "localhost", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    assert await asyncio.to_thread(run, f"PYRO:echo@localhost:{port}") == []
    over.set()
    server.close()

"""The hazards of stock Pyro5 daemons: each is shown on a stock one, and ours has none of them.

The stock half proves that the test can fail. Every daemon is a process of its own.
"""

from __future__ import annotations

import contextlib
import marshal
import resource
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import Pyro5.api
import Pyro5.errors
import pytest

from rmi_runtime import Proxy, errors, wire
from tests.integration.runtime.servers import Server, idle_clients, make_certificate, serving
from tests.raw_client import CLOSED, ERROR, RESULT, SERPENT, RawClient, call, dumps, message
from tests.support import eventually

SIDES = pytest.mark.parametrize("side", ["stock", "ours"])
PATIENCE_S = {"stock": 1.5, "ours": 15.0}  # a frozen daemon need not be waited for so long
GROWTH_BYTES_MAX = 64 * 1024 * 1024


def answers(server: Server, side: str, tls: ssl.SSLContext | None = None) -> bool:
    """Tell whether a newly connected client gets an answer."""
    wait_s = PATIENCE_S[side]
    try:
        with contextlib.closing(socket.create_connection(server.address, wait_s)) as plain:
            sock = tls.wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain
            with contextlib.closing(sock):
                handshake = {"handshake": "hello", "object": "target"}
                sock.sendall(message(wire.MSG_CONNECT, dumps(SERPENT, handshake)))
                sock.settimeout(wait_s)
                return sock.recv(8)[6] == wire.MSG_CONNECTOK
    except (OSError, IndexError):
        return False


@contextlib.contextmanager
def silent_sockets(server: Server, count: int) -> Iterator[None]:
    """Hold connections on which nothing is sent."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(server.address, 10))
        yield


@SIDES
def test_silent_sockets_on_a_tls_port_lock_nobody_out(side: str, tmp_path: Path) -> None:
    make_certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    with serving(side, tmp_path) as server:
        assert answers(server, "ours", trusting)
        with silent_sockets(server, 50):
            assert answers(server, side, trusting) == (side == "ours")


@SIDES
def test_more_silent_sockets_than_workers_lock_nobody_out(side: str) -> None:
    with serving(side) as server, silent_sockets(server, 81):
        assert answers(server, side) == (side == "ours")


def test_ten_thousand_idle_connections_are_held_and_calls_answered() -> None:
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, files_max - 200)
    assert count >= 800, f"only {files_max} open files are allowed here: raise the hard limit"
    with serving("ours") as server:
        before = server.memory_peak_bytes()
        with idle_clients(server, count) as said:
            assert said == f"holding {count}"
            with RawClient(server.address) as client:
                for number in range(1000):
                    client.send(call("echo", number))
                    assert client.outcome() == RESULT
            assert (server.memory_peak_bytes() - before) / count < 16_384
        assert answers(server, "ours")


@SIDES
def test_one_silent_socket_does_not_freeze_the_daemon(side: str) -> None:
    with serving(side, SERVERTYPE="multiplex") as server, silent_sockets(server, 1):
        assert answers(server, side) == (side == "ours")


@SIDES
def test_a_compressed_bomb_from_a_stranger_does_not_fill_the_memory(side: str) -> None:
    inflated_bytes = 500_000_000 if side == "ours" else 150_000_000  # spare the machine
    bomb = zlib.compress(bytes(inflated_bytes), 9)
    with serving(side) as server:
        before = server.memory_peak_bytes()
        for payload in (bomb, bomb[:16_000], zlib.compress(bytes(16_000_000), 9)):
            with RawClient(server.address, 0) as client:
                client.send(message(wire.MSG_CONNECT, payload, flags=wire.FLAG_COMPRESSED))
                assert client.outcome() == CLOSED
        growth = server.memory_peak_bytes() - before
        assert (growth < GROWTH_BYTES_MAX) == (side == "ours")
        assert answers(server, "ours")


@SIDES
async def test_the_oneway_flag_does_not_buy_a_thread_for_each_call(side: str) -> None:
    calls = 2000 if side == "ours" else 300
    with serving(side) as server:
        with RawClient(server.address) as client:
            client.send(call("wait", flags=wire.FLAG_ONEWAY) * calls + call("echo", 1))
            assert client.outcome() == RESULT

            def threads() -> bool:
                return server.threads() >= calls

            if side == "stock":
                await eventually(threads)
            else:
                assert server.threads() < 20
            client.send(call("release"))
            assert client.outcome() == RESULT
        assert answers(server, "ours")


@SIDES
def test_methods_that_raise_system_exit_do_not_use_the_daemon_up(side: str) -> None:
    size = 8
    with serving(side, THREADPOOL_SIZE=str(size)) as server:
        outcomes = set()
        for _ in range(size):
            with RawClient(server.address) as client:
                client.send(call("leave"))
                outcomes.add(client.outcome())
        if side == "ours":
            with RawClient(server.address) as client:
                for _ in range(1000):
                    client.send(call("leave"))
                    outcomes.add(client.outcome())
        assert outcomes == {ERROR if side == "ours" else CLOSED}
        assert answers(server, side) == (side == "ours")


@SIDES
def test_a_proxy_among_the_arguments_has_the_server_dial_nobody(side: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap, serving(side) as server:
        trap.settimeout(PATIENCE_S["ours"])
        port = trap.getsockname()[1]
        state = (f"PYRO:trap@127.0.0.1:{port}", (), (), (), "hello", None)
        lure = {"__class__": "Pyro5.client.Proxy", "state": state}
        with RawClient(server.address) as client:
            client.send(call("look_at", lure))
            if side == "stock":
                trap.accept()[0].close()
            assert (client.outcome() == RESULT) == (side == "ours")
            trap.setblocking(False)
            with pytest.raises(BlockingIOError):
                trap.accept()


@SIDES
def test_a_message_in_marshal_is_refused_before_it_is_parsed(side: str) -> None:
    arguments = marshal.dumps(("target", "echo", [1], {}))
    with serving(side) as server:
        with RawClient(server.address) as client:
            client.send(message(wire.MSG_INVOKE, arguments, 2))
            assert client.outcome() == (RESULT if side == "stock" else ERROR)
            client.send(message(wire.MSG_INVOKE, b"no marshal at all", 2))
            refusal = client.receive()
            assert refusal is not None
            assert (b"serializer 2 is not accepted" in refusal.payload) == (side == "ours")
        with RawClient(server.address, 0) as client:
            handshake = marshal.dumps({"handshake": "hello", "object": "target"})
            client.send(message(wire.MSG_CONNECT, handshake, 2))
            welcome = client.receive()
            assert welcome is not None
            assert (welcome.type == wire.MSG_CONNECTOK) == (side == "stock")


SLOW_S = 1.5  # well above the 0.2 s that callers wait, on a busy machine too


async def _stock_client_with_retries(uri: str) -> int:
    with Pyro5.api.Proxy(uri) as proxy:
        proxy._pyroMaxRetries = 2
        proxy._pyroTimeout = 0.2
        with pytest.raises(Pyro5.errors.TimeoutError):
            proxy.slowly("stock", SLOW_S)
    return await _effects(uri, "stock", 3)


async def _our_client(uri: str) -> int:
    async with Proxy(uri, timeout_s=0.2, serializer="serpent") as proxy:
        with pytest.raises(errors.CallTimeout):
            await proxy.slowly("ours", SLOW_S)
        assert await proxy._call("echo", (1,), timeout_s=10) == 1  # the reply to that, not another
    return await _effects(uri, "ours", 1)


async def _effects(uri: str, key: str, expected: int) -> int:
    async with Proxy(uri, serializer="serpent") as proxy:

        async def all_there() -> bool:
            return int(await proxy.count(key)) >= expected

        await eventually(all_there)
        return int(await proxy.count(key))


async def test_a_call_that_timed_out_is_sent_once_by_ours_and_thrice_by_stock() -> None:
    with serving("stock") as server:
        assert await _stock_client_with_retries(server.uri) == 3
        assert await _our_client(server.uri) == 1


async def test_a_request_id_has_one_effect_however_often_it_is_sent() -> None:
    with serving("ours") as server:
        async with Proxy(server.uri) as one, Proxy(server.uri) as other:
            sums = [await proxy.add_once("sum", 5, "id-1") for proxy in (one, other, one)]
            assert sums == [5, 5, 5]
            assert await other.add_once("sum", 5, "id-2") == 10


def _hung_up(sock: socket.socket, wait_s: float) -> bool:
    """Tell whether the other side closes the connection in time."""
    sock.settimeout(wait_s)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except TimeoutError:
        return False


def _idle_stock_client(server: Server, wait_s: float) -> Callable[[], int]:
    proxy = Pyro5.api.Proxy(server.uri)
    proxy._pyroBind()
    hung_up = _hung_up(proxy._pyroConnection.sock, wait_s)
    proxy._pyroConnection.sock.settimeout(None)

    def call_again() -> int:
        with proxy:
            return int(proxy.echo(7))

    assert hung_up == (wait_s > 1)
    return call_again


def test_a_stock_client_idle_for_longer_than_the_servers_timeout_fails_on_stock_only() -> None:
    with serving("stock", COMMTIMEOUT="0.3") as server:
        call_again = _idle_stock_client(server, 10)
        with pytest.raises(Pyro5.errors.ConnectionClosedError, match="not enough data"):
            call_again()
    with serving("ours", COMMTIMEOUT="0.3") as server:
        assert _idle_stock_client(server, 0.9)() == 7


async def test_our_client_does_not_notice_that_the_server_hung_up_while_it_was_idle() -> None:
    with serving("stock", COMMTIMEOUT="0.3") as server:
        async with Proxy(server.uri, serializer="serpent") as proxy:
            assert await proxy.echo(1) == 1
            await eventually(lambda: not proxy._connected)
            assert await proxy.echo(2) == 2

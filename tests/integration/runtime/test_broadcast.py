"""Finding a name server by broadcast, as stock clients do."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any

import pytest

from rmi_runtime.registry import broadcast
from rmi_runtime.registry.broadcast import (
    ANSWERS_PER_S_MAX,
    BroadcastResponder,
    answering_broadcasts,
)
from tests.integration.runtime.names import name_server

URI = "PYRO:Pyro.NameServer@127.0.0.1:9090"
ASKER = ("127.0.0.1", 5)


class Sent:
    """Stands in for the transport."""

    def __init__(self) -> None:
        self.answers: list[tuple[bytes, Any]] = []

    def sendto(self, data: bytes, addr: Any) -> None:
        """Note an answer."""
        self.answers.append((data, addr))


def responder(clock: list[float]) -> tuple[BroadcastResponder, Sent]:
    made, sent = BroadcastResponder(URI, lambda: clock[0]), Sent()
    made.connection_made(sent)  # type: ignore[arg-type]
    return made, sent


def test_the_question_is_answered_and_nothing_else_is() -> None:
    made, sent = responder([0.0])
    for data in (b"", b"GET_NSUR", b"GET_NSURI ", b"get_nsuri", b"x" * 60_000):
        made.datagram_received(data, ASKER)
    assert not sent.answers
    made.datagram_received(b"GET_NSURI", ASKER)
    assert sent.answers == [(URI.encode(), ASKER)]


def test_answers_in_a_second_are_bounded() -> None:
    clock = [0.0]
    made, sent = responder(clock)
    for _ in range(10 * ANSWERS_PER_S_MAX):
        made.datagram_received(b"GET_NSURI", ASKER)
    assert len(sent.answers) == ANSWERS_PER_S_MAX
    clock[0] = 1.0
    made.datagram_received(b"GET_NSURI", ASKER)
    assert len(sent.answers) == ANSWERS_PER_S_MAX + 1


def test_an_answer_that_clients_would_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 100"):
        BroadcastResponder("PYRO:Pyro.NameServer@" + "x" * 90 + ":9090")


LOCATE = """
import sys
import Pyro5.api
Pyro5.config.NS_HOST = "192.0.2.1"  # nobody's: it must be found by broadcast
Pyro5.config.BROADCAST_ADDRS = ["127.0.0.1"]
Pyro5.config.NS_BCPORT = int(sys.argv[1])
with Pyro5.api.locate_ns() as found:
    print(found._pyroUri, found.count())
"""


async def test_a_stock_client_finds_the_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_loopback(port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", port))
        return sock

    monkeypatch.setattr(broadcast, "_broadcast_socket", on_loopback)
    async with name_server() as location:
        uri = f"PYRO:Pyro.NameServer@{location}"
        async with answering_broadcasts(uri, 0) as port:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", LOCATE, str(port)), stdout=asyncio.subprocess.PIPE
            )
            out, _ = await asyncio.wait_for(process.communicate(), 30)
            assert out.decode().split() == [uri, "1"]


async def test_a_taken_port_is_warned_of_and_the_name_server_runs_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def taken(port: int) -> socket.socket:
        raise OSError("Address already in use")

    monkeypatch.setattr(broadcast, "_broadcast_socket", taken)
    caplog.set_level(logging.WARNING)
    async with answering_broadcasts(URI, 9091) as port:
        assert port is None
    assert "not found by broadcast: port 9091" in caplog.text


async def test_ipv6_has_no_broadcast() -> None:
    async with answering_broadcasts("PYRO:Pyro.NameServer@[::1]:9090", 0) as port:
        assert port is None

"""An address where something else answers than a Pyro daemon."""

from __future__ import annotations

import asyncio

import pytest

from rmi_runtime import Endpoints, NameServers, Proxy, errors
from rmi_runtime.proxy import connection
from tests.integration.runtime.fake_server import Peer, fake_server
from tests.support import eventually


async def test_whoever_connects_to_something_else_is_told_where_and_the_log_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 40)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    with pytest.raises(errors.Unavailable, match=rf"{host}:{port}.*is it a Pyro daemon"):
        await Proxy(f"PYRO:thing@{host}:{port}")._bind()
    assert not caplog.records
    server.close()


async def test_calls_whose_reply_is_too_large_to_be_taken_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "REPLY_SIZE_BYTES_MAX", 1_000)

    async def answer_at_length(peer: Peer) -> None:
        await peer.greet()
        peer.send(await peer.read(), "x" * 1_000)
        await peer.closed()

    async with fake_server(answer_at_length) as uri, Proxy(uri) as proxy:
        calls = [proxy.echo(number) for number in range(2)]
        for call in calls:
            with pytest.raises(errors.ConnectionLost, match=r"too large.*at most 1000 allowed"):
                await call


async def test_a_name_server_that_is_none_is_named_in_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(4))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 40)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with (
        NameServers([f"{host}:{port}"]) as names,
        Endpoints(names, "bank.business.", refresh_s=0.01),
    ):
        await eventually(lambda: len(asked) > 5)
    assert [f"{host}:{port}" in record.getMessage() for record in caplog.records] == [True]
    server.close()


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "a\0b", "\udcff"])
async def test_a_host_whose_name_nobody_can_have_is_nowhere(host: str) -> None:
    for uri in (f"PYRO:thing@{host}:9000", f"PYRONAME:thing@{host}:9000"):
        with pytest.raises(errors.Unavailable, match="cannot connect"):
            await Proxy(uri).echo(1)

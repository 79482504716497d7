"""Replies that are asked for and not read, on many connections, plain and encrypted."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rmi_runtime import (
    Daemon,
    DaemonLimits,
    Identity,
    Proxy,
    client_context,
    errors,
    expose,
    server_context,
    wire,
)
from rmi_runtime.credentials.certificates import create_authority, create_certificate
from tests.integration.runtime.worker import address_of
from tests.raw_client import CLOSED, RESULT, SERPENT, Address, RawClient, call, dumps, message
from tests.support import eventually

LARGE = 16 * 1024 * 1024
"""Far more than the system's buffers."""


@expose
class Maker:
    """Makes results that are as large as one likes."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = 0

    async def wait(self) -> None:
        """Return when the gate is open."""
        self.waiting += 1
        await self.gate.wait()

    def make(self, size: int) -> str:
        """Return so many characters."""
        return "x" * size


def identify(client: object, _: object) -> Identity:
    return Identity("client", int(str(client)))


@pytest.fixture(params=["plain", "encrypted"])
def contexts(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    if request.param == "plain":
        return None, None
    create_authority(tmp_path, datetime.now(UTC))
    made = create_certificate(tmp_path, ["localhost"], datetime.now(UTC), 1)
    return server_context(made.certificate, made.key), client_context(tmp_path / "ca.crt")


def ask(address: Address, client: int, context: ssl.SSLContext | None) -> RawClient:
    """Return a connection of a client that has asked for a large reply."""
    raw = RawClient(address, 0)
    if context is not None:
        raw.socket = context.wrap_socket(raw.socket, server_hostname="localhost")
    connect = dumps(SERPENT, {"handshake": client, "object": "target"})
    raw.send(message(wire.MSG_CONNECT, connect))
    assert raw.outcome() == RESULT
    raw.send(call("make", LARGE))
    return raw


async def test_whoever_has_most_of_unread_replies_makes_way(
    contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> None:
    served, calling = contexts
    limits = DaemonLimits(all_unread_bytes_max=LARGE * 5 // 2)
    async with Daemon(ssl=served, authenticate=identify, limits=limits) as daemon:
        daemon.register(Maker(), "target")
        with contextlib.ExitStack() as unread:
            made = [
                unread.enter_context(await asyncio.to_thread(ask, address_of(daemon), who, calling))
                for who in (7, 8, 8, 8, 8)
            ]
            await eventually(lambda: daemon.stats()["refusals"])
            assert await asyncio.to_thread(made[1].outcome) == CLOSED
            assert await asyncio.to_thread(made[0].outcome) == RESULT


async def test_a_reply_that_is_larger_than_what_may_be_unread_comes_to_a_client_that_reads(
    contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> None:
    served, calling = contexts
    limits = DaemonLimits(unread_bytes_max=1_000_000)
    async with Daemon(ssl=served, authenticate=identify, limits=limits) as daemon:
        daemon.register(Maker(), "target")
        with await asyncio.to_thread(ask, address_of(daemon), 7, calling) as raw:
            assert await asyncio.to_thread(raw.outcome) == RESULT
            raw.send(call("make", LARGE))
            assert await asyncio.to_thread(raw.outcome) == RESULT
        assert daemon.stats()["refusals"] == 0


async def test_draining_waits_for_replies_that_are_read(
    contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> None:
    served, calling = contexts
    async with Daemon(ssl=served, authenticate=identify) as daemon:
        daemon.register(Maker(), "target")
        with await asyncio.to_thread(ask, address_of(daemon), 7, calling) as raw:
            await eventually(lambda: unread_bytes(daemon))
            reading = asyncio.ensure_future(asyncio.to_thread(raw.outcome))
            assert await daemon.drain(20.0)
            assert not unread_bytes(daemon)
            assert await reading == RESULT


async def test_draining_does_not_wait_for_replies_that_are_not_read(
    contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> None:
    served, calling = contexts
    async with Daemon(ssl=served, authenticate=identify) as daemon:
        daemon.register(Maker(), "target")
        with await asyncio.to_thread(ask, address_of(daemon), 7, calling):
            await eventually(lambda: unread_bytes(daemon))
            assert await asyncio.wait_for(daemon.drain(3600.0), 20.0)
            assert unread_bytes(daemon)


def unread_bytes(daemon: Daemon) -> int:
    return sum(connection.unread_bytes for connection in daemon.connections)


@pytest.mark.parametrize("threads", [0, 1])
async def test_results_of_batches_that_go_on_count_as_unread_replies(threads: int) -> None:
    limits = DaemonLimits(all_unread_bytes_max=LARGE * 5 // 2)
    async with (
        Daemon(authenticate=identify, limits=limits, threads=threads) as daemon,
        contextlib.AsyncExitStack() as open_,
    ):
        maker = Maker()
        uri = daemon.register(maker, "target")
        batches = []
        for who in (7, 8, 8, 8, 8):
            proxy = await open_.enter_async_context(Proxy(uri, handshake=who))
            batch = proxy._batch()
            batch.make(LARGE)
            batch.wait()
            batches.append(asyncio.ensure_future(batch()))
            await eventually(lambda: maker.waiting == len(batches))
        with pytest.raises(errors.ConnectionLost):
            await batches[1]
        maker.gate.set()
        assert len(list(await batches[0])) == 2
        await asyncio.gather(*batches, return_exceptions=True)

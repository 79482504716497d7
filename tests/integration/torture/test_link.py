"""The link between two network namespaces: what is lost there is lost without a word."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rmi_torture.faults.link import LinkFault
from rmi_torture.namespaces import ADDRESSES, A, B, TwoHosts, why_no_hosts, why_no_netem

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HELD_S = 0.3
PORT = 7000
NAMESPACES = Path("/run/netns")


def own_namespaces() -> list[str]:
    return [path.name for path in NAMESPACES.glob(f"rmi-torture-{os.getpid()}-*")]


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    if why := why_no_hosts():
        pytest.skip(why)
    with TwoHosts() as made:
        yield made


@pytest.fixture
async def echo(hosts: TwoHosts) -> AsyncIterator[Streams]:
    """A connection from host A to a server on host B that sends everything back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    with hosts.inside(B):
        server = await asyncio.start_server(serve, ADDRESSES[B], PORT)
    async with server:
        with hosts.inside(A):
            streams = await asyncio.open_connection(ADDRESSES[B], PORT)
        yield streams
        streams[1].close()


@pytest.mark.parametrize("kind", ["partition", "deaf", "mute"])
async def test_a_cut_holds_everything_back_until_it_ends_and_breaks_nothing(
    hosts: TwoHosts, echo: Streams, kind: str
) -> None:
    reader, writer = echo
    writer.write(b"before")
    assert await reader.readexactly(6) == b"before"
    fault = LinkFault(hosts, set(), kind)
    assert await fault.begin("link") is not None
    writer.write(b"during")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), HELD_S)
    await fault.end("link")
    assert await asyncio.wait_for(reader.readexactly(6), 10) == b"during"


async def test_a_new_connection_is_neither_made_nor_refused_while_it_is_cut(
    hosts: TwoHosts, echo: Streams
) -> None:
    fault = LinkFault(hosts, set(), "partition")
    await fault.begin("link")
    with hosts.inside(A), pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.open_connection(ADDRESSES[B], PORT), HELD_S)
    await fault.heal()
    with hosts.inside(A):
        _, writer = await asyncio.wait_for(asyncio.open_connection(ADDRESSES[B], PORT), 10)
    writer.close()


async def test_the_end_of_one_fault_leaves_the_other_on(hosts: TwoHosts, echo: Streams) -> None:
    reader, writer = echo
    active: set[str] = set()
    deaf, mute = (LinkFault(hosts, active, kind) for kind in ("deaf", "mute"))
    await deaf.begin("link")
    await mute.begin("link")
    await deaf.end("link")
    writer.write(b"during")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), HELD_S)
    await mute.heal()
    assert await asyncio.wait_for(reader.readexactly(6), 10) == b"during"


async def test_delay_and_loss_make_it_slow_where_the_kernel_can(
    hosts: TwoHosts, echo: Streams
) -> None:
    if why := why_no_netem():
        pytest.skip(f"no netem: {why}")
    active: set[str] = set()
    faults = [LinkFault(hosts, active, kind) for kind in ("delay", "loss")]
    for fault in faults:
        await fault.begin("link")
    echo[1].write(b"late")
    assert await asyncio.wait_for(echo[0].readexactly(4), 20) == b"late"
    for fault in faults:
        await fault.heal()
    assert active == set()


def test_nothing_is_left_of_the_hosts_even_after_an_error(hosts: TwoHosts) -> None:
    before = own_namespaces()
    assert before

    def fail_inside() -> None:
        with TwoHosts() as others, others.inside(A):
            assert len(own_namespaces()) == len(before) + 2
            raise RuntimeError

    home = Path("/proc/thread-self/ns/net").readlink()
    with pytest.raises(RuntimeError):
        fail_inside()
    assert own_namespaces() == before
    assert Path("/proc/thread-self/ns/net").readlink() == home


def test_a_command_runs_on_its_host(hosts: TwoHosts) -> None:
    for host, address in ADDRESSES.items():
        shown = subprocess.run(
            hosts.command(host, "ip", "-o", "addr"), capture_output=True, text=True, check=True
        )
        assert address in shown.stdout

"""The link between two network namespaces: what is lost there is lost without a word.

Packets that are late, or lost one by one, go through TUN devices and a relay.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rmi_runtime.errors import Unavailable
from rmi_torture import relay
from rmi_torture.faults.link import LinkFault
from rmi_torture.faults.setup import missing_means
from rmi_torture.namespaces import (
    ADDRESSES,
    A,
    B,
    TwoHosts,
    why_no_hosts,
    why_no_relay,
)
from rmi_torture.packets import DELAY_S_MAX, DELAY_S_MIN
from rmi_torture.targets import NETWORK
from tests.support import eventually

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HELD_S = 0.3
SLOW_HELD_S = 2 * DELAY_S_MAX + HELD_S
END_S = 60.0
PORT = 7000
NAMESPACES = Path("/run/netns")

HARNESS = """
import sys
from rmi_torture.namespaces import TwoHosts
with TwoHosts() as hosts:
    relay = hosts.start_relay()
    hosts.suffer(("delay",))
    print(relay.pid, flush=True)
    sys.stdin.read()
"""


def own_namespaces() -> list[str]:
    return [path.name for path in NAMESPACES.glob(f"rmi-torture-{os.getpid()}-*")]


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    if why := why_no_hosts():
        pytest.skip(why)
    with TwoHosts() as made:
        yield made


@pytest.fixture
def slow(hosts: TwoHosts) -> TwoHosts:
    if why := why_no_relay():
        pytest.skip(why)
    return hosts


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


async def round_trip_s(streams: Streams, said: bytes = b"said") -> float:
    """Return how long it takes to send something and get it back."""
    reader, writer = streams
    began_s = time.monotonic()
    writer.write(said)
    assert await asyncio.wait_for(reader.readexactly(len(said)), END_S) == said
    return time.monotonic() - began_s


def devices_used(hosts: TwoHosts) -> list[str]:
    """Return by which device each host sends to the other one."""
    found = []
    for host, to in ((A, B), (B, A)):
        command = hosts.command(host, "ip", "route", "get", ADDRESSES[to])
        words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        found.append(words[words.index("dev") + 1])
    return found


async def test_under_delay_both_ways_are_slow_and_afterwards_the_same_connection_is_quick(
    slow: TwoHosts, echo: Streams
) -> None:
    await round_trip_s(echo)
    assert devices_used(slow) == ["eth0", "eth0"]
    delay = LinkFault(slow, set(), "delay")
    await delay.begin("link")
    assert devices_used(slow) == ["tun0", "tun0"]
    for _ in range(3):
        assert await round_trip_s(echo) >= 2 * DELAY_S_MIN
    await delay.end("link")
    assert devices_used(slow) == ["eth0", "eth0"]

    async def quick() -> bool:
        return await round_trip_s(echo) < 2 * DELAY_S_MIN

    await eventually(quick, timeout_s=END_S)


async def test_a_large_text_comes_through_delay_and_loss_whole_and_in_order(
    slow: TwoHosts, echo: Streams
) -> None:
    active: set[str] = set()
    faults = [LinkFault(slow, active, kind) for kind in ("delay", "loss")]
    for fault in faults:
        await fault.begin("link")
    await round_trip_s(echo, os.urandom(6_000))
    for fault in faults:
        await fault.heal()
    await round_trip_s(echo, os.urandom(1_000_000))
    assert active == set()


async def test_under_loss_some_datagrams_vanish_and_others_arrive(slow: TwoHosts) -> None:
    with slow.inside(B):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with slow.inside(A):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((ADDRESSES[B], PORT))
        receiver.setblocking(False)
        numbers = itertools.count()
        arrived: list[int] = []

        def send_one() -> None:
            sender.sendto(b"%d" % next(numbers), (ADDRESSES[B], PORT))

        def take_all() -> None:
            while True:
                try:
                    arrived.append(int(receiver.recv(100)))
                except BlockingIOError:
                    return

        for _ in range(100):
            send_one()
            take_all()
        await eventually(lambda: take_all() or len(arrived) == 100)

        await LinkFault(slow, set(), "loss").begin("link")

        def some_are_between_lost_ones() -> bool:
            # They arrive in order: one that is missing before another one is lost.
            send_one()
            take_all()
            late = arrived[100:]
            return len(late) > 10 and late[-1] - late[0] > len(late)

        await eventually(some_are_between_lost_ones, timeout_s=END_S, every_s=0.002)
        assert arrived == sorted(set(arrived))


@pytest.mark.parametrize("kind", ["partition", "deaf", "mute"])
async def test_a_cut_holds_on_the_relays_way_and_also_when_the_delay_ends_first(
    slow: TwoHosts, echo: Streams, kind: str
) -> None:
    reader, writer = echo
    active: set[str] = set()
    delay, cut = (LinkFault(slow, active, each) for each in ("delay", kind))
    await delay.begin("link")
    assert await round_trip_s(echo) >= 2 * DELAY_S_MIN
    await cut.begin("link")
    writer.write(b"during")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), SLOW_HELD_S)
    await delay.end("link")
    # The old connection may be waiting to try again; a new one tries at once.
    with slow.inside(A), pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.open_connection(ADDRESSES[B], PORT), HELD_S)
    await cut.end("link")
    assert await asyncio.wait_for(reader.readexactly(6), END_S) == b"during"


async def test_a_delay_that_begins_in_a_cut_lets_nothing_through(
    slow: TwoHosts, echo: Streams
) -> None:
    reader, writer = echo
    active: set[str] = set()
    delay, cut = (LinkFault(slow, active, each) for each in ("delay", "partition"))
    await cut.begin("link")
    await delay.begin("link")
    writer.write(b"during")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), SLOW_HELD_S)
    await cut.end("link")
    assert await asyncio.wait_for(reader.readexactly(6), END_S) == b"during"
    await delay.heal()


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def gone(pid: int) -> None:
    await eventually(lambda: not alive(pid))


def test_the_relay_ends_with_a_harness_that_is_killed_and_the_next_takes_its_hosts_away(
    slow: TwoHosts,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HARNESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as harness:
        try:
            assert harness.stdout is not None
            relay_pid = int(harness.stdout.readline())
            assert alive(relay_pid)
            harness.kill()
            asyncio.run(gone(relay_pid))
        finally:
            harness.kill()
            harness.wait()
    assert list(NAMESPACES.glob(f"rmi-torture-{harness.pid}-*"))
    with TwoHosts():
        assert not list(NAMESPACES.glob(f"rmi-torture-{harness.pid}-*"))


def test_the_relay_ends_with_its_hosts(slow: TwoHosts) -> None:
    with TwoHosts() as others:
        relay_pid = others.start_relay().pid
        others.suffer(("loss",))
        assert alive(relay_pid)
    assert not alive(relay_pid)


async def test_a_fault_does_not_begin_when_the_relay_is_dead(slow: TwoHosts) -> None:
    relay_pid = slow.start_relay().pid
    os.kill(relay_pid, signal.SIGKILL)
    await gone(relay_pid)
    with pytest.raises(Unavailable, match="the relay between the hosts does not answer"):
        await LinkFault(slow, set(), "delay").begin("link")


def test_without_a_tun_device_delay_and_loss_are_missing_and_cuts_are_not(
    hosts: TwoHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "CLONE", str(tmp_path / "tun"))
    missing = missing_means(hosts=2)
    assert {kind for kind in NETWORK if kind in missing} == {"delay", "loss"}
    assert "needs a TUN device" in missing["delay"]


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

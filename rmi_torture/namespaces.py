"""Two hosts on one machine: network namespaces, joined by a pair of virtual Ethernet devices.

The namespaces see each other and nothing else, so their addresses are the same in every run; their
names are a run's own. It takes Linux, root, and the command ``ip`` of iproute2.

To be late, or to be lost one by one, packets leave these devices for TUN devices, which a relay of
our own joins (:mod:`rmi_torture.packets`): that takes ``/dev/net/tun``, and no traffic control in
the kernel.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rmi_runtime.errors import Unavailable
from rmi_torture.packets import CUT, DELAY, LOSS
from rmi_torture.relay import TUN, Relay

A, B = "a", "b"
ADDRESSES = {A: "10.83.0.1", B: "10.83.0.2"}
MACS = {A: "02:00:00:00:00:0a", B: "02:00:00:00:00:0b"}
OTHER = {A: B, B: A}

NOBODY = "02:00:00:00:00:ff"
"""What is sent to this address, nobody takes."""

_NAMESPACES = Path("/run/netns")
_PREFIX = "rmi-torture-"
_DEVICE = "eth0"
_MTU_BYTES = "1500"
_CUTS = {A: frozenset(("partition", "mute")), B: frozenset(("partition", "deaf"))}
_SINGLE = frozenset((DELAY, LOSS))
_CLONE_NEWNET = 0x40000000
_COMMAND_S = 10.0

Command = tuple[str, ...]


def ways(faults: Collection[str]) -> dict[str, frozenset[str]]:
    """Return what befalls packets on their way to each host: cut, delay, loss. Pure code.

    Args:
        faults: those that are on: ``partition``, ``deaf`` (nothing reaches host B), ``mute``
            (nothing reaches host A), ``delay``, ``loss``.
    """
    found = frozenset(faults)
    return {
        host: (found & _SINGLE) | ({CUT} if found & cuts else frozenset())
        for host, cuts in _CUTS.items()
    }


def neighbours(to: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return to which MAC address each host sends what is for the other one. Pure code.

    Args:
        to: what befalls packets on their way to each host, as of :func:`ways`.
    """
    return {host: NOBODY if CUT in to[other] else MACS[other] for host, other in OTHER.items()}


def device(faults: Collection[str]) -> str:
    """Return by which device both hosts send: the relay's only if need be. Pure code."""
    return TUN if _SINGLE & set(faults) else _DEVICE


class TwoHosts:
    """The two namespaces and the link; a context manager. It takes away all it made.

    On entering it also takes away what runs have left behind that were killed.

    Args:
        seed: of which packets are late or lost.

    Raises:
        Unavailable: on entering, if they cannot be had here.
    """

    def __init__(self, seed: int = 0) -> None:
        run = f"{os.getpid()}-{secrets.token_hex(2)}"
        self._names = {host: f"{_PREFIX}{run}-{host}" for host in ADDRESSES}
        self._seed = seed
        self._relay: Relay | None = None

    def __enter__(self) -> TwoHosts:
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            raise Unavailable("network namespaces need Linux and root")
        if shutil.which("ip") is None:
            raise Unavailable("network namespaces need the command ip (iproute2)")
        try:
            self._make()
        except BaseException:
            self._take_away()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._take_away()

    def _make(self) -> None:
        for name in _left_behind():
            _delete(name)
        for name in self._names.values():
            _run("ip", "netns", "add", name)
        peer = ("peer", "name", _DEVICE, "address", MACS[B], "netns", self._names[B])
        self._ip(A, "link", "add", _DEVICE, "address", MACS[A], "type", "veth", *peer)
        for host, address in ADDRESSES.items():
            self._ip(host, "addr", "add", f"{address}/24", "brd", "+", "dev", _DEVICE)
            for device in ("lo", _DEVICE):
                self._ip(host, "link", "set", device, "up")
        self.suffer(())
        _run(*self.command(A, "true"))

    def _take_away(self) -> None:
        if self._relay is not None:
            self._relay.close()
        for name in self._names.values():
            # The devices go with their namespaces, and these with the last of their processes.
            _delete(name)

    def _ip(self, host: str, *words: str) -> None:
        _run("ip", "-n", self._names[host], *words)

    def command(self, host: str, *words: str) -> Command:
        """Return a command line that runs another one on *host*, as the same process."""
        return ("ip", "netns", "exec", self._names[host], *words)

    def suffer(self, faults: Collection[str]) -> None:
        """Let the link have these faults, and no others.

        What is lost is lost without a word: a host goes on sending, to a MAC address that nobody
        has, or to the relay. Neither end sees an error, a reset, or a device that is down.
        Addresses stay the same, whichever way packets go: connections go on.

        Raises:
            Unavailable: the system does not let it.
        """
        to = ways(faults)
        if device(faults) == TUN:
            self.start_relay()
        if self._relay is not None:
            # Also while nobody sends by it: packets may still be under way there.
            self._relay.order(to)
        for host, mac in neighbours(to).items():
            other = ADDRESSES[OTHER[host]]
            place = (other, "lladdr", mac, "dev", _DEVICE, "nud", "permanent")
            self._ip(host, "neigh", "replace", *place)
            route = (f"{other}/32", "dev", device(faults), "src", ADDRESSES[host])
            self._ip(host, "route", "replace", *route)

    def start_relay(self) -> Relay:
        """Return what ``delay`` and ``loss`` need; it is started if it is not there.

        Raises:
            Unavailable: the system does not let it.
        """
        if self._relay is None:
            self._relay = Relay(self.inside, ADDRESSES, self._seed)
            for host in ADDRESSES:
                self._ip(host, "link", "set", TUN, "mtu", _MTU_BYTES, "up")
        return self._relay

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Be on *host*: the sockets that this thread opens are there, and its child processes."""
        with Path("/proc/thread-self/ns/net").open() as home:
            with (_NAMESPACES / self._names[host]).open() as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())


def _left_behind() -> Iterator[str]:
    """Yield the names of namespaces whose run is over: no process has its number."""
    for path in _NAMESPACES.glob(f"{_PREFIX}*-*-*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            yield path.name


def _delete(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def why_no_hosts() -> str:
    """Say why there cannot be two hosts here; nothing if there can."""
    try:
        with TwoHosts():
            return ""
    except Unavailable as error:
        return error.message


def why_no_relay() -> str:
    """Say why a link cannot delay or lose single packets here; nothing if it can."""
    try:
        with TwoHosts() as hosts:
            hosts.suffer(_SINGLE)
            return ""
    except Unavailable as error:
        return error.message


def _enter(namespace_fd: int) -> None:
    # os.setns is there from Python 3.12 on.
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace_fd, _CLONE_NEWNET) != 0:
        raise Unavailable(f"cannot enter a namespace: {os.strerror(ctypes.get_errno())}")


def _run(*command: str) -> None:
    """Run a command, which must succeed."""
    try:
        done = _done(command)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        raise Unavailable(f"{command[0]}: {done.stderr.strip()}", command=" ".join(command))


def _done(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)

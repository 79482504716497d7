"""Which kinds of faults there are, and whom each may strike in which workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DATA = "bank.data"
NAME_SERVER = "Pyro.NameServer"
GATEWAY = "gateway"

_BUSINESS = tuple(f"bank.business.{n}" for n in (1, 2, 3))
_LOGGERS = tuple(f"msg.logger.{n}" for n in (1, 2, 3))
_MESSAGES = tuple(f"msg.messages.{n}" for n in (1, 2))
_FACADE = ("msg.facade.1",)

# The data object is a third of all: everything hangs on it.
_BANK_SERVICES = (DATA, DATA, *_BUSINESS, GATEWAY)
_MESSAGE_SERVICES = (*_LOGGERS, *_MESSAGES, *_FACADE, GATEWAY)
_SERVICES: Mapping[str, Sequence[str]] = {
    "bank": _BANK_SERVICES,
    "lock": (DATA,),
    "messages": _MESSAGE_SERVICES,
    "queue": (*_MESSAGES, *_LOGGERS),
}
_CALLED: Mapping[str, Sequence[str]] = {
    "bank": (DATA, DATA, *_BUSINESS),
    "lock": (DATA,),
    "messages": (*_LOGGERS, *_MESSAGES, *_FACADE),
    "queue": (*_LOGGERS, *_FACADE),
}

WORKLOADS = tuple(_SERVICES)

KINDS: Mapping[str, str] = {
    "kill": "SIGKILL to a service",
    "pause": "SIGSTOP, then SIGCONT, past leases and deadlines",
    "nameserver": "SIGKILL to the name server",
    "partition": "nothing passes to or from a service, and connections stay open",
    "deaf": "what a service is sent is lost; what it says passes",
    "mute": "what a service says is lost; what it is sent passes",
    "delay": "everything to and from a service comes late, and in order",
    "loss": "connections to a service are reset again and again",
    "full": "the disk is full",
    "clock": "the time of day jumps, for everybody, there and back",
    "power": "SIGKILL to the data object, and what it had not synced is lost",
    "member": "SIGKILL to a Hazelcast member, when the cluster is safe",
    "members": "SIGKILL to two of three Hazelcast members at once, when the cluster is safe",
}
"""Kinds of faults, and what each does."""

LINK_KINDS: Mapping[str, str] = {
    "partition": "all packets between the hosts are lost, and connections stay open",
    "deaf": "all packets to host B are lost; those to host A pass",
    "mute": "all packets to host A are lost; those to host B pass",
    "delay": "each packet between the hosts comes late, and they overtake one another",
    "loss": "one in five packets between the hosts is lost",
}
"""What the kinds of the network do, where there are two hosts."""

MEMBERS = frozenset(("member", "members"))
"""Kinds that need the Hazelcast store."""

_USUAL = ("kill", "pause", "nameserver")
DEFAULT_KINDS: Mapping[int, Sequence[str]] = {
    1: _USUAL,
    2: (*_USUAL, "partition", "delay", "loss"),
}
"""Kinds of a run that asks for none in particular, by the number of hosts."""

NETWORK = frozenset(("partition", "deaf", "mute", "delay", "loss"))

LINK = "link"
"""The target of faults of the network, where there are two hosts."""

ON_HOST: Mapping[str, str] = {
    NAME_SERVER: "b",
    DATA: "b",
    "bank.business.1": "b",
    "msg.facade.1": "b",
    "bank.business.2": "a",
    "msg.logger.1": "a",
    "msg.logger.2": "a",
    "msg.messages.1": "a",
    GATEWAY: "a",
}
"""Where each service is, if there are two hosts: so that every operation has to cross the link.

Those that keep messages are on one host, for they share a store. Clients are on host A.
"""

TWO_HOSTS_KINDS = NETWORK | {"kill", "pause", "nameserver"}
"""Kinds that there are with two hosts."""


def targets_of(kinds: Sequence[str], workload: str, hosts: int = 1) -> dict[str, Sequence[str]]:
    """Return whom each kind of fault may strike in a workload.

    Args:
        kinds: of faults.
        workload: its name.
        hosts: on how many the system runs, 1 or 2.

    Raises:
        ValueError: there is no such kind.
    """
    found: dict[str, Sequence[str]] = {}
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"no fault {kind!r}; there are {', '.join(KINDS)}")
        if kind == "nameserver":
            found[kind] = (NAME_SERVER,)
        elif kind == "power":
            found[kind] = (DATA,)
        elif kind in MEMBERS:
            found[kind] = ("hazelcast",)
        elif kind in ("full", "clock"):
            found[kind] = ("everybody",)
        elif hosts == 1:
            found[kind] = (_CALLED if kind in NETWORK else _SERVICES)[workload]
        elif kind in NETWORK:
            found[kind] = (LINK,)
        else:
            found[kind] = tuple(name for name in _SERVICES[workload] if name in ON_HOST)
    return found

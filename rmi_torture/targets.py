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

MEMBERS = frozenset(("member", "members"))
"""Kinds that need the Hazelcast store."""

NETWORK = frozenset(("partition", "deaf", "mute", "delay", "loss"))


def targets_of(kinds: Sequence[str], workload: str) -> dict[str, Sequence[str]]:
    """Return whom each kind of fault may strike in a workload.

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
        else:
            found[kind] = (_CALLED if kind in NETWORK else _SERVICES)[workload]
    return found

"""Which faults ``rmi torture`` can strike with on this machine, and on how many hosts."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console

from rmi_torture.faults.setup import missing_means, possible_kinds
from rmi_torture.namespaces import why_no_hosts
from rmi_torture.targets import KINDS, MEMBERS


def hosts_here(hosts: int, store: str, console: Console) -> int:
    """Return on how many hosts to run: one, if there cannot be two, which is told.

    Raises:
        click.UsageError: two do not go with that store.
    """
    if hosts == 2 and store == "hazelcast":
        raise click.UsageError("--hosts 2 needs --store sqlite")
    if hosts == 2 and (why := why_no_hosts()):
        console.print(f"on one host, with a TCP proxy between services: {why}", markup=False)
        return 1
    return hosts


def kinds_here(
    faults: str | None, usual: Sequence[str], store: str, hosts: int, console: Console
) -> tuple[str, ...]:
    """Return the kinds of faults to strike with; those that cannot be had here are told.

    Args:
        faults: what was asked for, or None.
        usual: what is meant then.
        store: where messages are kept.
        hosts: on how many hosts the system runs.
        console: where it is told.

    Raises:
        click.BadParameter: one that was asked for by name cannot be had, or is none.
    """
    missing = missing_means(hosts)
    if faults is None or faults == "all":
        wanted = usual if faults is None else KINDS
        for kind, why in missing.items():
            if kind in wanted:
                console.print(f"without the fault {kind!r}: it {why}", markup=False)
        return tuple(kind for kind in possible_kinds(store, hosts) if kind in wanted)
    kinds = tuple(kind for kind in faults.split(",") if kind and kind != "none")
    for kind in kinds:
        why_not = ""
        if kind not in KINDS:
            why_not = f"is not one of {', '.join(KINDS)}, all, none"
        elif kind in missing:
            why_not = missing[kind]
        elif kind in MEMBERS and store != "hazelcast":
            why_not = "needs --store hazelcast"
        if why_not:
            raise click.BadParameter(f"{kind!r} {why_not}", param_hint="'--faults'")
    return kinds

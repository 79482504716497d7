"""What a store's cluster is doing, in words: made by the services, read by people. Plain code.

The loggers and the messages services judge the cluster by what they see of it, and tell it with
their daemon's ``stats()`` as ``store``; :func:`common_state` makes one of many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

STORE: Final = "store"
"""The name under which a service tells this in its daemon's ``stats()``."""

State = Literal["safe", "joining", "migrating", "lost", "alone", "silent", "unreachable"]


class ClusterState(msgspec.Struct, frozen=True):
    """What a Hazelcast cluster is doing, as one process sees it.

    Attributes:
        state: ``safe``: all members are there, and the next loss loses nothing; ``joining``: not
            all have come yet; ``migrating``: data is being moved, or backups are being made;
            ``lost``: members were lost, and the data is settled on the others; ``alone``: only one
            is expected, so there are no backups; ``silent``: a member is there and does not
            answer; ``unreachable``: there is no connection to any.
        members: how many there are.
        expected: how many there should be.
        absent: ``host:port`` of those that are not there, if it is known.
        losses: how many may be lost at once without losing a message; None: not known just now.
        safe: whether the next loss of a member is known to lose nothing.
        says: all that in a sentence.
    """

    state: State
    members: int
    expected: int
    absent: tuple[str, ...]
    losses: int | None
    safe: bool
    says: str


def judge(
    present: Sequence[str],
    expected: Sequence[str],
    losses: int | None,
    *,
    silent: bool = False,
    was_whole: bool = False,
) -> ClusterState:
    """Put together what one process knows.

    Args:
        present: ``host:port`` of the members of the cluster; none if there is no connection.
        expected: ``host:port`` of those that should be there.
        losses: how many may be lost at once; None: data is being moved, or nobody knows yet.
        silent: whether a member did not answer when it was asked last.
        was_whole: whether all have been there before.
    """
    count, wanted = len(present), max(len(expected), len(present))
    absent = tuple(address for address in expected if address not in present)
    if len(absent) != wanted - count:  # members that call themselves otherwise than we do
        absent = ()
    known = None if silent or not count else losses
    state = _state(count, wanted, known, silent, was_whole)
    return ClusterState(
        state, count, wanted, absent, known, bool(known), _says(state, count, wanted, absent, known)
    )


def _state(count: int, wanted: int, losses: int | None, silent: bool, was_whole: bool) -> State:
    if not count:
        return "unreachable"
    if silent:
        return "silent"
    if losses is None:
        return "migrating"
    if count < wanted:
        return "lost" if was_whole else "joining"
    return "safe" if losses else "alone"


def _says(state: State, count: int, wanted: int, absent: Sequence[str], losses: int | None) -> str:
    if state == "unreachable":
        return f"none of {wanted} members can be reached; nothing is accepted"
    there = f"{count} of {wanted} members"
    if count < wanted:
        who = f" {', '.join(absent)}" if absent else ""
        there += f" (not there:{who})" if who else ""
        there += ", lost a member" if state == "lost" else ""
        there += ", joining" if state == "joining" else ""
    if state == "silent":
        return f"{there}, not known to be safe: a member does not answer"
    if losses is None:
        return f"{there}, not safe for the next loss yet: data is being moved"
    if not losses:
        return f"{there}, not safe for the next loss: nobody has a backup"
    if losses > 1:
        return f"{there}, safe for the next loss: any {losses} may be lost at once"
    return f"{there}, safe for the next loss"


def common_state(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Make one state of those that services tell.

    Args:
        rows: the services' ``stats()``; those without ``store`` do not matter.

    Returns:
        The state that most of those who see any member agree on, the worst of several; None if no
        service has told one.
    """
    told = [row[STORE] for row in rows if isinstance(row.get(STORE), Mapping)]
    seeing = [one for one in told if one.get("members")] or told
    if not seeing:
        return None
    counts = Counter(one.get("members") for one in seeing)

    def rank(one: Any) -> tuple[int, int, int]:
        members = int(one.get("members") or 0)
        losses = one.get("losses")
        return -counts[one.get("members")], members, -1 if losses is None else int(losses)

    return dict(min(seeing, key=rank))

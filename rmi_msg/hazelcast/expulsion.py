"""Ends a member that the others went on without.

A member that is frozen is taken to be dead after 10 s. From then on what it holds is out of date.
When it wakes, it does not know, and until it has given way to the others it is a second cluster. If
too many of the others died just then, it might be them that give way. So the process that owns it
kills it as soon as it hears from the others that it is not one of them any more; it is started
again, empty, and gets its copies from them.

Nothing is lost by that: the others are more than half, and what they do not have was not
acknowledged (:mod:`~rmi_msg.hazelcast.others`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from rmi_msg.hazelcast.others import enough

log = logging.getLogger(__name__)


class OwnMember(Protocol):
    """What is asked of a member: see :class:`~rmi_msg.hazelcast.member.Member`."""

    @property
    def address(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...


class Expulsion:
    """Looks whether the own member is still one of the cluster.

    Args:
        member: the own one.
        expected: how many members there should be, this one too.
    """

    def __init__(self, member: OwnMember, expected: int) -> None:
        self._member = member
        self._expected = expected
        self._joined = 0  # the process that was seen in the cluster

    def on_members(self, present: Sequence[str]) -> None:
        """Take note of the members that are in the cluster now."""
        if self._member.address in present:
            self._joined = self._member.pid
        elif (
            enough(len(present), self._expected)
            and self._joined
            and self._joined == self._member.pid
        ):
            log.warning(
                "the cluster went on without member %s, and what that holds is out of date: it is "
                "killed, and starts again",
                self._member.address,
            )
            self._joined = 0
            self._member.kill()

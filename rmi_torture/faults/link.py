"""Faults of the link between two hosts: below TCP, for all that passes there."""

from __future__ import annotations

from rmi_torture.faults.base import Value
from rmi_torture.namespaces import TwoHosts


class LinkFault:
    """One kind of fault of the link.

    Args:
        hosts: whose link it is.
        active: kinds of faults that are on; all faults of one link share it.
        kind: ``partition``, ``deaf``, ``mute``, ``delay`` or ``loss``.
    """

    def __init__(self, hosts: TwoHosts, active: set[str], kind: str) -> None:
        self._hosts = hosts
        self._active = active
        self._kind = kind

    async def begin(self, target: str) -> Value | None:
        """Begin it."""
        self._active.add(self._kind)
        self._hosts.suffer(self._active)
        return {}

    async def end(self, target: str) -> Value | None:
        """End it; what the others do to the link goes on."""
        await self.heal()
        return {}

    async def heal(self) -> None:
        """End it."""
        if self._kind in self._active:
            self._active.discard(self._kind)
            self._hosts.suffer(self._active)

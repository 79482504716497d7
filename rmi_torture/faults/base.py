"""What a fault is to those who order it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Value = Mapping[str, Any]


class Fault(Protocol):
    """One kind of trouble, which can be made in several places at once."""

    async def begin(self, target: str) -> Value | None:
        """Make it.

        Returns:
            What was done, for the history; None if there was nothing to do it to.
        """

    async def end(self, target: str) -> Value | None:
        """Take it back; harmless if it is over already."""

    async def heal(self) -> None:
        """Take back all that is left of it."""

"""Where the members are, from the settings. Plain code."""

from __future__ import annotations

from typing import Final

from rmi_runtime import Settings

MEMBER_HOST: Final = "127.0.0.1"
"""Members that loggers start listen here only: they have no passwords and no TLS."""


def member_address(settings: Settings, number: int) -> str:
    """Return ``host:port`` of the member that logger *number* (from 1) starts."""
    return f"{MEMBER_HOST}:{settings.hazelcast_port + number - 1}"


def member_addresses(settings: Settings, number: int = 1) -> tuple[str, ...]:
    """Return ``host:port`` of all members to be expected.

    Args:
        settings: of which ``hazelcast_members`` are taken, if there are any; if not, one is
            expected for each logger.
        number: a logger that is to be among them, even if there are fewer loggers.
    """
    if settings.hazelcast_members:
        return settings.hazelcast_members
    return tuple(member_address(settings, n) for n in range(1, max(settings.loggers, number) + 1))

"""Where the members are, from the settings. Plain code."""

from __future__ import annotations

from typing import Final

from rmi_runtime import Settings, SettingsError, split_address

MEMBER_HOST: Final = "127.0.0.1"
"""Members that loggers start listen here only: they have no passwords and no TLS."""

AMONG_MEMBERS: Final = 100
"""How far a member's port for other members lies above its port for clients: beyond those of 64
loggers."""

_PORT_MAX: Final = 65535


def member_address(settings: Settings, number: int) -> str:
    """Return ``host:port`` of the member that logger *number* (from 1) starts.

    Raises:
        SettingsError: there is no port so high.
    """
    port = settings.hazelcast_port + number - 1
    if port > _PORT_MAX:
        raise SettingsError(
            f"--id: the Hazelcast member of logger {number} would listen on port {port}, and there "
            f"is none above {_PORT_MAX}; give this logger a lower number, or members that run "
            "elsewhere with --hazelcast-members",
            field="id",
            source="--id",
        )
    return f"{MEMBER_HOST}:{port}"


def member_addresses(settings: Settings, number: int = 1) -> tuple[str, ...]:
    """Return ``host:port`` of all members to be expected.

    Args:
        settings: of which ``hazelcast_members`` are taken, if there are any; if not, one is
            expected for each logger.
        number: a logger that is to be among them, even if there are fewer loggers.
    """
    if settings.hazelcast_members:
        return settings.hazelcast_members
    count = max(settings.loggers, number)
    last = member_address(settings, count)  # if there is no such port, this is the one to blame
    return (*(member_address(settings, n) for n in range(1, count)), last)


def among_members(address: str) -> str:
    """Return where a member listens for other members, given where it does for clients.

    Args:
        address: ``host:port``.

    Returns:
        The same host, with the port :data:`AMONG_MEMBERS` higher; lower if there is none so high.
    """
    _, port = split_address(address)
    return f"{address.rpartition(':')[0]}:{_among_members(port)}"


def ports_taken(first: int, count: int) -> list[int]:
    """Return the ports that *count* members take whose ports for clients begin at *first*."""
    ports = list(range(first, first + count))
    return ports + [_among_members(port) for port in ports]


def _among_members(port: int) -> int:
    among = port + AMONG_MEMBERS
    return among if among <= _PORT_MAX else port - AMONG_MEMBERS

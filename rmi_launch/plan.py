"""Which services make up the system, and in which order they start and stop. Plain code."""

from __future__ import annotations

from dataclasses import dataclass

from rmi_runtime import Settings, SettingsError, split_address

PRELOAD = ("rmi_bank", "rmi_msg")
"""Modules that the services share; loaded once, before the first is forked."""

NAMESERVER = "Pyro.NameServer"
GATEWAY = "gateway"


@dataclass(frozen=True)
class ServiceSpec:
    """One service process.

    Args:
        name: name for people, and of its files below ``DATA_DIR/log``.
        target: ``module:function`` of the coroutine function that is the service; it is called
            with the settings and *args*.
        args: further arguments (the service's number).
    """

    name: str
    target: str
    args: tuple[int, ...] = ()


def plan_services(settings: Settings) -> list[list[ServiceSpec]]:
    """Return the services in groups: started from first to last, stopped from last to first.

    The first group is ready before the others are begun; those start at the same time, since each
    of them waits for what it needs. A group is stopped only when those that use it have stopped.
    """
    return [
        [ServiceSpec(NAMESERVER, "rmi_bank:run_nameserver")],
        [ServiceSpec("bank.data", "rmi_bank:run_data")],
        _numbered("bank.business", "rmi_bank:run_business", settings.business),
        _numbered("msg.logger", "rmi_msg:run_logger", settings.loggers),
        _numbered("msg.facade", "rmi_msg:run_facade", 1),
        _numbered("msg.messages", "rmi_msg:run_messages", settings.messages),
        _gateways(settings.gateway_workers),
    ]


def is_gateway(name: str) -> bool:
    """Say whether the service *name* speaks HTTP rather than Pyro."""
    return name.partition(".")[0] == GATEWAY


def check_gateways(settings: Settings) -> None:
    """Refuse several gateway processes on a port that is yet to be found.

    Raises:
        SettingsError: ``gateway_workers`` is above 1 and the port of ``http`` is 0.
    """
    if settings.gateway_workers > 1 and split_address(settings.http)[1] == 0:
        raise SettingsError(
            "http: several gateway processes share one port, which must be named, not 0",
            field="http",
            source="Settings",
        )


def _gateways(count: int) -> list[ServiceSpec]:
    target = "rmi_msg:run_gateway"
    if count == 1:
        return [ServiceSpec(GATEWAY, target)]
    # They share one port; the kernel deals the connections out.
    return [ServiceSpec(f"{GATEWAY}.{n}", target) for n in range(1, count + 1)]


def _numbered(name: str, target: str, count: int) -> list[ServiceSpec]:
    return [ServiceSpec(f"{name}.{n}", target, (n,)) for n in range(1, count + 1)]

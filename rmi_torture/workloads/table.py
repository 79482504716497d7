"""The workloads by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rmi_torture.workloads.bank import BankWorkload
from rmi_torture.workloads.base import Setting, Workload
from rmi_torture.workloads.lock import LockWorkload
from rmi_torture.workloads.messages import MessagesWorkload, QueueWorkload

_WORKLOADS: Mapping[str, Callable[[Setting], Workload]] = {
    "bank": BankWorkload,
    "messages": MessagesWorkload,
    "queue": QueueWorkload,
    "lock": LockWorkload,
}


def make_workload(name: str, setting: Setting) -> Workload:
    """Return the workload of that name.

    Raises:
        KeyError: there is none.
    """
    return _WORKLOADS[name](setting)

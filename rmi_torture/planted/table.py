"""All planted bugs: where each shows, and who must catch it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rmi_torture.planted import caller_bugs, data_bugs, message_bugs


@dataclass(frozen=True)
class Bug:
    """A bug to be planted.

    Attributes:
        plant: replaces a part of the product, in the process that services are forked from; its
            docstring says what is wrong then.
        workload: in which it shows.
        faults: under which it shows.
        caught_by: checkers of which at least one must find it.
        seconds: how long it is looked for.
        every_s: time between two faults.
        environment: settings under which it shows soon.
        timeout_s: how long the clients wait.
        store: where messages are kept.
        backups: how many the Hazelcast cluster has of each entry when nothing is wrong with it; it
            is struck only then, so that what is lost is the bug's fault and not the harness'.
    """

    plant: Callable[[], None]
    workload: str
    faults: tuple[str, ...]
    caught_by: tuple[str, ...]
    seconds: float = 8.0
    every_s: float = 1.0
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 3.0
    store: str = "sqlite"
    backups: int = 2

    @property
    def name(self) -> str:
        """Its name, for people and commands."""
        return self.plant.__name__.replace("_", "-")

    @property
    def what(self) -> str:
        """What is wrong, in a sentence."""
        return (self.plant.__doc__ or "").strip().splitlines()[0]


_LEASE = {"RMI_LOCK_LEASE_S": "0.4"}
_IMPATIENT = {"RMI_CALL_TIMEOUT_S": "0.6", "RMI_LOCK_WAIT_S": "0.3"}
_ORDER, _EFFECTS, _LOCKS = "bank order", "effects", "locks"

_ALL = (
    Bug(data_bugs.no_fencing, "lock", ("pause",), (_LOCKS, "commits"), 10, environment=_LEASE),
    Bug(data_bugs.lease_outlives_owner, "lock", ("pause",), (_LOCKS,), environment=_LEASE),
    Bug(data_bugs.epoch_stands_still, "lock", ("kill",), (_LOCKS,), environment=_LEASE),
    Bug(data_bugs.unlock_too_early, "bank", (), (_ORDER,), 4),
    Bug(data_bugs.acknowledged_before_written, "bank", ("kill",), (_EFFECTS,)),
    Bug(data_bugs.synced_now_and_then, "bank", ("power",), (_EFFECTS,)),
    Bug(data_bugs.seen_before_written, "bank", ("power",), (_ORDER,), 12, every_s=2.0),
    Bug(data_bugs.lost_update, "bank", (), (_EFFECTS,), 4),
    Bug(data_bugs.transfer_in_two_halves, "bank", (), (_EFFECTS,), 4),
    Bug(data_bugs.no_request_id_check, "bank", (), (_EFFECTS,), 4),
    Bug(data_bugs.stale_read, "bank", (), (_ORDER,), 4),
    Bug(caller_bugs.decided_on_old_balances, "bank", (), (_ORDER,), 4),
    Bug(
        caller_bugs.doubt_called_refusal,
        "bank",
        ("kill", "pause"),
        (_EFFECTS,),
        10,
        environment=_IMPATIENT,
    ),
    Bug(caller_bugs.another_payload_taken, "bank", (), (_EFFECTS,), 4),
    Bug(caller_bugs.repeat_answered_anew, "bank", (), (_EFFECTS,), 4),
    Bug(caller_bugs.retried_without_id, "bank", ("kill",), (_EFFECTS,), 10),
    Bug(message_bugs.acknowledged_before_stored, "messages", ("kill",), ("messages",)),
    Bug(message_bugs.keys_ignored, "messages", (), ("messages",), 4),
    Bug(message_bugs.another_text_taken, "messages", (), ("messages",), 4),
    Bug(message_bugs.others_ids_unknown, "messages", (), ("messages",), 4),
    Bug(message_bugs.stale_page, "messages", (), ("messages",), 4),
    Bug(message_bugs.marked_before_consumed, "queue", ("kill",), ("queue",)),
    Bug(message_bugs.never_given_back, "queue", ("kill",), ("queue",)),
    Bug(message_bugs.delivered_twice, "queue", (), ("queue",), 5),
    Bug(
        message_bugs.one_backup,
        "messages",
        ("members",),
        ("messages",),
        15,
        every_s=6.0,
        store="hazelcast",
        backups=1,
    ),
)

BUGS: Mapping[str, Bug] = {bug.name: bug for bug in _ALL}
"""By name."""


def plant(name: str) -> None:
    """Plant a bug in this process.

    Raises:
        KeyError: there is none of that name.
    """
    BUGS[name].plant()

"""What to run: all that decides a run, apart from the build and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rmi_torture.schedule import Step, plan_faults
from rmi_torture.targets import targets_of


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        workload: its name.
        faults: kinds of faults.
        seconds: how long the clients work.
        seed: of the schedule and the requests.
        requests: stop when so many operations were acknowledged; 0: only the time counts.
        faults_min: go on past the time, but not for ever, until so many faults were made.
        every_s: one fault begins in this time, on the average.
        lasting_s: longest duration of a fault.
        concurrency: clients of each kind.
        batch: operations in a batch.
        timeout_s: how long clients wait.
        store: where messages are kept, ``sqlite`` or ``hazelcast``.
        bug: name of a planted bug, or nothing.
        backups: how many the Hazelcast cluster has of each entry when nothing is wrong with it.
        hosts: on how many the system runs: 1, or 2, which are network namespaces.
        environment: more variables for the system, such as settings.
        arguments: more arguments for ``rmi up``.
    """

    workload: str = "bank"
    faults: tuple[str, ...] = ("kill", "pause", "nameserver")
    seconds: float = 60.0
    seed: int = 1
    requests: int = 0
    faults_min: int = 0
    every_s: float = 2.5
    lasting_s: float = 3.0
    concurrency: int = 4
    batch: int = 32
    timeout_s: float = 5.0
    store: str = "sqlite"
    bug: str = ""
    backups: int = 2
    hosts: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    def steps(self) -> list[Step]:
        """Return the schedule of its faults: the same for the same plan."""
        return plan_faults(
            self.seed,
            targets_of(self.faults, self.workload, self.hosts),
            for_s=self.seconds,
            every_s=self.every_s,
            lasting_s_max=self.lasting_s,
        )

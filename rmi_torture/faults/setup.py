"""What surrounds a system that is to be tortured: its directory, and the means of its faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rmi_torture.faults.base import Fault
from rmi_torture.faults.processes import Kill, Pause
from rmi_torture.system_under_test import SystemUnderTest


class Surroundings:
    """The means of a run's faults; an async context manager.

    Args:
        data_dir: of the system; must not exist or be empty.
        kinds: of faults.
        bug: name of a planted bug, or nothing.
    """

    def __init__(self, data_dir: Path, kinds: Sequence[str], bug: str = "") -> None:
        self._data_dir = data_dir
        self._kinds = kinds
        self._bug = bug

    async def __aenter__(self) -> Surroundings:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def system(
        self, environment: Mapping[str, str], arguments: Sequence[str] = ()
    ) -> SystemUnderTest:
        """Return the system, to be started."""
        return SystemUnderTest(self._data_dir, arguments, dict(environment))

    def faults(self, system: SystemUnderTest) -> dict[str, Fault]:
        """Return the faults, by kind."""
        made: dict[str, Fault] = {
            "kill": Kill(system),
            "nameserver": Kill(system),
            "pause": Pause(system),
        }
        return {kind: made[kind] for kind in self._kinds}

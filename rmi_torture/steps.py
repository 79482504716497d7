"""Every single step of a commit, one at a time: the power is cut there, or the disk fails."""

from __future__ import annotations

import logging

from rmi_torture.checkers import Verdict
from rmi_torture.disk_failures import check_disk_failures
from rmi_torture.power_bank import check_bank_power_cuts
from rmi_torture.power_messages import check_message_power_cuts

GROUPS = 12


async def check_steps(seed: int, groups: int = GROUPS) -> list[Verdict]:
    """Do all of it, on the books and on the messages.

    Args:
        seed: of what is committed, and of what power cuts leave.
        groups: rounds of commits, and of posts and claims, during which the power is cut.
    """
    # The store says, rightly, of each failure that it is critical; there are hundreds here.
    loud = logging.getLogger("rmi_bank")
    before = loud.level
    loud.setLevel(logging.CRITICAL + 1)
    try:
        return [
            await check_bank_power_cuts(seed, groups),
            await check_message_power_cuts(seed, groups),
            await check_disk_failures(("full", "error")),
        ]
    finally:
        loud.setLevel(before)

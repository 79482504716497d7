"""How long the bank is away when its data object dies with a long journal behind it."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rmi_bank import BankClient, SqliteLedger, open_data
from rmi_runtime.errors import RmiError, Unavailable
from rmi_torture.interrupts import Interrupts
from rmi_torture.system_under_test import SystemUnderTest

ACCOUNTS = 10
POSTINGS = 2000
TRY_S = 0.05
GIVE_UP_S = 60.0
PAUSE_S = 0.005
READY_PAUSE_S = 0.3


@dataclass(frozen=True)
class Recovery:
    """What was measured.

    Attributes:
        lines: of the journal.
        seconds: per try, from SIGKILL to the first deposit that was acknowledged.
    """

    lines: int
    seconds: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        ordered = sorted(self.seconds)
        return {
            "lines": self.lines,
            "tries": len(ordered),
            "median_s": round(ordered[len(ordered) // 2], 3),
            "worst_s": round(ordered[-1], 3),
        }


def measure_recovery(out_dir: Path, lines: int, tries: int, seed: int = 1) -> Recovery:
    """Fill a journal, then kill the data object again and again.

    Ctrl-C, SIGTERM and the end of the terminal end it, and its system.

    Args:
        out_dir: the system's own directory is ``data`` in it.
        lines: of the journal, at least.
        tries: how often it is killed.
        seed: of the journal.

    Raises:
        Unavailable: it did not come back in a minute.
        KeyboardInterrupt: it was ended by a signal.
    """
    interrupts = Interrupts()
    interrupts.asked = True  # there is nothing to be judged: the first signal ends it

    async def measured() -> Recovery:
        with interrupts.watching():
            return await _measured(out_dir, lines, tries, seed)

    try:
        return asyncio.run(measured())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _measured(out_dir: Path, lines: int, tries: int, seed: int) -> Recovery:
    data_dir = out_dir / "data"
    data_dir.mkdir(parents=True, exist_ok=True)
    async with SystemUnderTest(data_dir):
        pass  # makes the demonstration's accounts and tokens
    held = await _fill(data_dir / "bank.sqlite", lines, Random(seed))  # noqa: S311
    found: list[float] = []
    async with SystemUnderTest(data_dir) as system:
        token = system.tokens()[1]
        async with BankClient([system.name_server], token=token, timeout_s=TRY_S) as bank:
            await _deposit(bank, "first")
            for number in range(tries):
                system.signal("bank.data", signal.SIGKILL)
                began_s = time.monotonic()
                await _deposit(bank, f"recovery-{number}")
                found.append(time.monotonic() - began_s)
                await system.all_ready()
                await asyncio.sleep(READY_PAUSE_S)
    return Recovery(held, tuple(found))


async def _deposit(bank: BankClient, request_id: str) -> None:
    deadline_s = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline_s:
        try:
            await bank.deposit(1, 1, request_id=request_id)
        except RmiError:
            await asyncio.sleep(PAUSE_S)
        else:
            return
    raise Unavailable(f"no deposit in {GIVE_UP_S:g} s")


async def _fill(path: Path, lines: int, rng: Random) -> int:
    """Write transfers until the journal has so many lines; return how many it has."""
    async with open_data(SqliteLedger(path)) as opened:
        data: Any = opened
        accounts = list(range(1, ACCOUNTS + 1))
        number = 0
        while data.figures()["lines"] < lines:
            ids = [f"0:fill-{number}-{n}" for n in range(POSTINGS)]
            grant = data.lock(0, accounts, ids)
            pairs = [rng.sample(accounts, 2) for _ in range(POSTINGS // 2)]
            # There and back, so that nobody runs out of money.
            both = [pair for a, b in pairs for pair in ((a, b), (b, a))]
            postings = [[a, b, 1, place] for place, (a, b) in enumerate(both)]
            outcomes = [
                [id_, f"transfer {a} {b} 1", "0"] for id_, (a, b) in zip(ids, both, strict=True)
            ]
            await data.commit(grant["lease"], postings, outcomes)
            number += 1
        return int(data.figures()["lines"])

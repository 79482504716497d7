"""A power cut at every step of a commit: what the books must survive, tried one by one.

The real ledger is opened on what each cut leaves (:mod:`rmi_torture.power`), and must find each
commit that had been acknowledged by then, every other one whole or not at all, and books that
balance; and it must go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rmi_bank import SqliteLedger, open_data
from rmi_torture.checkers import Verdict
from rmi_torture.disks import Happening, RecordingDisk
from rmi_torture.power import Cut, cuts, lay_out, scratch
from rmi_torture.vfs import Vfs

FILE_NAME = "bank.sqlite"
ACCOUNTS = 4
OPENING = 1000
LOG_PAGES = 8


@dataclass
class Commit:
    """A commit that was asked for.

    Attributes:
        request_ids: what it stores outcomes for.
        lines: how many journal lines it writes.
        acknowledged_at: how many happenings there had been when it was answered; None: it was not.
        number: its commit number, if it was answered.
    """

    request_ids: Sequence[str]
    lines: int
    acknowledged_at: int | None = None
    number: int = 0


@dataclass
class Recording:
    """What was done to a ledger, and what its disk saw of it.

    Attributes:
        happenings: of the disk.
        commits: that were asked for.
        opened: how many accounts were opened before them, at which happening.
    """

    happenings: list[Happening] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    opened: int = 0


async def record(directory: Path, seed: int, groups: int = 12) -> Recording:
    """Run the real data object on a disk that remembers.

    Args:
        directory: where its file goes.
        seed: of what is committed.
        groups: rounds of concurrent commits; the store is closed and opened again half-way.
    """
    disk = RecordingDisk()
    vfs = Vfs("rmi-recording", disk)
    recording = Recording(disk.happenings)
    rng = Random(seed)  # noqa: S311 (repeatable on purpose)
    try:
        for half in range(2):
            uri = f"file:{directory / FILE_NAME}?vfs=rmi-recording"
            log_pages = LOG_PAGES * half  # a log that grows, then one that is long already
            async with open_data(SqliteLedger(uri, uri=True, log_pages=log_pages)) as data:
                if not half:
                    for account in range(1, ACCOUNTS + 1):
                        await data.open_account(account, OPENING, None, f"open-{account}")
                    recording.opened = len(disk.happenings)
                for group in range(groups // 2):
                    pairs = [(1, 2), (3, 4)] if rng.random() < 0.7 else [(1, 3)]
                    await asyncio.gather(
                        *(
                            _commit(data, recording, rng, f"{half}.{group}.{n}", pair)
                            for n, pair in enumerate(pairs)
                        )
                    )
    finally:
        vfs.unregister()
    return recording


async def _commit(
    data: Any, recording: Recording, rng: Random, name: str, accounts: tuple[int, int]
) -> None:
    """Make a commit of a few transfers between two accounts."""
    ids = [f"1:{name}.{n}" for n in range(rng.randint(1, 3))]
    found = data.lock(1, accounts, ids)
    grant = await found if asyncio.iscoroutine(found) else found
    source, target = accounts
    postings = [[source, target, rng.randint(1, 20), place] for place in range(len(ids))]
    outcomes = [
        [id_, f"transfer {source} {target} {p[2]}", "1"]
        for id_, p in zip(ids, postings, strict=True)
    ]
    commit = Commit(ids, len(ids))
    recording.commits.append(commit)
    commit.number = await data.commit(grant["lease"], postings, outcomes)
    commit.acknowledged_at = len(recording.happenings)


async def check_bank_power_cuts(seed: int = 1, groups: int = 12) -> Verdict:
    """Cut the power after every step, in every way, and look at what is left.

    Args:
        seed: of what is committed, and of what the cuts leave.
        groups: rounds of commits.

    Returns:
        A verdict; its errors are ``unreadable``, ``lost`` (acknowledged, and not there), ``half``
        (some of a commit is there), ``unbalanced`` and ``stopped`` (no new commit can be made).
    """
    verdict = Verdict("power cuts, bank").expect(
        "unreadable", "lost", "half", "unbalanced", "stopped"
    )
    with scratch("rmi-power-") as name:
        directory = Path(name)
        recording = await record(directory, seed, groups)
        for cut in cuts(recording.happenings, seed):
            await _look(directory / "left", cut, recording, verdict)
    return verdict


async def _look(directory: Path, cut: Cut, recording: Recording, verdict: Verdict) -> None:
    """Open the ledger on what is left."""
    lay_out(directory, cut.files)
    step, where = cut.step, cut.where
    verdict.checked += 1
    ledger = SqliteLedger(directory / FILE_NAME)
    try:
        async with open_data(ledger) as opened:
            data: Any = opened
            lines = await _journal(data) if step >= recording.opened else []
            _judge(ledger, lines, recording, step, where, verdict)
            if step >= recording.opened:
                before = ledger.commit_no
                grant = data.lock(1, [1, 2], ["1:after"])
                number = await data.commit(grant["lease"], [[1, 2, 1, 0]], [["1:after", "x", "1"]])
                if number != before + 1:
                    verdict.blame("stopped", f"{where}: commit {number} followed {before}")
    except Exception as error:
        verdict.blame("unreadable", f"{where}: {error!r}")


async def _journal(data: Any) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for account in range(1, ACCOUNTS + 1):
        page = await data.statement(account, 0, 1000)
        found.update((line["line"], line) for line in page["lines"])
    return [found[line] for line in sorted(found)]


def _judge(
    ledger: SqliteLedger,
    lines: Sequence[Mapping[str, Any]],
    recording: Recording,
    step: int,
    where: str,
    verdict: Verdict,
) -> None:
    by_id: dict[str, int] = {}
    sums = dict.fromkeys(range(ACCOUNTS + 1), 0)
    for line in lines:
        by_id[line["request_id"]] = line["commit"]
        sums[line["debit"]] -= line["amount"]
        sums[line["credit"]] += line["amount"]
    if lines and list(sums.values()) != ledger.balances(sums):
        verdict.blame("unbalanced", f"{where}: {sums} by the journal, {ledger.balances(sums)}")
    for commit in recording.commits:
        outcomes = ledger.known(commit.request_ids)
        there = [id_.partition(":")[2] in by_id for id_ in commit.request_ids]
        if commit.acknowledged_at is not None and commit.acknowledged_at <= step:
            numbers = {known.commit for known in outcomes.values()}
            if not all(there) or len(outcomes) < len(there) or numbers != {commit.number}:
                verdict.blame("lost", f"{where}: commit {commit.number} had been acknowledged")
        elif any(there) != all(there) or len(outcomes) != sum(there):
            verdict.blame("half", f"{where}: of {commit.request_ids} there is {there}")

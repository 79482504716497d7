"""Speed does not come from skipped syncs: what is acknowledged has been synced before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rmi_bank import SqliteLedger
from rmi_bank.rules import NewOutcome, Posting
from rmi_bank.stores import Record
from rmi_torture.disks import Happening, RecordingDisk
from rmi_torture.vfs import Vfs

COMMITS = 64


class NotingDisk(RecordingDisk):
    """Remembers also where in the order of things a commit was acknowledged."""

    def acknowledge(self, commit: int) -> None:
        self.happenings.append(Happening("delete", f"acknowledged {commit}"))

    def forget(self) -> None:
        self.happenings.clear()

    def syncs(self) -> int:
        return sum(h.what == "sync" and h.path.endswith("-wal") for h in self.happenings)

    def acknowledged_unsynced(self) -> list[str]:
        """Return the acknowledgements given while something in the log was not synced."""
        found, unsynced = [], False
        for happening in self.happenings:
            if happening.path.startswith("acknowledged"):
                if unsynced:
                    found.append(happening.path)
            elif happening.path.endswith("-wal"):
                unsynced = happening.what == "write" or (unsynced and happening.what != "sync")
        return found


@pytest.fixture
def disk() -> Iterator[NotingDisk]:
    disk = NotingDisk()
    vfs = Vfs("rmi-noting", disk)
    yield disk
    vfs.unregister()


@pytest.fixture
async def ledger(tmp_path: Path, disk: NotingDisk) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger(f"file:{tmp_path / 'bank.sqlite'}?vfs=rmi-noting", uri=True)
    await ledger.start()
    accounts = range(1, 2 * COMMITS + 1)
    opening = Record(
        [Posting(0, account, 1000) for account in accounts],
        opened=[(account, None) for account in accounts],
    )
    await ledger.commit(opening)
    disk.forget()
    yield ledger
    await ledger.close()


def transfer(number: int) -> Record:
    source = 2 * number + 1
    posting = Posting(source, source + 1, 1, 0)
    return Record([posting], [NewOutcome(f"1:{number}", f"transfer {number}", "999")])


async def test_commits_one_after_the_other_have_a_sync_each(
    ledger: SqliteLedger, disk: NotingDisk
) -> None:
    for number in range(COMMITS):
        disk.acknowledge(await ledger.commit(transfer(number)))
    assert disk.syncs() >= COMMITS
    assert ledger.transactions == COMMITS + 1  # and the opening
    assert disk.acknowledged_unsynced() == []


async def test_commits_that_share_a_transaction_share_its_sync_and_wait_for_it(
    ledger: SqliteLedger, disk: NotingDisk
) -> None:
    before = ledger.transactions
    commits = [ledger.commit(transfer(number)) for number in range(COMMITS)]
    synced_at_ack: list[int] = []
    for commit in commits:
        commit.add_done_callback(lambda _: synced_at_ack.append(disk.syncs()))
    await asyncio.gather(*commits)
    groups = ledger.transactions - before
    assert 1 <= groups < COMMITS
    assert disk.syncs() >= groups
    assert min(synced_at_ack) >= 1


async def test_the_check_sees_an_acknowledgement_that_came_too_early(
    ledger: SqliteLedger, disk: NotingDisk
) -> None:
    writes = len(disk.happenings)
    commit = ledger.commit(transfer(0))
    await commit
    first_write = next(
        place for place in range(writes, len(disk.happenings)) if disk.happenings[place].data
    )
    disk.happenings.insert(first_write + 1, Happening("delete", "acknowledged 2"))
    assert disk.acknowledged_unsynced() == ["acknowledged 2"]

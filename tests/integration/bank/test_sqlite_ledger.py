"""The books in a real SQLite file: group commit, crashes, full disks, failing disks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rmi_bank.errors import AccountExists, BalanceLimit, StoreFull
from rmi_bank.operations import AMOUNT_MAX, BALANCE_END, CASH
from rmi_bank.rules import Known, NewOutcome, Posting
from rmi_bank.stores import NewToken, Record, folding
from rmi_bank.stores.sqlite import SqliteLedger
from rmi_runtime import StoreGone
from rmi_runtime.errors import Conflict, Interrupted, Unavailable

ACCOUNTS = range(1, 21)


@contextlib.asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger(path, **options)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.sqlite"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SqliteLedger]:
    async with opened(path) as ledger:
        await ledger.commit(opening(*ACCOUNTS))
        yield ledger


def opening(*accounts: int, balance: int = 1000) -> Record:
    return Record(
        [Posting(CASH, account, balance) for account in accounts],
        opened=[(account, 7 if account % 2 else None) for account in accounts],
    )


def transfer(source: int, target: int, amount: int, request_id: str = "") -> Record:
    if not request_id:
        return Record([Posting(source, target, amount)])
    return Record([Posting(source, target, amount, 0)], [NewOutcome(f"1:{request_id}", "op", "9")])


def query(path: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


async def test_what_was_committed_is_there_after_a_restart(path: Path) -> None:
    async with opened(path) as ledger:
        await ledger.commit(opening(*ACCOUNTS))
        number = await ledger.commit(transfer(1, 2, 300, "r"))
        first_epoch = ledger.epoch
    async with opened(path) as ledger:
        assert ledger.balances([1, 2, 3, 99]) == [700, 1300, 1000, None]
        assert ledger.owners([1, 2, 99]) == [7, None, None]
        assert ledger.known(["1:r", "1:s"]) == {"1:r": Known("op", "9", number)}
        assert ledger.commit_no == number
        assert ledger.epoch > first_epoch
        assert [line.amount for line in await ledger.statement(1, 0, 10)] == [1000, 300]
        assert await ledger.commit(transfer(2, 1, 1)) == number + 1


async def test_commits_that_come_together_share_transactions_and_keep_their_own_numbers(
    ledger: SqliteLedger,
) -> None:
    before = ledger.transactions
    records = [transfer(account, CASH, 1) for account in ACCOUNTS]
    numbers = await asyncio.gather(*(ledger.commit(record) for record in records))
    assert numbers == list(range(2, 2 + len(records)))
    assert ledger.transactions - before == 1


async def test_transactions_on_disk_are_counted_by_the_store_itself(
    ledger: SqliteLedger, path: Path
) -> None:
    for _ in range(5):
        await ledger.commit(transfer(1, 2, 1))
    assert query(path, "SELECT transactions FROM state") == [(6,)]


async def test_a_commit_is_on_disk_before_it_is_answered(ledger: SqliteLedger, path: Path) -> None:
    number = await ledger.commit(transfer(1, 2, 5, "r"))
    assert query(path, "SELECT commit_no FROM outcomes WHERE request_id = '1:r'") == [(number,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


async def test_memory_shows_nothing_that_is_not_on_disk(ledger: SqliteLedger) -> None:
    pending = ledger.commit(transfer(1, 2, 5))
    assert ledger.balances([1, 2]) == [1000, 1000]
    await pending
    assert ledger.balances([1, 2]) == [995, 1005]


async def test_a_commit_that_the_store_refuses_does_not_spoil_the_others_of_its_group(
    ledger: SqliteLedger, path: Path
) -> None:
    with sqlite3.connect(path) as behind_its_back:
        behind_its_back.execute("INSERT INTO accounts VALUES (99, 0, NULL, 0)")
    good, bad, other = await asyncio.gather(
        ledger.commit(transfer(3, 4, 5, "a")),
        ledger.commit(Record([Posting(5, 6, 5)], opened=[(99, None)])),
        ledger.commit(transfer(7, 8, 5, "b")),
        return_exceptions=True,
    )
    assert isinstance(bad, Conflict)
    assert isinstance(good, int)
    assert isinstance(other, int)
    assert ledger.balances([3, 5, 6, 7]) == [995, 1000, 1000, 995]
    assert sum(balance or 0 for balance in ledger.balances([CASH, *ACCOUNTS])) == 0


async def test_a_full_disk_refuses_definitely_changes_nothing_and_heals(
    ledger: SqliteLedger,
) -> None:
    def limit(connection: sqlite3.Connection, pages: int | None) -> None:
        (used,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages or used}")

    await ledger._writer.run(limit, None)
    # Long ids, so that one commit needs new pages.
    big = Record(outcomes=[NewOutcome(f"1:{n:0200d}", "op", "9") for n in range(500)])
    with pytest.raises(StoreFull) as caught:
        await ledger.commit(big)
    assert caught.value.definite
    assert not ledger.broken
    assert ledger.known(["1:" + "0" * 200]) == {}
    await ledger._writer.run(limit, 2**30)
    assert await ledger.commit(big) == ledger.commit_no == 2
    assert len(ledger.known([outcome.request_id for outcome in big.outcomes])) == 500


class FailingDisk:
    """Stands in for the writing thread; the write happens or not, and then fails."""

    def __init__(self, ledger: SqliteLedger, *, written: bool) -> None:
        self._writer = ledger._writer
        self._written = written
        ledger._writer = self  # type: ignore[assignment]

    async def run(self, function: Any, *args: Any) -> Any:
        if self._written:
            await self._writer.run(function, *args)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    async def close(self) -> None:
        await self._writer.close()


@pytest.mark.parametrize("written", [True, False])
async def test_after_a_failed_write_the_truth_is_what_the_file_holds(
    ledger: SqliteLedger, written: bool
) -> None:
    FailingDisk(ledger, written=written)
    ended = await asyncio.gather(
        ledger.commit(transfer(1, 2, 5, "r")),
        ledger.commit(transfer(3, 4, 5, "s")),
        return_exceptions=True,
    )
    assert [type(error) for error in ended] == [Interrupted, Interrupted]
    assert not any(error.definite for error in ended if isinstance(error, Interrupted))
    assert ledger.broken
    assert ledger.balances([1, 2]) == [1000, 1000]
    with pytest.raises(Unavailable):
        ledger.commit(transfer(5, 6, 5))
    epoch = ledger.epoch
    await ledger.reopen()
    assert not ledger.broken
    assert ledger.epoch > epoch
    moved = 5 if written else 0
    assert ledger.balances([1, 2, 3, 4]) == [1000 - moved, 1000 + moved] * 2
    assert set(ledger.known(["1:r", "1:s"])) == ({"1:r", "1:s"} if written else set())
    assert await ledger.commit(transfer(5, 6, 5)) == ledger.commit_no


async def test_a_statement_pages_through_all_lines_of_an_account_once_in_order(
    ledger: SqliteLedger, path: Path
) -> None:
    rng = random.Random(5)
    for _ in range(60):
        postings = []
        for _ in range(40):
            source, target = rng.sample([1, 2, 3, CASH], 2)
            postings.append(Posting(source, target, 1))
        await ledger.commit(Record(postings))
    for account in (1, 2, 3):
        sql = f"SELECT line FROM journal WHERE {account} IN (debit, credit) ORDER BY line"
        expected = [line for (line,) in query(path, sql)]
        assert len(expected) > 1000
        for limit in (1, 7, 100, 1000):
            found: list[int] = []
            page = await ledger.statement(account, 0, limit)
            while page and (limit > 1 or len(found) < 100):
                assert len(page) == limit or page[-1].line == expected[-1]
                found += [line.line for line in page]
                page = await ledger.statement(account, found[-1], limit)
            assert found == expected[: len(found)]
            assert limit == 1 or len(found) == len(expected)
        middle = expected[500]
        page = await ledger.statement(account, middle, 5)
        assert [line.line for line in page] == expected[501:506]
        assert await ledger.statement(account, expected[-1], 5) == []


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM journal WHERE credit = 1",
        "DELETE FROM journal WHERE amount = 2",
        "UPDATE journal SET debit_before = 3 WHERE amount = 3",  # a line of others
    ],
)
async def test_a_damaged_journal_is_told_at_once_and_is_no_fault_of_the_caller(
    ledger: SqliteLedger, path: Path, harm: str
) -> None:
    for amount in (1, 2, 3):
        await ledger.commit(transfer(1, 2, amount))
    query(path, harm)
    with pytest.raises(StoreGone, match=r"account 1 is damaged .*good copy"):
        await ledger.statement(1, 0, 10)
    assert len(await ledger.statement(3, 0, 10)) == 1


async def test_an_account_without_lines_has_an_empty_statement(ledger: SqliteLedger) -> None:
    await ledger.commit(Record(opened=[(77, None)]))
    assert ledger.balances([77]) == [0]
    assert await ledger.statement(77, 0, 10) == []


async def test_the_view_of_balances_is_right_in_the_middle_of_the_folding(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("FOLD_LINES", 30), ("_FOLD_LEAST", 1)):
        monkeypatch.setattr(folding, name, value)
    rng = random.Random(7)
    folded = set()
    async with opened(path) as ledger:
        await ledger.commit(opening(*ACCOUNTS))
        for _ in range(80):
            await ledger.commit(transfer(*rng.sample(ACCOUNTS, 2), 1))
            shown = dict(query(path, "SELECT account, balance FROM balances"))
            everyone = [CASH, *ACCOUNTS]
            assert [shown[account] for account in everyone] == ledger.balances(everyone)
            folded.add(query(path, "SELECT folded_line FROM state")[0][0])
    assert len(folded) > 3


async def test_cash_has_a_floor_that_no_group_of_commits_passes(ledger: SqliteLedger) -> None:
    ledger._books.accounts.take({CASH: -(BALANCE_END - 2 * AMOUNT_MAX - 1)}, {})
    ended = await asyncio.gather(
        *(ledger.commit(Record([Posting(CASH, account, AMOUNT_MAX)])) for account in (1, 2, 3)),
        ledger.commit(transfer(4, 5, 1)),
        return_exceptions=True,
    )
    assert [type(one) for one in ended] == [int, int, BalanceLimit, int]
    assert ledger.balances([3, 4]) == [1000, 999]


async def test_an_account_is_opened_once_even_if_nobody_checked(ledger: SqliteLedger) -> None:
    with pytest.raises(AccountExists):
        ledger.check(opening(1), {1})
    with pytest.raises(Conflict):
        await ledger.commit(opening(1))
    assert ledger.balances([1]) == [1000]


async def test_a_file_of_another_format_is_not_touched(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Conflict, match="format 99"):
        await SqliteLedger(path).start()
    assert query(path, "SELECT * FROM sqlite_master") == []


async def test_a_file_whose_books_do_not_balance_is_not_opened(path: Path) -> None:
    async with opened(path) as ledger:
        await ledger.commit(opening(1))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE journal SET amount = amount + 1 WHERE line = 1")
    connection.execute("UPDATE accounts SET balance = balance + 1 WHERE account = 1")
    connection.commit()
    connection.close()
    with pytest.raises(Conflict, match="do not balance"):
        await SqliteLedger(path).start()


async def test_accounts_are_listed_in_pages(ledger: SqliteLedger) -> None:
    assert ledger.accounts(0, 3) == [(1, 7), (2, None), (3, 7)]
    assert ledger.accounts(18, 10) == [(19, 7), (20, None)]


async def test_tokens_are_good_until_they_are_revoked_or_expire(path: Path) -> None:
    now_us = 1_000_000
    async with opened(path, clock_us=lambda: now_us) as ledger:
        one = await ledger.add_token(NewToken("a" * 64, 1, "teller"))
        await ledger.add_token(NewToken("b" * 64, 2, "customer", expires_at_us=now_us + 5))
        assert ledger.identify("a" * 64) == (1, "teller")
        assert ledger.identify("b" * 64) == (2, "customer")
        assert ledger.identify("c" * 64) is None
        now_us += 5
        assert ledger.identify("b" * 64) is None
        assert await ledger.revoke_token(one.id)
        assert not await ledger.revoke_token(one.id)
        assert not await ledger.revoke_token(99)
        assert ledger.identify("a" * 64) is None
        assert [token.revoked_at_us for token in await ledger.tokens(0, 10)] == [now_us, None]
        assert [token.client for token in await ledger.tokens(one.id, 10)] == [2]


async def test_seeding_is_for_an_empty_store_only_and_all_or_nothing(path: Path) -> None:
    token = NewToken("a" * 64, 1, "teller")
    async with opened(path) as ledger:
        with pytest.raises(sqlite3.IntegrityError):
            await ledger.seed(opening(1, 2), [token, token])
        assert ledger.balances([1]) == [None]
        assert await ledger.seed(opening(1, 2), [token])
        assert not await ledger.seed(opening(3), [token])
    async with opened(path) as ledger:
        assert ledger.balances([1, 2, 3]) == [1000, 1000, None]
        assert not await ledger.seed(opening(3), [])
        assert ledger.identify("a" * 64) == (1, "teller")


WRITER = """
import asyncio, random, sys
from rmi_bank.rules import NewOutcome, Posting
from rmi_bank.stores import Record
from rmi_bank.stores.sqlite import SqliteLedger

async def main():
    ledger = SqliteLedger(sys.argv[1])
    await ledger.start()
    rng = random.Random(3)
    if not ledger.commit_no:
        await ledger.commit(Record([Posting(0, a, 1000000) for a in range(1, 9)],
                                   opened=[(a, None) for a in range(1, 9)]))
    async def move(source, number):
        request_id = f"{sys.argv[2]}:{source}-{number}"
        record = Record([Posting(source, source + 1, rng.randint(1, 9), 0)],
                        [NewOutcome(request_id, "op", "1")])
        print(await ledger.commit(record), request_id, flush=True)
    for number in range(10**9):
        await asyncio.gather(*(move(source, number) for source in (1, 3, 5, 7)))

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged_and_leaves_nothing_half_done(path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for attempt in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WRITER,
            str(path),
            str(attempt),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert process.stdout is not None
        for _ in range(100 + 37 * attempt):
            number, request_id = (await process.stdout.readline()).split()
            acknowledged[request_id.decode()] = int(number)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    async with opened(path) as ledger:
        known = ledger.known(list(acknowledged))
        assert {key: found.commit for key, found in known.items()} == acknowledged
        assert sum(balance or 0 for balance in ledger.balances(range(9))) == 0
    lines = query(path, "SELECT line, commit_no, outcome FROM journal ORDER BY line")
    assert [line for line, _, _ in lines] == list(range(1, len(lines) + 1))
    outcomes = query(path, "SELECT commit_no, outcome FROM outcomes ORDER BY commit_no")
    assert [(commit, number) for _, commit, number in lines if number] == outcomes

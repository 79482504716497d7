"""What the ledger writes, and what it leaves alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rmi_bank import SqliteLedger
from rmi_bank.rules import NewOutcome, Posting
from rmi_bank.stores import NewToken, Record, schema, transactions
from rmi_runtime.errors import Interrupted, Unavailable

OPENING = Record([Posting(0, 1, 1000), Posting(0, 2, 1000)], opened=[(1, None), (2, None)])


def record(request_id: str) -> Record:
    return Record([Posting(1, 2, 1, 0)], [NewOutcome(f"1:{request_id}", "op", "1")])


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger(tmp_path / "bank.sqlite")
    await ledger.start()
    yield ledger
    await ledger.close()


async def test_what_waits_behind_a_write_that_failed_is_not_written_and_certainly_not(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.commit(OPENING)
    insert = transactions.insert
    begun, fail = threading.Event(), threading.Event()

    def fails_once(*args: Any) -> None:
        if not begun.is_set():
            begun.set()
            assert fail.wait(10)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        insert(*args)

    monkeypatch.setattr(transactions, "insert", fails_once)
    first = ledger.commit(record("a"))
    assert await asyncio.to_thread(begun.wait, 10)
    others = [ledger.commit(record(request_id)) for request_id in "bc"]
    fail.set()
    ended = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(end) for end in ended] == [Interrupted, Unavailable, Unavailable]
    await ledger.reopen()
    assert set(ledger.known(["1:b", "1:c"])) == set()
    assert ledger.balances([1, 2]) == [1000, 1000]


async def test_a_store_with_tokens_is_not_seeded_and_goes_on(ledger: SqliteLedger) -> None:
    await ledger.add_token(NewToken("a" * 64, 1, "admin"))
    assert not await ledger.seed(OPENING, [NewToken("b" * 64, 2, "teller")])
    assert ledger.identify("b" * 64) is None
    assert ledger.balances([1]) == [None]
    assert await ledger.commit(OPENING) == 1


async def test_the_log_goes_into_the_file_now_and_then_and_does_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOG_PAGES_MAX", 16)
    ledger = SqliteLedger(tmp_path / "bank.sqlite")
    await ledger.start()
    await ledger.commit(OPENING)
    for number in range(300):  # some pages each
        await ledger.commit(record(f"{number}"))
    assert (tmp_path / "bank.sqlite-wal").stat().st_size < 64 * 4200
    await ledger.close()


@pytest.mark.parametrize("accounts", [(1, 2, 3), (1, 3, 4), (2, 1023, 4096, 10**15 + 1)])
async def test_accounts_with_and_without_gaps_between_their_numbers_are_there_after_a_restart(
    ledger: SqliteLedger, accounts: tuple[int, ...]
) -> None:
    opened = [(account, 7 if account % 2 else None) for account in accounts]
    await ledger.commit(Record([Posting(0, account, account) for account in accounts], [], opened))
    await ledger.reopen()
    assert ledger.balances([*accounts, 5]) == [*accounts, None]
    assert ledger.owners([*accounts, 5]) == [*[owner for _, owner in opened], None]
    assert ledger.figures()["accounts"] == len(accounts)

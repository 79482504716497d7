"""The ledgers that benchmarks fill in bulk are such as transfers would have left."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.filled import CLIENT, OPENING, TOKEN, fill
from rmi_bank import SqliteLedger
from rmi_bank.rules import NewOutcome, Posting
from rmi_bank.stores import Record
from rmi_runtime import hash_token

ACCOUNTS, LINES = 50, 3000


async def test_a_filled_ledger_opens_balances_and_pages_like_any_other(tmp_path: Path) -> None:
    fill(tmp_path, ACCOUNTS, LINES)
    ledger = SqliteLedger(tmp_path / "bank.sqlite")
    await ledger.start()  # refuses books that do not balance
    try:
        assert ledger.identify(hash_token(TOKEN)) == (CLIENT, "teller")
        lines = await ledger.statement(7, 0, LINES)
        moved = sum(line.amount if line.credit == 7 else -line.amount for line in lines)
        assert ledger.balances([7]) == [moved]
        assert len(lines) > 2 * (LINES - ACCOUNTS) // ACCOUNTS // 2
        assert sum(ledger.balances(range(1, ACCOUNTS + 1))) == ACCOUNTS * OPENING  # type: ignore
        last = lines[-1]
        assert last.request_id is not None
        known = ledger.known([last.request_id])[last.request_id]
        assert known.fingerprint == f"transfer {last.debit} {last.credit} 1"
        assert known.commit == last.commit
    finally:
        await ledger.close()


async def test_a_filled_ledger_goes_on(tmp_path: Path) -> None:
    fill(tmp_path, ACCOUNTS, LINES)
    ledger = SqliteLedger(tmp_path / "bank.sqlite")
    await ledger.start()
    try:
        before = await ledger.statement(1, 0, LINES)
        record = Record([Posting(1, 2, 5, 0)], [NewOutcome("1:new", "transfer 1 2 5", "0")])
        assert await ledger.commit(record) == LINES + 1
        after = await ledger.statement(1, 0, LINES)
        assert [line.line for line in after] == [*(line.line for line in before), LINES + 1]
    finally:
        await ledger.close()


async def test_a_ledger_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path, ACCOUNTS, LINES)
    before = (tmp_path / "bank.sqlite").read_bytes()
    with pytest.raises(FileExistsError, match="name another directory"):
        fill(tmp_path, ACCOUNTS + 1, LINES)
    assert (tmp_path / "bank.sqlite").read_bytes() == before

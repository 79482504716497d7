"""Every step of a commit: the power is cut there, or the disk fails. Careless stores are caught."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from rmi_torture.planted.parts import part
from rmi_torture.power_bank import check_bank_power_cuts
from rmi_torture.power_messages import check_message_power_cuts
from rmi_torture.steps import check_steps

GROUPS = 4


async def test_a_power_cut_or_a_failing_disk_at_any_step_of_a_commit_loses_nothing() -> None:
    bank, messages, failures = await check_steps(seed=1, groups=GROUPS)
    assert bank.examples == []
    assert bank.checked > 200
    assert messages.examples == []
    assert messages.checked > 200
    assert failures.examples == []
    assert failures.checked > 50


async def test_the_same_seed_finds_the_same() -> None:
    one, other = [await check_power_cuts(seed=2, groups=2) for _ in range(2)]
    assert one.as_dict() == other.as_dict()


async def test_a_store_that_does_not_sync_loses_what_it_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = part("rmi_runtime.sqlite")
    connect = module.connect

    def connect_carelessly(path: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **options)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    monkeypatch.setattr(module, "connect", connect_carelessly)
    verdict = await check_power_cuts(seed=1, groups=2)
    assert not verdict.valid


async def test_a_commit_in_two_transactions_is_found_half_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = part("rmi_bank.stores.sqlite")
    write = module._write

    def write_in_two(connection: sqlite3.Connection, plan: Any) -> None:
        outcomes, plan.outcomes = plan.outcomes, []
        write(connection, plan)
        connection.execute("BEGIN")
        module.schema.insert_rows(connection, module.schema.OUTCOMES, outcomes)
        connection.execute("COMMIT")

    monkeypatch.setattr(module, "_write", write_in_two)
    verdict = await check_power_cuts(seed=1, groups=2)
    assert verdict.counts["half"]

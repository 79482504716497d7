"""Every step of a commit: the power is cut there, or the disk fails. Careless stores are caught."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from rmi_torture.checkers import Verdict
from rmi_torture.planted.parts import part
from rmi_torture.power_bank import check_bank_power_cuts
from rmi_torture.power_messages import check_message_power_cuts
from rmi_torture.steps import check_steps

GROUPS = 4

Check = Callable[[int, int], Awaitable[Verdict]]


async def test_a_power_cut_or_a_failing_disk_at_any_step_of_a_commit_loses_nothing() -> None:
    bank, messages, failures = await check_steps(seed=1, groups=GROUPS)
    assert bank.examples == []
    assert bank.checked > 200
    assert messages.examples == []
    assert messages.checked > 200
    assert failures.examples == []
    assert failures.checked > 50


@pytest.mark.parametrize("check", [check_bank_power_cuts, check_message_power_cuts])
async def test_the_same_seed_finds_the_same(check: Check) -> None:
    one, other = [await check(2, 2) for _ in range(2)]
    assert one.as_dict() == other.as_dict()


@pytest.mark.parametrize("check", [check_bank_power_cuts, check_message_power_cuts])
async def test_a_store_that_does_not_sync_loses_what_it_acknowledged(
    monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    module = part("rmi_runtime.files.sqlite")
    connect = module.connect

    def connect_carelessly(path: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **options)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    monkeypatch.setattr(module, "connect", connect_carelessly)
    verdict = await check(1, 2)
    assert verdict.counts["lost"] or verdict.counts["unreadable"]


async def test_a_commit_in_two_transactions_is_found_half_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = part("rmi_bank.stores.sqlite")
    write = module._write

    def write_in_two(connection: sqlite3.Connection, plan: Any) -> None:
        write(connection, replace(plan, opened=[], journal=[], marks=[], folds=[]))
        write(connection, replace(plan, outcomes=[], index=()))

    monkeypatch.setattr(module, "_write", write_in_two)
    verdict = await check_bank_power_cuts(seed=1, groups=2)
    assert verdict.counts["half"]


async def test_a_batch_of_messages_in_several_transactions_is_found_half_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = part("rmi_msg.stores.sqlite:SqliteMessageStore")
    put_many = store.put_many

    async def put_singly(self: Any, messages: Any, logger: str) -> list[str]:
        return [word for one in messages for word in await put_many(self, [one], logger)]

    monkeypatch.setattr(store, "put_many", put_singly)
    verdict = await check_message_power_cuts(seed=1, groups=2)
    assert verdict.counts["half"]


@pytest.mark.parametrize(
    ("name", "instead", "kind"),
    [
        ("done", lambda connection, claim: True, "delivered again"),
        ("give_back", lambda connection, by: 0, "never offered"),
        ("add", lambda connection, claim, at_us: [True] * len(claim.messages), "not consumed"),
    ],
)
async def test_a_queue_that_forgets_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Callable[..., Any], kind: str
) -> None:
    monkeypatch.setattr(part("rmi_msg.stores.sqlite_tables"), name, instead)
    verdict = await check_message_power_cuts(seed=1, groups=2)
    assert verdict.counts[kind]

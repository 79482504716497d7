"""Requests whose ids came so long ago that they are in the table, and in memory no more."""

from __future__ import annotations

import asyncio

import pytest

from rmi_bank.stores import request_index
from rmi_runtime import Proxy
from tests.integration.bank.cluster import BankCluster


@pytest.fixture(autouse=True)
def small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_index, "PASS_IDS", 4)


async def leaves_memory(bank: BankCluster, one: Proxy, request_id: str) -> None:
    """Let others come until *request_id* is found in the table alone."""
    for number in range(100):
        if request_id not in bank.ledger._books.index._recent:
            return
        other = f"9:{number}"
        got = await one.lock(1, [], [other])
        await one.commit(got["lease"], [], [[other, "op", "1"]])
    raise AssertionError("it stays in memory")


async def test_who_has_to_wait_is_told_of_a_request_that_was_done_long_ago(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    got = await one.lock(1, [], ["7:a"])
    number = await one.commit(got["lease"], [], [["7:a", "op", "1"]])
    await leaves_memory(bank, one, "7:a")
    held = await one.lock(1, [1])
    waiting = asyncio.ensure_future(two.lock(2, [1], ["7:a"]))
    await bank.has_tickets(2)
    await one.unlock(held["lease"])
    assert (await waiting)["outcomes"] == {"7:a": ["op", "1", number]}


async def test_who_has_to_wait_for_long_is_told_of_a_request_that_was_done_meanwhile(
    bank: BankCluster, one: Proxy, two: Proxy
) -> None:
    held, got = await one.lock(1, [1]), await one.lock(1, [], ["7:a"])
    waiting = asyncio.ensure_future(two.lock(2, [1], ["7:a"], 50.0))
    await bank.has_tickets(3)
    number = await one.commit(got["lease"], [], [["7:a", "op", "1"]])
    await leaves_memory(bank, one, "7:a")
    assert not waiting.done()
    await one.unlock(held["lease"])
    assert (await waiting)["outcomes"] == {"7:a": ["op", "1", number]}

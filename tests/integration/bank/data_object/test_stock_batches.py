"""Batches of stock clients, which go on when their client has hung up."""

from __future__ import annotations

import asyncio
from typing import Any

import Pyro5.api
import pytest

from rmi_runtime import Proxy
from tests.integration.bank.cluster import SERVICE_HANDSHAKE, BankCluster
from tests.support import eventually


async def test_a_stock_batch_that_goes_on_without_its_client_locks_nothing(
    bank: BankCluster, one: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = asyncio.Event(), asyncio.Event()
    read = bank.ledger.statement

    async def slow(*args: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await read(*args)

    monkeypatch.setattr(bank.ledger, "statement", slow)
    part = bank.parts["bank.data"]

    def send() -> Pyro5.api.Proxy:
        proxy = Pyro5.api.Proxy(part.uri)
        proxy._pyroHandshake = SERVICE_HANDSHAKE
        batch = Pyro5.api.BatchProxy(proxy)
        batch.statement(1)
        batch.lock(1, [1])
        batch(oneway=True)
        return proxy

    proxy = await asyncio.to_thread(send)
    await reading.wait()
    left = len(part.daemon.connections) - 1
    proxy._pyroClaimOwnership()
    proxy._pyroRelease()
    await eventually(lambda: len(part.daemon.connections) == left)
    go_on.set()
    await eventually(lambda: not part.daemon.dispatcher.running)
    assert bank.data.figures()["tickets"] == 0
    await one.lock(1, [1], [], 0)

"""A data object with three accounts and a clock of its own, and two services that call it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rmi_runtime import Proxy
from tests.integration.bank.cluster import BankCluster
from tests.support import Clock


@pytest.fixture
async def bank(tmp_path: Path, clock: Clock) -> AsyncIterator[BankCluster]:
    async with BankCluster(tmp_path, 0, data_options={"clock": clock}) as bank:
        await bank.open_accounts(1, 2, 3)
        yield bank


@pytest.fixture
async def one(bank: BankCluster) -> AsyncIterator[Proxy]:
    async with bank.proxy("bank.data") as proxy:
        yield proxy


@pytest.fixture
async def two(bank: BankCluster) -> AsyncIterator[Proxy]:
    async with bank.proxy("bank.data") as proxy:
        yield proxy

"""A whole bank in one process, for the tests that do not make their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rmi_bank import BankClient
from rmi_runtime import Proxy
from tests.integration.bank.cluster import BankCluster

ACCOUNTS = range(1, 11)


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[BankCluster]:
    async with BankCluster(tmp_path, 3) as bank:
        await bank.open_accounts(*ACCOUNTS)
        yield bank


@pytest.fixture
async def one(bank: BankCluster) -> AsyncIterator[Proxy]:
    token = await bank.token(1, "teller")
    async with bank.proxy("bank.business.1", {"token": token}) as proxy:
        yield proxy


@pytest.fixture
async def two(bank: BankCluster) -> AsyncIterator[Proxy]:
    token = await bank.token(1, "teller")
    async with bank.proxy("bank.business.2", {"token": token}) as proxy:
        yield proxy


@pytest.fixture
async def client(bank: BankCluster) -> AsyncIterator[BankClient]:
    token = await bank.token(2, "teller")
    async with BankClient([bank.location], token=token, timeout_s=8.0) as client:
        yield client

"""Fixtures that several modules of this directory use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rmi_runtime import Daemon
from tests.integration.runtime.worker import Worker


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def daemon(worker: Worker) -> AsyncIterator[Daemon]:
    """A daemon with the worker, whose gate opens in the end."""
    async with Daemon() as daemon:
        daemon.register(worker, "target")
        yield daemon
        worker.gate.set()

"""Fixtures that several modules of this directory use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rmi_runtime import Daemon
from tests.integration.runtime.equal_services import Services
from tests.integration.runtime.names import name_server
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


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    """A name server, and services to be started."""
    async with name_server() as location:
        services = Services(location)
        try:
            yield services
        finally:
            for daemon in services.daemons.values():
                await daemon.close()
            await services.names.aclose()

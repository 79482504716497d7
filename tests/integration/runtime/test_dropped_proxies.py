"""Proxies that nobody closed, where warnings are errors: ``python -W error``."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from rmi_runtime import Daemon, Proxy, SyncProxy
from tests.support import eventually


def _drop(proxies: list[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proxies.clear()
        gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_dropped_proxy_closes_itself_also_if_the_warning_is_an_error() -> None:
    async with Daemon() as daemon:
        uri = f"PYRO:Pyro.Daemon@{daemon.location}"
        proxies: list[Any] = [Proxy(uri)]
        await proxies[0].ping()
        _drop(proxies)
        await eventually(lambda: not daemon.connections)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_so_does_a_sync_proxy_and_its_loop_is_closed() -> None:
    async with Daemon() as daemon:
        uri = f"PYRO:Pyro.Daemon@{daemon.location}"
        loops: list[asyncio.AbstractEventLoop] = []

        def script() -> None:
            proxies = [SyncProxy(uri)]
            proxies[0].ping()
            loops.append(proxies[0]._loop)
            _drop(proxies)

        await asyncio.to_thread(script)
        assert loops[0].is_closed()
        await eventually(lambda: not daemon.connections)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_proxies_that_a_method_gets_and_drops_are_closed_without_the_garbage_collector() -> (
    None
):
    async with Daemon() as daemon:
        gc.disable()
        try:
            for _ in range(20):
                guest = Proxy(f"PYRO:Pyro.Daemon@{daemon.location}")
                await guest.ping()
                del guest
            await eventually(lambda: not daemon.connections)
        finally:
            gc.enable()

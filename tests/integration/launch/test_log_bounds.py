"""The logs of all services have the bounds of the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rmi_bank import BankClient, run_business, run_data, run_nameserver
from rmi_msg import run_facade, run_logger, run_messages
from rmi_runtime import NameServers, Proxy, Settings, errors, load_or_create_cluster_key
from tests.ports import free_ports
from tests.support import eventually

LOGS = ("bank.data", "bank.business.1", "msg.facade.1", "msg.logger.1", "msg.messages.1")
FULL = b"OperationNumber: 7 - from before\n" * 2**15
"""A file that a bound of one MiB allows no more lines."""


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    """Run the services, each with a log that is full; three older files are one too many."""
    settings = Settings(
        data_dir=tmp_path,
        ns=(f"127.0.0.1:{free_ports()}",),
        demo=True,
        log_size_mib_max=1,
        log_files_max=3,
    )
    for name in LOGS:
        for suffix in ("log", "log.1", "log.2", "log.3"):
            path = tmp_path / "log" / f"{name}.{suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(FULL)
    stop = asyncio.Event()
    services = [
        run_nameserver(settings, stop=stop),
        run_data(settings, stop=stop),
        *(run(settings, 1, stop=stop) for run in (run_business, run_facade)),
        *(run(settings, 1, stop=stop) for run in (run_logger, run_messages)),
    ]
    running = [asyncio.ensure_future(service) for service in services]
    yield settings
    stop.set()
    await asyncio.gather(*running)


async def test_each_service_keeps_its_log_within_the_bounds_of_the_settings(
    settings: Settings,
) -> None:
    handshake = {"cluster_key": load_or_create_cluster_key(settings.data_dir)}
    async with NameServers(settings.ns, handshake=handshake) as names:

        async def ready() -> bool:
            try:
                return set(LOGS) <= set(await names.list())
            except errors.Unavailable:  # the name server is just starting
                return False

        await eventually(ready)
        async with BankClient(settings.ns, handshake=handshake) as bank:
            await bank.transfer(1, 2, 100)
        async with Proxy(await names.lookup("msg.facade.1"), handshake=handshake) as facade:
            await facade.post("hello")

    log_dir = settings.data_dir / "log"

    def set_aside() -> bool:
        return all((log_dir / f"{name}.log").stat().st_size < len(FULL) for name in LOGS)

    await eventually(set_aside)
    for name in LOGS:
        kept = sorted(path.name for path in log_dir.glob(f"{name}.log*"))
        assert kept == [f"{name}.log{end}" for end in ("", ".1", ".2", ".lock")]
    first = (log_dir / "bank.business.1.log").read_text().partition("\n")[0]
    assert " - OperationNumber: 8 - " in first

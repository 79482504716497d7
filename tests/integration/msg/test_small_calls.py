"""Messages that come together travel in calls that the services take, however small these are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from rmi_bank import run_nameserver
from rmi_msg import run_facade, run_gateway, run_logger
from rmi_runtime import Settings
from tests.ports import free_ports
from tests.support import eventually

COUNT = 60
TEXT = "я" * 50_000  # twice as many bytes


async def test_posts_that_come_together_are_taken_where_large_calls_are_not(
    tmp_path: Path,
) -> None:
    first = free_ports(2)
    settings = Settings(
        data_dir=tmp_path,
        ns=(f"127.0.0.1:{first}",),
        http=f"127.0.0.1:{first + 1}",
        message_size_bytes_max=1024 * 1024,
    )
    stop = asyncio.Event()
    services = [
        run_nameserver(settings, stop=stop),
        run_logger(settings, 1, stop=stop),
        run_logger(settings, 2, stop=stop),
        run_facade(settings, 1, stop=stop),
        run_gateway(settings, stop=stop),
    ]
    running = [asyncio.create_task(service) for service in services]
    async with httpx.AsyncClient(base_url=f"http://{settings.http}", timeout=30) as http:

        async def served() -> bool:
            try:
                return (await http.get("/messages")).status_code == 200
            except httpx.TransportError:
                return False

        try:
            await eventually(served, timeout_s=30)
            answers = await asyncio.gather(
                *(http.post("/messages", json={"text": f"{n}{TEXT}"}) for n in range(COUNT))
            )
            assert {answer.status_code for answer in answers} == {201}, answers[0].text[:500]
        finally:
            stop.set()
            await asyncio.gather(*running)

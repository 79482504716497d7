"""Real processes on one store: writing at once, and dying by ``kill -9``."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rmi_msg import MessageGateway
from rmi_msg.stores import Message, Stores
from rmi_msg.stores.opening import open_stores
from rmi_msg.stores.sqlite import FILE_NAME
from rmi_runtime import Endpoints, NameServers, Settings, load_or_create_cluster_key
from rmi_runtime.credentials import ServiceAuthenticator
from rmi_runtime.daemon import Daemon
from rmi_runtime.registry import NameKeeper, NameServer
from tests.integration.msg.pages import read_all
from tests.integration.msg.process import BATCHES, OWN, SHARED
from tests.support import eventually

WRITERS = 4


def start(*arguments: str, **options: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.integration.msg.process", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, **options)


async def follow(stores: Stores, ended: asyncio.Event) -> list[Message]:
    """Read behind the writers, page by page, until they have ended and nothing is left."""
    found: list[Message] = []
    after: str | None = None
    while True:
        over = ended.is_set()
        page = await stores.messages.page(after, 7)
        if page.next is not None:
            found += page.rows
            after = page.next
        elif over:
            return found + page.rows


async def test_processes_that_write_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    writers = [start("writer", str(number), str(tmp_path)) for number in range(WRITERS)]
    ended = asyncio.Event()
    async with open_stores(Settings(data_dir=tmp_path)) as stores:
        following = asyncio.create_task(follow(stores, ended))
        outputs = [await asyncio.to_thread(writer.communicate) for writer in writers]
        ended.set()
        followed = await following
        page = await stores.messages.page(None, 1000)
        rows, after = list(page.rows), page.next
        while after is not None:
            page = await stores.messages.page(after, 1000)
            rows, after = rows + page.rows, page.next
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    words: Counter[str] = sum((Counter(json.loads(out)) for out, _ in outputs), Counter())
    assert words == {
        "new": BATCHES * (OWN * WRITERS + SHARED),
        "same": BATCHES * SHARED * (WRITERS - 1),
    }
    assert len({row.id for row in rows}) == len(rows) == words["new"]
    assert followed == rows, "a message appeared before a place that a reader had passed"


class Processes:
    """A name server in this process, and services in their own."""

    def __init__(self, data_dir: Path, location: str) -> None:
        self.data_dir = data_dir
        self.location = location
        handshake = {"cluster_key": load_or_create_cluster_key(data_dir)}
        self.names = NameServers([location], handshake=handshake)
        self.facades = Endpoints(self.names, "msg.facade.", handshake=handshake)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self, kind: str, *numbers: int) -> None:
        for number in numbers:
            self.running[f"msg.{kind}.{number}"] = start(
                "service", kind, str(number), str(self.data_dir), self.location
            )
        wanted = {f"msg.{kind}.{number}" for number in numbers}

        async def all_known() -> bool:
            return wanted <= set(await self.names.list(f"msg.{kind}."))

        await eventually(all_known)

    def kill(self, name: str) -> None:
        """Kill -9, and reap."""
        process = self.running.pop(name)
        process.kill()
        process.communicate()

    async def stop(self, name: str) -> tuple[int, str]:
        """Stop politely; return its exit code and what it printed."""
        process = self.running.pop(name)
        process.terminate()
        printed, _ = await asyncio.to_thread(process.communicate)
        return process.returncode, printed.decode()


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    key = load_or_create_cluster_key(tmp_path)
    daemon = Daemon(authenticate=ServiceAuthenticator(key))
    async with NameKeeper(None, sweep_s=0.05) as keeper, daemon:
        daemon.register(NameServer(keeper), "Pyro.NameServer")
        running = Processes(tmp_path, daemon.location)
        async with running.names, running.facades:
            try:
                yield running
            finally:
                for name in list(running.running):
                    running.kill(name)


async def test_killed_loggers_lose_no_acknowledged_message(processes: Processes) -> None:
    await processes.start("logger", 1, 2, 3)
    await processes.start("facade", 1)
    gateway = MessageGateway(processes.facades)
    acknowledged: list[str] = []

    async def keep_posting(worker: int) -> None:
        for number in range(10_000_000):
            id = f"{worker}.{number}"
            await gateway.post(f"text {id}", id)
            acknowledged.append(id)

    workers = [asyncio.create_task(keep_posting(worker)) for worker in range(16)]
    for logger in ("msg.logger.1", "msg.logger.2"):
        goal = len(acknowledged) + 500
        await eventually(lambda: len(acknowledged) >= goal)  # noqa: B023
        processes.kill(logger)
    goal = len(acknowledged) + 500
    await eventually(lambda: len(acknowledged) >= goal)
    failed = [worker.exception() for worker in workers if worker.done()]
    assert failed == []
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    stored = [m["id"] for m in await read_all(gateway.page, 1000)]
    assert len(set(stored)) == len(stored)
    assert set(acknowledged) <= set(stored)


async def test_a_killed_messages_service_loses_and_doubles_nothing(processes: Processes) -> None:
    await processes.start("logger", 1)
    await processes.start("facade", 1)
    gateway = MessageGateway(processes.facades)
    ids = [f"id{n}" for n in range(5000)]
    await asyncio.gather(*(gateway.post(f"text {id}", id) for id in ids))
    await processes.start("messages", 1)

    async def consumed_by_now() -> list[str]:
        return [m["id"] for m in await read_all(gateway.consumed, 1000)]

    assert await eventually(consumed_by_now)
    processes.kill("msg.messages.1")
    await processes.start("messages", 1, 2)

    async def all_consumed() -> bool:
        return len(await consumed_by_now()) >= len(ids)

    await eventually(all_consumed, timeout_s=20)
    assert Counter(await consumed_by_now()) == Counter(ids)


async def test_services_end_cleanly_when_told_to(processes: Processes) -> None:
    await processes.start("logger", 1)
    await processes.start("messages", 1)
    await processes.start("facade", 1)
    gateway = MessageGateway(processes.facades)
    assert await gateway.post("msg1", "1") == "new"

    async def consumed() -> object:
        return (await gateway.consumed())["messages"]

    await eventually(consumed)
    for name in ("msg.facade.1", "msg.messages.1", "msg.logger.1"):
        code, printed = await processes.stop(name)
        assert code == 0
        assert printed == ("msg = msg1 UUID = 1\n" if name == "msg.logger.1" else "")
        assert await processes.names.list(name) == {}
        log = processes.data_dir / "log" / f"{name}.log"
        assert len(log.read_text().splitlines()) >= 1
    with contextlib.suppress(FileNotFoundError):  # the last to close folds the log into the file
        assert (processes.data_dir / "messages.sqlite-wal").stat().st_size == 0


def waits_for(path: Path) -> bool:
    """Say whether some process waits for the lock on *path* (``man 5 proc_locks``)."""
    inode = path.stat().st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and f":{inode} " in line for line in lines)


async def test_services_end_when_told_though_another_process_stands_in_its_turn_to_write(
    processes: Processes,
) -> None:
    await processes.start("logger", 1)
    await processes.start("facade", 1)
    await processes.start("messages", 1)
    path = processes.data_dir / f"{FILE_NAME}.turn"
    turn = os.open(path, os.O_RDWR)
    posting = asyncio.create_task(MessageGateway(processes.facades).post("nobody knows", "id"))
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        await eventually(lambda: waits_for(path))
        stopping = [processes.stop("msg.logger.1"), processes.stop("msg.messages.1")]
        for code, _ in await asyncio.wait_for(asyncio.gather(*stopping), 60):
            assert code == 0
    finally:
        os.close(turn)
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)

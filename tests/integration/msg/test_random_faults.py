"""Clients of all the messages' services in one process, while everything around them fails.

Connections break before a call is heeded and before it is answered, callers give up, the store
fails (statements on the messages file, also a commit that holds; members of a cluster in memory) or
stands still, and every service is stopped or killed and begun anew. Afterwards the store says what
happened, and each answer that a client got must agree with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from rmi_bank import run_nameserver
from rmi_msg import run_facade, run_gateway, run_logger, run_messages
from rmi_runtime import Endpoints, NameServers, Settings, errors, load_or_create_cluster_key
from tests.integration.msg.asked import Record
from tests.integration.msg.faulty import Faults
from tests.integration.msg.faulty_stores import FaultyStore, MessagesFile, ModelCluster
from tests.integration.msg.random_clients import (
    Client,
    HttpClient,
    PyroClient,
    Teller,
    keep_asking,
    numbers,
)
from tests.ports import free_ports
from tests.support import eventually

log = logging.getLogger(__name__)

CLIENTS: Final = 4
"""Of each kind."""

BUSY_S: Final = 1.5
"""For so long there is trouble."""

SERVICES: Final = {
    "logger": [1, 2, 3],
    "messages": [1, 2],
    "facade": [1, 2],
    "gateway": [1, 2],
}


class System:
    """All services, each begun as its process begins it, and stopped or killed.

    Args:
        settings: of all of them.
        faults: what happens to them.
    """

    def __init__(self, settings: Settings, faults: Faults) -> None:
        self.settings = settings
        self.faults = faults
        self._http = free_ports(2)
        self._running: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    def url(self, number: int) -> str:
        """Return the base URL of a gateway."""
        return f"http://127.0.0.1:{self._http + number - 1}"

    def start(self, kind: str, number: int) -> None:
        """Start a service; a start that fails is tried again."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._keep(kind, number, stop), name=f"{kind} {number}")
        self._running[f"{kind} {number}"] = (stop, task)

    async def _keep(self, kind: str, number: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._service(kind, number, stop)
            except (sqlite3.OperationalError, errors.Unavailable) as error:
                log.info("%s %d does not start: %s", kind, number, error)
                await asyncio.sleep(0.05)

    def _service(self, kind: str, number: int, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        if kind == "names":
            return run_nameserver(self.settings, stop=stop)
        if kind == "gateway":
            http = f"127.0.0.1:{self._http + number - 1}"
            return run_gateway(dataclasses.replace(self.settings, http=http), stop=stop)
        run = {"logger": run_logger, "messages": run_messages, "facade": run_facade}[kind]
        return run(self.settings, number, stop=stop)

    async def stop(self, kind: str, number: int) -> None:
        """Tell a service to stop, and wait until it has."""
        stop, task = self._running.pop(f"{kind} {number}")
        stop.set()
        async with asyncio.timeout(20):
            await task

    async def kill(self, kind: str, number: int) -> None:
        """End a service without a farewell: its connections break, and what it does is left."""
        _, task = self._running.pop(f"{kind} {number}")
        name = f"msg.{kind}.{number}"
        if (consumer := self.faults.consumers.get(name)) is not None:
            consumer.cancel()
        if (daemon := self.faults.daemons.get(name)) is not None:
            for connection in daemon.connections:
                connection.abort()
            await daemon.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Stop everything; the name server last."""
        services = [name.split() for name in self._running if name != "names 1"]
        await asyncio.gather(*(self.stop(kind, int(number)) for kind, number in services))
        await self.stop("names", 1)


async def trouble(system: System, store: FaultyStore, rng: Random, enough: asyncio.Event) -> None:
    """Make trouble, of one kind after the other, until there is enough of it."""
    faults = system.faults

    async def hang_up() -> None:
        daemon = faults.daemons[rng.choice(list(faults.daemons))]
        for connection in [*daemon.connections]:
            if rng.random() < 0.5:
                connection.abort()

    async def hang_up_http() -> None:
        for server in faults.gateways.values():
            for connection in [*server.connections]:
                if rng.random() < 0.5:
                    connection.transport.abort()

    async def breaking() -> None:
        faults.breaks = 0.0 if faults.breaks else rng.choice([0.01, 0.05])

    async def failing() -> None:
        faults.fails = 0.0 if faults.fails else rng.choice([0.02, 0.1, 0.2])

    async def freeze() -> None:
        with store.frozen() as stands:
            if stands:
                await asyncio.sleep(rng.uniform(0, 0.6))

    async def restart(kind: str) -> None:
        number = rng.choice(SERVICES[kind])
        await rng.choice([system.stop, system.kill])(kind, number)
        await asyncio.sleep(rng.choice([0, 0.2]))
        system.start(kind, number)

    async def restart_all(kind: str) -> None:
        for number in SERVICES[kind]:
            await rng.choice([system.stop, system.kill])(kind, number)
        await asyncio.sleep(rng.uniform(0, 0.5))
        for number in SERVICES[kind]:
            system.start(kind, number)

    async def forget_names() -> None:
        await system.stop("names", 1)
        system.start("names", 1)

    kinds = [hang_up, hang_up_http, breaking, failing, freeze, forget_names]
    kinds += [lambda kind=kind: restart(kind) for kind in SERVICES]
    kinds += [lambda kind=kind: restart_all(kind) for kind in ("logger", "messages", "facade")]
    while not enough.is_set():
        for act in rng.sample(kinds, len(kinds)):
            if enough.is_set():
                return
            await act()
            await asyncio.sleep(rng.uniform(0, 0.1))


@contextlib.asynccontextmanager
async def running(settings: Settings, faults: Faults) -> AsyncIterator[System]:
    """Run a system in which every logger and messages service has opened the file."""
    system = System(settings, faults)
    system.start("names", 1)
    for kind, all_numbers in SERVICES.items():
        for number in all_numbers:
            system.start(kind, number)
    try:
        await eventually(lambda: len(faults.daemons) == 7 and len(faults.gateways) == 2)
        yield system
    finally:
        faults.cease()
        await system.close()


async def is_consumed(store: FaultyStore) -> bool:
    """Say whether all that is stored is consumed, and no claim is left."""
    stored = await store.read()
    return len(stored.consumed) == len(stored.messages) and not stored.claims


def left_open() -> tuple[int, set[threading.Thread]]:
    """Return how many files are open, and the stores' threads."""
    gc.collect()  # what is forgotten but not closed
    threads = {thread for thread in threading.enumerate() if "sqlite" in thread.name}
    return len(os.listdir("/proc/self/fd")), threads


async def run(seed: object, path: Path, faults: Faults, store: FaultyStore) -> Record:
    """Let clients ask while there is trouble; return what they were told, which was judged."""
    first = free_ports()
    settings = Settings(
        data_dir=path, ns=(f"127.0.0.1:{first}",), call_timeout_s=0.6, stop_wait_s=1.0
    )
    record, enough, counted = Record(), asyncio.Event(), numbers()
    known: list[tuple[str, str]] = []
    clients: list[Client] = []
    handshake = {"cluster_key": load_or_create_cluster_key(path)}
    async with contextlib.AsyncExitStack() as stack:
        system = await stack.enter_async_context(running(settings, faults))
        names = await stack.enter_async_context(NameServers(settings.ns, handshake=handshake))
        for number in range(CLIENTS):
            rng = Random(f"{seed}/{number}")
            ways = [
                await stack.enter_async_context(
                    Endpoints(names, prefix, handshake=handshake, refresh_s=0.1)
                )
                for prefix in ("msg.facade.", "msg.logger.")
            ]
            teller = Teller(rng, counted)
            clients.append(PyroClient(*ways, handshake, record, teller, known))
            urls = [system.url(gateway) for gateway in SERVICES["gateway"]]
            client = HttpClient(urls, record, teller, known)
            await stack.enter_async_context(client.http)
            clients.append(client)
        troubled = asyncio.create_task(trouble(system, store, Random(seed), enough))
        asking = [asyncio.create_task(keep_asking(client, enough)) for client in clients]
        await asyncio.wait([troubled, *asking], timeout=BUSY_S, return_when=asyncio.FIRST_EXCEPTION)
        enough.set()
        await asyncio.gather(troubled, *asking)
        faults.cease()
        await asyncio.gather(*(client.settle() for client in clients))
        await eventually(lambda: is_consumed(store), timeout_s=30)
    stored = await store.read()
    record.judge(stored)
    for client in clients:
        client.readers["messages"].judge([id for id, _ in stored.messages])
        client.readers["consumed"].judge([id for id, _ in stored.consumed])
    return record


@pytest.mark.parametrize(
    ("kind", "seed"),
    [(MessagesFile, 1), (MessagesFile, 2), (ModelCluster, 1)],
    ids=["file-1", "file-2", "cluster-1"],
)
async def test_whatever_fails_each_answer_is_what_happened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: Callable[[Faults, pytest.MonkeyPatch, Path], FaultyStore],
    seed: int,
) -> None:
    faults = Faults(seed)
    faults.install(monkeypatch)
    store = kind(faults, monkeypatch, tmp_path)
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    tasks, (files_before, threads_before) = asyncio.all_tasks(), left_open()
    with caplog.at_level(logging.WARNING):
        record = await run(seed, tmp_path, faults, store)
    await eventually(lambda: asyncio.all_tasks() <= tasks)
    files, threads = left_open()
    assert files <= files_before
    assert threads <= threads_before
    assert not unhandled
    unforeseen = [each for each in caplog.records if each.exc_info]
    assert not unforeseen, unforeseen[0].getMessage()
    kinds = record.kinds()
    assert kinds >= {"kept", "refused", "maybe"}, "a run without any of these shows nothing"

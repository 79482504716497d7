"""What a client has sent is carried out when it has gone, with the resources that it tracks."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import Pyro5.server
import pytest
from Pyro5.api import BatchProxy, Proxy, current_context

import rmi_runtime
from rmi_runtime import Daemon, behavior, compat, current_call, expose
from tests.integration.runtime.worker import uri_of
from tests.support import eventually, sync_eventually

COUNT = 200


class File:
    """Takes lines until it is closed."""

    def __init__(self, happened: list[str]) -> None:
        self._happened, self._open = happened, True

    def write(self) -> None:
        """Take a line."""
        self._happened.append("written" if self._open else "lost")

    def close(self) -> None:
        """Take no more."""
        self._open = False
        self._happened.append("closed")


@pytest.mark.parametrize("module", [Pyro5.server, compat], ids=["stock", "ours"])
@pytest.mark.parametrize("oneway", [True, False])
def test_a_batch_has_its_resources_to_its_end_and_then_it_is_told_that_the_client_has_gone(
    module: Any, oneway: bool
) -> None:
    happened: list[str] = []
    files: list[File] = []  # held here: stock forgets what only its recorder holds
    gate = threading.Event()

    class Recorders(module.Daemon):  # type: ignore[misc,name-defined]
        def clientDisconnect(self, conn: Any) -> None:
            happened.append("told")

    @expose
    @behavior(instance_mode="session")
    class Recorder:
        def open(self) -> None:
            files.append(File(happened))
            current_context.track_resource(files[0])
            happened.append("opened")
            assert gate.wait(10)

        def write(self) -> None:
            files[0].write()

    daemon = Recorders("127.0.0.1")
    uri = daemon.register(Recorder)
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    try:
        proxy = Proxy(uri)
        batch = BatchProxy(proxy)
        batch.open()
        for _ in range(COUNT):
            batch.write()
        if oneway:
            batch(oneway=True)
        else:
            proxy._pyroTimeout = 0.05
            with pytest.raises(Pyro5.errors.TimeoutError):
                batch()
        sync_eventually(lambda: happened)
        proxy._pyroRelease()
        if module is compat:
            sync_eventually(lambda: not daemon._serving.connections)
        gate.set()
        sync_eventually(lambda: "closed" in happened)
    finally:
        gate.set()
        daemon.shutdown()
        thread.join(10)
    assert happened == ["opened", *["written"] * COUNT, "told", "closed"]


@expose
class Recorder:
    """Writes when its gate opens."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.gate = asyncio.Event()

    async def open(self) -> None:
        """Have a file that is closed when the client leaves."""
        self.file = File(self.happened)
        call = current_call()
        assert call.connection is not None
        call.connection.tracked_resources.add(self.file)  # type: ignore[attr-defined]
        call.connection.on_close(lambda: self.happened.append("told"))
        await self.gate.wait()

    def write(self) -> None:
        """Write a line to it."""
        self.file.write()


@pytest.mark.parametrize("threads", [0, 2])
async def test_so_has_one_at_the_asyncio_daemon_which_hears_of_the_end_at_once(
    threads: int,
) -> None:
    recorder = Recorder()
    async with Daemon(threads=threads) as daemon:
        daemon.register(recorder, "target")
        async with rmi_runtime.Proxy(uri_of(daemon)) as proxy:
            batch = proxy._batch()
            batch.open()
            for _ in range(COUNT):
                batch.write()
            await batch(oneway=True)
        await eventually(lambda: recorder.happened == ["told"])
        recorder.gate.set()
        await eventually(lambda: "closed" in recorder.happened)
    assert recorder.happened == ["told", *["written"] * COUNT, "closed"]

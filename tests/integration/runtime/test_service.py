"""The life of a service: what it does when it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rmi_runtime import (
    NameServers,
    Proxy,
    ServiceContext,
    Settings,
    expose,
    run_service,
    signal_ready,
    stop_on_signals,
)
from tests.integration.runtime.names import KEY, SERVICE_HANDSHAKE, name_server
from tests.support import eventually


@expose
class Thing:
    """Answers."""

    def answer(self) -> int:
        return 42


async def test_until_it_may_leave_a_service_goes_on_as_before(tmp_path: Path) -> None:
    key = tmp_path / "cluster.key"
    key.write_text(KEY)
    key.chmod(0o600)
    asked, may, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def before_leaving() -> None:
        asked.set()
        await may.wait()

    @asynccontextmanager
    async def build(context: ServiceContext) -> AsyncIterator[Thing]:
        context.before_leaving = before_leaving
        yield Thing()

    async with (
        name_server() as location,
        NameServers([location], handshake=SERVICE_HANDSHAKE) as names,
    ):
        settings = Settings(data_dir=tmp_path, ns=(location,))
        service = asyncio.create_task(run_service("a.thing", build, settings, stop=stop))

        async def listed() -> bool:
            return "a.thing" in await names.list()

        await eventually(listed)
        stop.set()
        async with asyncio.timeout(10):
            await asked.wait()
        uri = await names.lookup("a.thing")
        async with Proxy(uri, handshake=SERVICE_HANDSHAKE) as proxy:  # one that is new
            assert await proxy.answer() == 42
        assert not service.done()
        may.set()
        async with asyncio.timeout(10):
            await service
        assert not await listed()


async def test_a_service_that_is_told_to_stop_while_it_is_built_does_not_go_on_with_that(
    tmp_path: Path,
) -> None:
    building, cleaned_up, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def build(context: ServiceContext) -> AsyncIterator[Thing]:
        building.set()
        try:
            await asyncio.Event().wait()
            yield Thing()
        finally:
            cleaned_up.set()

    settings = Settings(data_dir=tmp_path, ns=("127.0.0.1:1",))
    async with asyncio.timeout(5):
        service = asyncio.create_task(run_service("a.thing", build, settings, stop=stop))
        await building.wait()
        stop.set()
        await service
    assert cleaned_up.is_set()


async def test_who_cancels_a_service_that_is_being_built_hears_of_it(tmp_path: Path) -> None:
    building, stop = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def build(context: ServiceContext) -> AsyncIterator[Thing]:
        building.set()
        await asyncio.Event().wait()
        yield Thing()

    settings = Settings(data_dir=tmp_path, ns=("127.0.0.1:1",))
    service = asyncio.create_task(run_service("a.thing", build, settings, stop=stop))
    await building.wait()
    service.cancel()
    with pytest.raises(asyncio.CancelledError):
        await service


def test_a_service_keeps_messages_of_the_size_that_is_set(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, message_size_bytes_max=512 * 1024 * 1024)
    limits = ServiceContext("a.thing", settings, KEY).daemon.limits
    size = limits.message_size_bytes_max
    assert size == settings.message_size_bytes_max
    assert limits.halves_size_bytes_max > size, "one of them would be a ground to hang up"
    assert limits.inflight_size_bytes_max > size, "one of them would be refused, always"


@pytest.mark.parametrize("number", ["", "x", "\u00b2", "999", "9" * 20, "9" * 5000])
def test_a_descriptor_that_there_is_not_is_no_reason_not_to_serve(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMI_READY_FD", number)
    signal_ready("a.thing", {"location": "127.0.0.1:1"})


async def test_under_nohup_the_end_of_the_terminal_is_no_order_to_stop() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stopping = stop_on_signals()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await stopping.wait()
    finally:
        signal.signal(signal.SIGHUP, before)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)

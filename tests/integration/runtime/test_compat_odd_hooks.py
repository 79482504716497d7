"""Methods that programs override in the drop-in, and that raise what they like: all is answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from Pyro5 import config
from Pyro5.api import Proxy, expose
from Pyro5.errors import CommunicationError, PyroError

from rmi_runtime import compat
from tests.support import sync_eventually


class Thing:
    """Has a method of either kind."""

    @expose
    def plain(self) -> str:
        return "plain"

    @expose
    async def later(self) -> str:
        return "later"


class Odd(compat.Daemon):
    """Raises in what is overridden, once it is told what."""

    annotating: BaseException | None = None
    validating: BaseException | None = None
    keeping_house: BaseException | None = None
    houses_kept = 0

    def annotations(self) -> dict[str, bytes]:
        if self.annotating is not None:
            raise self.annotating
        return {}

    def validateHandshake(self, conn: Any, data: object) -> object:
        if self.validating is not None:
            raise self.validating
        return "hello"

    def housekeeping(self) -> None:
        self.houses_kept += 1
        if self.keeping_house is not None:
            raise self.keeping_house


ODD = pytest.mark.parametrize(
    "odd",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(1),
        ZeroDivisionError("odd"),
    ],
    ids=lambda odd: type(odd).__name__,
)


@pytest.fixture(params=["thread", "multiplex"])
def odd_daemon(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Odd, Callable[[], Any]]]:
    monkeypatch.setattr(config, "SERVERTYPE", request.param)
    monkeypatch.setattr(config, "COMMTIMEOUT", 10.0)
    monkeypatch.setattr(compat.daemon, "HOUSEKEEPING_S", 0.01)
    daemon = Odd("127.0.0.1")
    uri = daemon.register(Thing)
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    try:
        yield daemon, lambda: Proxy(uri)
        with Proxy(uri) as proxy:  # it goes on
            assert (proxy.plain(), proxy.later()) == ("plain", "later")
        assert thread.is_alive()
    finally:
        daemon.shutdown()
        thread.join(10)


@ODD
def test_whatever_making_annotations_raises_there_is_an_answer(
    odd_daemon: tuple[Odd, Callable[[], Any]], odd: BaseException
) -> None:
    daemon, connect = odd_daemon
    with connect() as proxy, connect() as late:
        proxy._pyroBind()
        daemon.annotating = odd
        for method in (proxy.plain, proxy.later):
            with pytest.raises((type(odd), PyroError, TimeoutError)) as raised:
                method()
            assert not isinstance(raised.value, CommunicationError)
        with pytest.raises(CommunicationError, match="rejected"):
            late._pyroBind()
        daemon.annotating = None


@ODD
def test_whatever_validating_a_handshake_raises_the_client_is_refused(
    odd_daemon: tuple[Odd, Callable[[], Any]], odd: BaseException
) -> None:
    daemon, connect = odd_daemon
    daemon.validating = odd
    with connect() as proxy, pytest.raises(CommunicationError, match="rejected"):
        proxy._pyroBind()
    daemon.validating = None


@pytest.mark.parametrize("odd", [SystemExit(1), StopIteration(1), ZeroDivisionError("odd")])
def test_whatever_housekeeping_raises_it_is_done_again(
    odd_daemon: tuple[Odd, Callable[[], Any]], odd: BaseException
) -> None:
    daemon, _ = odd_daemon
    daemon.keeping_house = odd
    before = daemon.houses_kept
    sync_eventually(lambda: daemon.houses_kept > before + 2)
    daemon.keeping_house = None

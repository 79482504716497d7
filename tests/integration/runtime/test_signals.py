"""What a signal's handler raises while a program waits reaches the program, as with stock."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import Pyro5.api
import pytest
from Pyro5.api import expose

from rmi_runtime import SyncProxy, compat

WAIT_S = 10.0


class ServiceExit(Exception):
    """What programs raise in their handlers to end themselves."""


@expose
class Slow:
    def __init__(self) -> None:
        self.begun, self.go, self.over = (threading.Event() for _ in range(3))

    def wait(self) -> None:
        self.begun.set()
        self.go.wait(WAIT_S)
        self.over.set()

    def ping(self) -> str:
        return "pong"


@pytest.fixture(autouse=True)
def leave() -> Iterator[None]:
    """Have SIGUSR1 raise."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise ServiceExit(number)

    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


def _signal_main_thread_after(wait: Callable[[], object]) -> threading.Thread:
    def act() -> None:
        wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize("make", [Pyro5.api.Proxy, SyncProxy], ids=["stock", "ours"])
def test_a_call_that_blocks_can_be_ended(make: Any) -> None:
    slow, daemon = Slow(), compat.Daemon()
    uri = daemon.register(slow)
    serving = threading.Thread(target=daemon.requestLoop)
    serving.start()
    proxy = make(uri)
    proxy.ping()
    signaller = _signal_main_thread_after(lambda: slow.begun.wait(WAIT_S))
    with pytest.raises(ServiceExit):
        proxy.wait()
    assert not slow.over.is_set()
    signaller.join()
    slow.go.set()
    if make is SyncProxy:
        assert proxy.ping() == "pong"  # a stock proxy has lost its place
        proxy._close()
    else:
        proxy._pyroRelease()
    daemon.shutdown()
    serving.join(WAIT_S)


@pytest.mark.parametrize("module", [Pyro5.api, compat], ids=["stock", "ours"])
def test_a_request_loop_can_be_ended(module: Any) -> None:
    daemon = module.Daemon("127.0.0.1")
    uri = daemon.uriFor("Pyro.Daemon")

    def until_it_serves() -> None:
        with Pyro5.api.Proxy(uri) as proxy:
            proxy.ping()

    signaller = _signal_main_thread_after(until_it_serves)
    given_up = threading.Timer(WAIT_S, daemon.shutdown)
    given_up.start()
    with pytest.raises(ServiceExit):
        daemon.requestLoop()
    given_up.cancel()
    signaller.join()
    daemon.shutdown()

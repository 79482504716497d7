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
LEFT = threading.Event()
"""Set when the handler has raised."""


class ServiceExit(Exception):
    """What programs raise in their handlers to end themselves."""


@expose
class Slow:
    def __init__(self) -> None:
        self.begun, self.go, self.over = (threading.Event() for _ in range(3))
        self.pings = 0

    def wait(self) -> None:
        self.begun.set()
        self.go.wait(WAIT_S)
        self.over.set()

    def ping(self) -> str:
        self.pings += 1
        return "pong"


@pytest.fixture(autouse=True)
def leave() -> Iterator[None]:
    """Have SIGUSR1 raise, once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if not LEFT.is_set():
            LEFT.set()
            raise ServiceExit(number)

    LEFT.clear()
    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


def _signal_main_thread_after(wait: Callable[[], object]) -> threading.Thread:
    def act() -> None:
        wait()
        # Once more, if it came just before a stock proxy began to wait for the network: Python
        # looks at signals before that, and the system call does not know of them.
        while not LEFT.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            LEFT.wait(0.1)

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


class Torn(list[bytes]):
    """What waits to be sent. A signal comes just when it has been."""

    def clear(self) -> None:
        signal.raise_signal(signal.SIGUSR1)
        super().clear()


def test_a_call_that_was_ended_while_it_was_sent_is_not_sent_again() -> None:
    slow, daemon = Slow(), compat.Daemon()
    serving = threading.Thread(target=daemon.requestLoop)
    proxy = SyncProxy(daemon.register(slow))
    serving.start()
    proxy.ping()
    proxy._proxy._connection._out = Torn()
    with pytest.raises(ServiceExit):
        proxy.ping()
    assert proxy.ping() == "pong"
    assert slow.pings <= 3, "the one that was ended at most once"
    proxy._close()
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

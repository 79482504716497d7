"""The daemon that looks like Pyro5's own: what programs may do with it besides calling objects."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest
from Pyro5 import config
from Pyro5.api import BatchProxy, Proxy, behavior, current_context, expose, oneway

from rmi_runtime import DaemonLimits, compat
from tests.support import sync_eventually


@expose
class Thing:
    """What the daemon serves."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = threading.Event()

    def ping(self) -> str:
        return "pong"

    def thread(self) -> int:
        return threading.get_ident()

    def keeps_the_program_from_ending(self) -> bool:
        return not threading.current_thread().daemon

    @oneway
    def wait(self) -> None:
        self.began.set()
        self.go.wait(30)

    def stop(self) -> str:
        daemon: Any = self._pyroDaemon  # type: ignore[attr-defined]
        daemon.shutdown()
        sync_eventually(lambda: daemon._serving.draining, every_s=0.001)
        return "stopped"


@pytest.fixture
def run() -> Iterator[Callable[[Any], threading.Thread]]:
    """Run request loops in threads, and see that they end."""
    started: list[tuple[Any, threading.Thread]] = []

    def run_daemon(daemon: Any) -> threading.Thread:
        thread = threading.Thread(target=daemon.requestLoop)
        started.append((daemon, thread))
        thread.start()
        return thread

    yield run_daemon
    for daemon, thread in started:
        daemon.shutdown()
        thread.join(10)
        assert not thread.is_alive()


def test_who_connects_before_the_request_loop_waits_for_it(run: Any) -> None:
    daemon = compat.Daemon()
    uri = daemon.register(Thing())
    answers: list[str] = []

    def ask() -> None:
        with Proxy(uri) as proxy:
            answers.append(proxy.ping())

    early = threading.Thread(target=ask)
    early.start()
    run(daemon)
    early.join(10)
    assert answers == ["pong"]


def test_shutdown_from_another_thread_ends_the_loop_and_closes_the_daemon(run: Any) -> None:
    daemon = compat.Daemon()
    uri = daemon.register(Thing())
    thread = run(daemon)
    with Proxy(uri) as proxy:
        assert proxy.ping() == "pong"
        daemon.shutdown()
        thread.join(10)
        with pytest.raises(Pyro5.errors.CommunicationError):
            proxy.ping()
    with pytest.raises(Pyro5.errors.CommunicationError):
        Proxy(uri)._pyroBind()
    with pytest.raises(Pyro5.errors.PyroError, match="cannot reuse"):
        daemon.requestLoop()


def test_shutdown_from_a_remote_method_ends_the_loop(run: Any) -> None:
    daemon = compat.Daemon()
    uri = daemon.register(Thing())
    thread = run(daemon)
    with Proxy(uri) as proxy:
        assert proxy.stop() == "stopped"
    thread.join(10)
    assert not thread.is_alive()


def test_shutdown_before_and_close_without_a_request_loop_free_the_port() -> None:
    first = compat.Daemon()
    port = int(first.locationStr.rsplit(":", 1)[1])
    first.shutdown()
    with compat.Daemon(None, port) as second:
        assert second.locationStr == first.locationStr
    with pytest.raises(Pyro5.errors.PyroError, match="cannot reuse"), second:
        pass


def test_the_loop_can_be_run_again_after_its_condition_ended_it() -> None:
    with compat.Daemon() as daemon:
        uri = daemon.register(Thing())
        asked: list[int] = []

        def once() -> bool:
            asked.append(1)
            return len(asked) < 2

        daemon.requestLoop(once)
        asked.clear()
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(uri) as proxy:
            assert proxy.ping() == "pong"
        daemon.shutdown()
        thread.join(10)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal; who is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_request_loop_quietly() -> None:
    with compat.Daemon() as daemon:
        uri = daemon.register(Thing())
        pings: list[str] = []

        def interrupt() -> None:
            with Proxy(uri) as proxy:
                pings.append(proxy.ping())
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        daemon.requestLoop()  # returns, and raises no KeyboardInterrupt
        thread.join(10)
        assert pings == ["pong"]
    with pytest.raises(Pyro5.errors.CommunicationError):
        Proxy(uri)._pyroBind()


def test_the_arguments_are_those_of_stock_in_their_order(tmp_path: Path) -> None:
    with compat.Daemon("127.0.0.1", 0, None, "nat.example", 4711) as daemon:
        assert str(daemon.uriFor("thing")) == "PYRO:thing@nat.example:4711"
        assert daemon.uriFor("thing", nat=False).location == daemon.locationStr
        assert daemon.natLocationStr == "nat.example:4711"
    with compat.Daemon(nathost="nat.example", natport=0) as daemon:
        assert daemon.natLocationStr == f"nat.example:{daemon.locationStr.rsplit(':', 1)[1]}"
    with compat.Daemon(unixsocket=str(tmp_path / "s")) as daemon:
        assert daemon.uriFor("thing").sockname == str(tmp_path / "s")
    with pytest.raises(ValueError, match="needs its nathost"):
        compat.Daemon(natport=1)
    with pytest.raises(ValueError, match="no NAT address"):
        compat.Daemon(unixsocket=str(tmp_path / "t"), nathost="nat.example", natport=1)


def test_an_open_address_needs_protection_or_the_word_for_none() -> None:
    with pytest.raises(ValueError, match="insecure=True"):
        compat.Daemon("0.0.0.0")
    with compat.Daemon("0.0.0.0", insecure=True) as daemon:
        assert daemon.locationStr.startswith("0.0.0.0:")


def test_each_connection_has_a_thread_of_its_own_and_keeps_it(run: Any) -> None:
    daemon = compat.Daemon()
    uri = daemon.register(Thing())
    run(daemon)
    with Proxy(uri) as one, Proxy(uri) as two:
        first, second = one.thread(), two.thread()
        assert [one.thread(), two.thread(), one.thread()] == [first, second, first]
        assert first != second


@pytest.mark.parametrize("stock", [True, False])
def test_a_method_at_work_does_not_keep_the_program_from_ending(run: Any, stock: bool) -> None:
    daemon = Pyro5.api.Daemon() if stock else compat.Daemon()
    uri = daemon.register(Thing())
    run(daemon)
    with Proxy(uri) as proxy:
        assert not proxy.keeps_the_program_from_ending()


def test_more_connections_than_threads_are_served_all_the_same(run: Any) -> None:
    daemon = compat.Daemon(threads=2)
    uri = daemon.register(Thing())
    run(daemon)
    proxies = [Proxy(uri) for _ in range(5)]
    assert {proxy.ping() for proxy in proxies} == {"pong"}
    assert len({proxy.thread() for proxy in proxies}) == 2
    for proxy in proxies:
        proxy._pyroRelease()


def test_a_oneway_method_that_blocks_does_not_hold_up_the_next_call(run: Any) -> None:
    daemon = compat.Daemon()
    thing = Thing()
    uri = daemon.register(thing)
    run(daemon)
    with Proxy(uri) as proxy:
        proxy._pyroTimeout = 10.0
        proxy.wait()
        assert thing.began.wait(10)
        assert proxy.ping() == "pong"
    thing.go.set()


def test_without_threads_plain_methods_run_one_at_a_time_in_the_loops_thread(run: Any) -> None:
    daemon = compat.Daemon(threads=0)
    uri = daemon.register(Thing())
    loop = run(daemon)
    with Proxy(uri) as one, Proxy(uri) as two:
        assert {one.thread(), two.thread()} == {loop.ident}


def test_a_class_is_made_in_the_thread_that_calls_it(run: Any) -> None:
    @behavior(instance_mode="session")
    class Made:
        def __init__(self) -> None:
            self._thread = threading.get_ident()
            assert current_context.client is not None

        @expose
        def same(self) -> bool:
            return self._thread == threading.get_ident()

    daemon = compat.Daemon()
    uri = daemon.register(Made)
    run(daemon)
    with Proxy(uri) as proxy:
        assert proxy.same()


def test_a_single_object_is_made_once_however_many_ask_at_the_same_time(run: Any) -> None:
    made: list[int] = []
    together = threading.Barrier(4)

    @behavior(instance_mode="single")
    class Single:
        def __init__(self) -> None:
            made.append(1)

        @expose
        def ping(self) -> str:
            return "pong"

    daemon = compat.Daemon()
    uri = daemon.register(Single)
    run(daemon)

    def ask() -> None:
        with Proxy(uri) as proxy:
            proxy._pyroBind()
            together.wait(10)
            proxy.ping()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert made == [1]


def test_housekeeping_is_done(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmi_runtime.compat.daemon.HOUSEKEEPING_S", 0.01)
    done = threading.Event()

    class Tidy(compat.Daemon):
        def housekeeping(self) -> None:
            if done.is_set():
                raise RuntimeError("does not end the daemon")
            done.set()

    daemon = Tidy()
    uri = daemon.register(Thing())
    run(daemon)
    assert done.wait(10)
    with Proxy(uri) as proxy:
        assert proxy.ping() == "pong"


def test_what_is_exposed_can_be_changed_while_it_runs(run: Any) -> None:
    class Growing:
        @expose
        def one(self) -> int:
            return 1

    daemon = compat.Daemon()
    growing = Growing()
    uri = daemon.register(growing, "growing")
    run(daemon)
    with Proxy(uri) as proxy:
        assert proxy.one() == 1

    def two(self: Growing) -> int:
        return 2

    Growing.two = expose(two)  # type: ignore[attr-defined]
    daemon.resetMetadataCache("growing")
    with Proxy(uri) as proxy:
        assert proxy.two() == 2
    assert daemon.proxyFor(growing)._pyroMethods == {"one", "two"}


def test_the_daemons_own_object_can_be_extended(run: Any) -> None:
    @expose
    class Interface(compat.DaemonObject):
        def hello(self) -> str:
            return "hello"

    daemon = compat.Daemon(interface=Interface)
    run(daemon)
    with Proxy(f"PYRO:Pyro.Daemon@{daemon.locationStr}") as proxy:
        assert proxy.hello() == "hello"
        proxy.ping()
    with pytest.raises(TypeError, match="derive the interface"):
        compat.Daemon(interface=object)  # type: ignore[arg-type]


def test_bounds_come_from_pyro5s_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "MAX_MESSAGE_SIZE", 12345)
    monkeypatch.setattr(config, "ITER_STREAM_LIFETIME", 7.0)
    with compat.Daemon() as daemon:
        assert daemon._serving.limits.message_size_bytes_max == 12345
        assert daemon._serving.limits.stream_lifetime_s == 7.0
    with compat.Daemon(limits=DaemonLimits(message_size_bytes_max=1000)) as daemon:
        assert daemon._serving.limits.message_size_bytes_max == 1000


@pytest.mark.parametrize("make", [Pyro5.api.Daemon, compat.Daemon])
def test_only_clients_that_were_accepted_are_said_to_disconnect(
    run: Callable[[Any], threading.Thread], make: type[Pyro5.api.Daemon]
) -> None:
    events: list[object] = []

    class Guarded(make):  # type: ignore[misc, valid-type]
        def validateHandshake(self, conn: Any, data: Any) -> str:
            events.append(data)
            if data.startswith("bad"):
                raise ValueError("I do not know you")
            return "welcome"

        def clientDisconnect(self, conn: Any) -> None:
            events.append("gone")

    daemon = Guarded(port=0)
    uri = daemon.register(Thing())
    run(daemon)
    for accepted, handshake in ((0, "bad 1"), (1, "good 1"), (1, "bad 2"), (2, "good 2")):
        with Proxy(uri) as proxy:
            proxy._pyroHandshake = handshake
            if handshake.startswith("good"):
                assert proxy.ping() == "pong"
            else:
                with pytest.raises(Pyro5.errors.CommunicationError, match="know you"):
                    proxy.ping()
        sync_eventually(lambda accepted=accepted: events.count("gone") == accepted)
    assert events == ["bad 1", "good 1", "gone", "bad 2", "good 2", "gone"]


def test_a_batch_may_be_long(run: Any) -> None:
    daemon = compat.Daemon(threads=0)
    uri = daemon.register(Thing())
    run(daemon)
    with Proxy(uri) as proxy:
        batch = BatchProxy(proxy)
        for _ in range(DaemonLimits().batch_max + 1):
            batch.ping()
        assert set(batch()) == {"pong"}

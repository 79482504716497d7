"""The daemon that looks like Pyro5's own: who waits for whom, and what runs in whose thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import Pyro5.api
import pytest
from Pyro5 import config
from Pyro5.api import BatchProxy, Proxy, behavior, current_context, expose, oneway
from Pyro5.errors import PyroError, TimeoutError

from rmi_runtime import compat
from rmi_runtime.compat.serving import Connection
from rmi_runtime.context import ANONYMOUS, Call
from rmi_runtime.limits import DaemonLimits
from tests.support import sync_eventually

WAIT_S = 10.0


class Resource:
    """Says which thread closes it, and waits in the midst if told so."""

    def __init__(self, go: threading.Event) -> None:
        self.go = go
        self.closing = threading.Event()
        self.closed_by: int | None = None

    def close(self) -> None:
        self.closing.set()
        self.go.wait(WAIT_S)
        self.closed_by = threading.get_ident()


@expose
class Thing:
    """What the daemon serves."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.resource: Any = None
        self.ended = threading.Event()
        self.threads: list[int] = []

    def ping(self) -> str:
        self.threads.append(threading.get_ident())
        return "pong"

    def begin(self) -> None:
        self.threads.append(threading.get_ident())
        self.go.wait(WAIT_S)

    def wait(self) -> None:
        self.go.wait(WAIT_S)

    def thread_name(self) -> str:
        return threading.current_thread().name

    @oneway
    def wait_alone(self) -> None:
        self.go.wait(WAIT_S)

    def track(self) -> int:
        self.resource = Resource(self.go)
        current_context.track_resource(self.resource)
        return threading.get_ident()

    def wait_and_track(self) -> None:
        self.threads.append(threading.get_ident())
        self.go.wait(WAIT_S)
        self.track()

    def items(self) -> Iterator[int]:
        try:
            yield threading.get_ident()
            yield 2
        finally:
            self.go.wait(WAIT_S)
            self.ended.set()


@pytest.fixture
def thing() -> Iterator[Thing]:
    made = Thing()
    yield made
    made.go.set()


@pytest.fixture
def serve(thing: Thing) -> Iterator[Callable[..., Any]]:
    """Serve the thing, or a class, with a daemon in a thread of its own."""
    started: list[tuple[Any, threading.Thread]] = []

    def start(*classes: type, daemon: Any = None) -> list[Any]:
        daemon = daemon or compat.Daemon()
        uris = [daemon.register(one) for one in (thing, *classes)]
        thread = threading.Thread(target=daemon.requestLoop)
        started.append((daemon, thread))
        thread.start()
        return uris

    yield start
    thing.go.set()
    for daemon, thread in started:
        daemon.shutdown()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_a_method_whose_caller_has_gone_keeps_no_other_client_waiting(serve: Any) -> None:
    [uri] = serve()
    with Proxy(uri) as impatient:
        impatient._pyroTimeout = 0.1
        with pytest.raises(TimeoutError):
            impatient.wait()
    for _ in range(3):  # one after the other, so that each may get what the last one left
        with Proxy(uri) as other:
            other._pyroTimeout = WAIT_S / 2
            assert other.ping() == "pong"


def test_the_threads_of_connections_can_be_told_apart_by_name(serve: Any) -> None:
    [uri] = serve()
    with Proxy(uri) as one, Proxy(uri) as two:
        names = [one.thread_name(), two.thread_name(), one.thread_name()]
    assert names[0] != names[1]
    assert names[0] == names[2]


def test_a_creator_may_call_a_class_of_the_same_daemon(serve: Any) -> None:
    uris: list[Any] = []

    @expose
    class Inner:
        def ping(self) -> str:
            return "inner"

    def create(cls: Any) -> Any:
        made = cls()
        with Proxy(uris[1]) as inner:
            inner._pyroTimeout = WAIT_S / 2
            made.found = inner.ping()
        return made

    @expose
    @behavior(instance_mode="session", instance_creator=create)
    class Outer:
        found = ""

        def ping(self) -> str:
            return self.found

    uris += serve(Inner, Outer)
    with Proxy(uris[2]) as outer:
        assert outer.ping() == "inner"


def test_resources_are_closed_by_the_thread_that_used_them_and_hold_up_nobody(
    thing: Thing, serve: Any
) -> None:
    [uri] = serve()
    with Proxy(uri) as leaving:
        used_by = leaving.track()
    assert thing.resource.closing.wait(WAIT_S)
    with Proxy(uri) as other:
        other._pyroTimeout = WAIT_S / 2
        assert other.ping() == "pong"
    thing.go.set()
    sync_eventually(lambda: thing.resource.closed_by is not None)
    assert thing.resource.closed_by == used_by


def test_resources_of_a_method_that_goes_on_when_its_caller_has_gone_are_closed_too(
    thing: Thing, serve: Any
) -> None:
    daemon = compat.Daemon()
    [uri] = serve(daemon=daemon)
    with Proxy(uri) as leaving:
        leaving._pyroTimeout = 0.1
        with pytest.raises(TimeoutError):
            leaving.wait_and_track()
    sync_eventually(lambda: not daemon._serving.connections)
    thing.go.set()
    sync_eventually(lambda: thing.resource and thing.resource.closed_by)
    assert thing.resource.closed_by == thing.threads[0]


def test_resources_that_nobody_holds_are_not_kept(thing: Thing, serve: Any) -> None:
    [uri] = serve()
    with Proxy(uri) as proxy:
        proxy.track()
        gone = weakref.ref(thing.resource)
        thing.resource = None
        sync_eventually(lambda: gone() is None)


def test_a_generator_that_cleans_up_slowly_holds_up_nobody_else(thing: Thing, serve: Any) -> None:
    [uri] = serve()
    with Proxy(uri) as reader, Proxy(uri) as other:
        items = reader.items()
        next(items)
        items.close()
        other._pyroTimeout = WAIT_S / 2
        assert other.ping() == "pong"
        assert not thing.ended.is_set()
        thing.go.set()
        assert thing.ended.wait(WAIT_S)


def test_the_multiplex_server_runs_oneway_methods_in_threads(
    thing: Thing, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SERVERTYPE", "multiplex")
    [uri] = serve()
    with Proxy(uri) as proxy:
        proxy.wait_alone()
        proxy._pyroTimeout = WAIT_S / 2
        assert proxy.ping() == "pong"


@pytest.mark.parametrize("servertype", ["thread", "multiplex"])
@pytest.mark.parametrize("make", [Pyro5.api.Daemon, compat.Daemon], ids=["stock", "ours"])
def test_a_oneway_batch_runs_in_the_thread_of_its_connection_before_the_next_call(
    make: Any, servertype: str, thing: Thing, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SERVERTYPE", servertype)
    [uri] = serve(daemon=make())
    thing.go.set()
    with Proxy(uri) as proxy:
        batch = BatchProxy(proxy)
        for _ in range(3):
            batch.begin()
        batch(oneway=True)
        assert proxy.ping() == "pong"
    assert len(thing.threads) == 4
    assert len(set(thing.threads)) == 1


def test_a_type_of_server_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "SERVERTYPE", "foobar")
    with pytest.raises(PyroError, match="foobar"):
        compat.Daemon()


def test_who_it_was_that_disconnected_can_still_be_asked(serve: Any) -> None:
    gone: list[object] = []

    class Listening(compat.Daemon):
        def clientDisconnect(self, conn: Any) -> None:
            gone.append((conn.sock.getpeername(), conn.sock.getsockname(), conn.family()))
            gone.append(conn.sock.fileno())

    [uri] = serve(daemon=Listening())
    with Proxy(uri) as proxy:
        proxy.ping()
        sock = proxy._pyroConnection.sock
        expected = (sock.getsockname(), sock.getpeername(), "IPv4")
    sync_eventually(lambda: len(gone) == 2)
    assert gone == [expected, -1]


async def test_where_a_loop_runs_the_daemon_can_be_run_and_closed(thing: Thing) -> None:
    with compat.Daemon() as unused:
        unused.register(thing)
    with compat.Daemon() as daemon:
        answers: list[str] = []
        uri = daemon.register(thing)

        def ask() -> None:
            with Proxy(uri) as proxy:
                answers.append(proxy.ping())

        asker = threading.Thread(target=ask)
        asker.start()
        daemon.requestLoop(asker.is_alive)
        asker.join(WAIT_S)
        assert answers == ["pong"]


def test_a_batch_goes_on_in_its_thread_when_its_caller_has_gone_and_then_leaves_nothing(
    thing: Thing, serve: Any
) -> None:
    daemon = compat.Daemon()
    [uri] = serve(daemon=daemon)
    with Proxy(uri) as impatient:
        batch = BatchProxy(impatient)
        batch.begin()
        batch.ping()
        impatient._pyroTimeout = 0.1
        with pytest.raises(TimeoutError):
            batch()
    serving = daemon._serving
    sync_eventually(lambda: not serving.connections)
    thing.go.set()
    sync_eventually(lambda: not serving.dispatcher.running)
    assert len(set(thing.threads)) == 1
    assert len(thing.threads) == 2
    assert not serving._threads._by_connection
    assert not any(serving._threads._users.values())


def test_a_batch_that_goes_on_just_as_its_caller_leaves_is_given_no_other_thread() -> None:
    with compat.Daemon(threads=1) as daemon:
        serving = daemon._serving
        connection: Any = Connection(serving, 1)
        call = Call(ANONYMOUS, connection)
        serving.connections._all.add(connection)
        own = serving.executor_for(call)
        looked = serving.connections.__class__.__contains__

        def look_just_before_its_end(connections: Any, one: Any) -> bool:
            found = looked(connections, one)
            serving.dismiss(one)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(serving.connections), "__contains__", look_just_before_its_end)
            assert serving.executor_for(call) is own
        if connection in serving.connections:
            serving.dismiss(connection)
        assert serving.executor_for(call) is own
        assert not serving._threads._by_connection


def test_a_stream_whose_reader_does_not_come_back_is_closed(thing: Thing, serve: Any) -> None:
    daemon = compat.Daemon(limits=DaemonLimits(stream_linger_s=0.01))
    [uri] = serve(daemon=daemon)
    with Proxy(uri) as leaving:
        next(leaving.items())
        thing.go.set()
    assert thing.ended.wait(WAIT_S)
    sync_eventually(lambda: not len(daemon._serving.streams))

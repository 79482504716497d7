"""Classes that programs derive from Pyro5's daemon and from its own object: as with stock."""

from __future__ import annotations

import copy
import pickle
import threading
import uuid
from collections.abc import Callable
from typing import Any

import Pyro5.api
import Pyro5.errors
import Pyro5.server
import pytest
from Pyro5 import config
from Pyro5.api import Proxy, current_context, expose

import rmi_runtime
from rmi_runtime import compat
from tests.support import sync_eventually

BOTH = pytest.mark.parametrize("module", [Pyro5.server, compat], ids=["stock", "ours"])


class Counter:
    """Keeps its state by copying or pickling itself."""

    count = 0

    @expose
    def add(self) -> int:
        self.count += 1
        return self.count


@BOTH
@pytest.mark.parametrize("ends_with", ["shutdown", "close"])
def test_what_a_program_does_when_its_daemon_closes_is_done(module: Any, ends_with: str) -> None:
    done = []

    class Laboratory(module.Daemon):  # type: ignore[misc,name-defined]
        def shutdown(self) -> None:
            done.append("shutdown")
            super().shutdown()

        def close(self) -> None:
            done.append("close")
            super().close()

    daemon = Laboratory("127.0.0.1")
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    with Proxy(daemon.uriFor("Pyro.Daemon")) as proxy:
        proxy.ping()
    getattr(daemon, ends_with)()
    if ends_with == "shutdown":
        thread.join(10)
        assert done == ["shutdown", "close"]
    else:
        assert done == ["close"]
        daemon.shutdown()  # a stock daemon's loop goes on until then
        thread.join(10)
    assert not thread.is_alive()


@BOTH
def test_a_daemon_may_be_shut_down_when_a_client_disconnects(module: Any) -> None:
    told = []

    class Brief(module.Daemon):  # type: ignore[misc,name-defined]
        def clientDisconnect(self, conn: object) -> None:
            told.append(conn)
            self.shutdown()

    daemon = Brief("127.0.0.1")
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    proxies = [Proxy(daemon.uriFor("Pyro.Daemon")) for _ in range(3)]
    for proxy in proxies:
        proxy.ping()
    proxies[0]._pyroRelease()
    thread.join(4)  # less than shutdown waits for the loop
    assert not thread.is_alive()
    for proxy in proxies:
        proxy._pyroRelease()
    sync_eventually(lambda: len(told) == 3)


@BOTH
def test_a_daemon_whose_loop_has_ended_may_be_closed_once_more_as_its_clients_go(
    module: Any,
) -> None:
    class Brief(module.Daemon):  # type: ignore[misc,name-defined]
        def clientDisconnect(self, conn: object) -> None:
            self.close()

    daemon = Brief("127.0.0.1")
    called = threading.Event()
    serving = threading.Thread(target=daemon.requestLoop, args=(lambda: not called.is_set(),))
    serving.start()
    with Proxy(daemon.uriFor("Pyro.Daemon")) as proxy:
        proxy.ping()
        called.set()
        serving.join(10)
        assert not serving.is_alive()
        closing = threading.Thread(target=daemon.close, daemon=True)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()


@BOTH
def test_the_daemons_own_object_knows_its_daemon(module: Any) -> None:
    class Own(module.DaemonObject):  # type: ignore[misc,name-defined]
        @expose
        def known(self) -> list[str]:
            return sorted(self.daemon.objectsById)

    with module.Daemon("127.0.0.1", interface=Own) as daemon:
        daemon.register(Own(daemon), "more")
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(daemon.uriFor("Pyro.Daemon")) as proxy:
            assert proxy.known() == ["Pyro.Daemon", "more"]
        daemon.shutdown()
        thread.join(10)


@BOTH
@pytest.mark.parametrize("nat", [{}, {"nathost": "nat.example", "natport": 55}])
def test_the_daemon_tells_its_nat_address(module: Any, nat: dict[str, Any]) -> None:
    with module.Daemon("127.0.0.1", **nat) as daemon:
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(daemon.uriFor("Pyro.Daemon", nat=False)) as proxy:
            assert f"NAT {daemon.natLocationStr}," in proxy.info()
        daemon.shutdown()
        thread.join(10)


@pytest.mark.parametrize(
    "module", [Pyro5.server, compat, rmi_runtime], ids=["stock", "ours", "asyncio"]
)
@pytest.mark.parametrize("again", [copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))])
async def test_a_registered_object_can_be_copied_and_pickled(
    module: Any, again: Callable[[Counter], Counter]
) -> None:
    daemon, counter = module.Daemon("127.0.0.1"), Counter()
    daemon.register(counter, "counter")
    counter.add()
    other = again(counter)
    assert other.add() == 2
    assert counter.count == 1
    assert daemon.register(other, "other").object == "other"
    await closed if (closed := daemon.close()) is not None else None


@BOTH
def test_annotations_that_are_set_while_a_client_is_let_in_reach_it(module: Any) -> None:
    class Welcoming(module.Daemon):  # type: ignore[misc,name-defined]
        def validateHandshake(self, conn: object, data: object) -> object:
            current_context.response_annotations = {"HAIL": b"you"}
            return "come in"

        def annotations(self) -> dict[str, bytes]:
            return {"EVER": b"more"}

    daemon = Welcoming("127.0.0.1")
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    try:
        with Proxy(daemon.uriFor("Pyro.Daemon")) as proxy:
            proxy._pyroBind()
            found = current_context.response_annotations
            assert (bytes(found["HAIL"]), bytes(found["EVER"])) == (b"you", b"more")
    finally:
        daemon.shutdown()
        thread.join(10)


@BOTH
def test_the_correlation_id_of_a_handshake_can_be_asked(module: Any) -> None:
    heard = []

    class Careful(module.Daemon):  # type: ignore[misc,name-defined]
        def validateHandshake(self, conn: object, data: object) -> object:
            heard.append(current_context.correlation_id)
            return "hello"

    daemon = Careful("127.0.0.1")
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    mine = uuid.uuid4()
    try:
        for known in (mine, None):
            current_context.correlation_id = known
            with Proxy(daemon.uriFor("Pyro.Daemon")) as proxy:
                proxy._pyroBind()
    finally:
        current_context.correlation_id = None
        daemon.shutdown()
        thread.join(10)
    assert heard[0] == mine
    assert isinstance(heard[1], uuid.UUID)
    assert heard[1] != mine


@BOTH
def test_serve_tells_the_names_that_the_name_server_knows(
    module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Brief(module.Daemon):  # type: ignore[misc,name-defined]
        def requestLoop(self, loopCondition: object = None) -> None: ...

    module.serve({Counter: "counter"}, daemon=Brief("127.0.0.1"), use_ns=False)
    printed = capsys.readouterr().out
    assert "uri = PYRO:counter@" in printed
    assert "name = " not in printed


def test_what_the_drop_in_does_not_offer_is_refused_with_what_to_do_instead() -> None:
    with compat.Daemon() as daemon:
        wanted: Any = daemon
        for name in ("events", "selector", "transportServer"):
            with pytest.raises(AttributeError, match=rf"no '{name}': .*rmi_runtime\.Daemon"):
                getattr(wanted, name)
        with pytest.raises(AttributeError, match=r"use rmi_runtime\.compat\.serve"):
            wanted.serveSimple({})
        with pytest.raises(AttributeError, match="'Daemon' object has no attribute 'request_loop'"):
            wanted.request_loop()
        with pytest.raises(TypeError, match="in its own thread"):
            wanted.combine(daemon)
        wanted.own = 1
        assert wanted.own == 1


@BOTH
@pytest.mark.parametrize("servertype", ["thread", "multiplex"])
def test_who_hears_of_a_clients_end_sees_its_resources_before_they_are_closed(
    module: Any, servertype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SERVERTYPE", servertype)
    happened = []

    class Resource:
        def close(self) -> None:
            happened.append("closed")

    class Odd:
        """Cannot be closed, which is not the others' fault."""

    class Laboratory(module.Daemon):  # type: ignore[misc,name-defined]
        def clientDisconnect(self, conn: Any) -> None:
            happened.append(f"{len(conn.tracked_resources)} tracked")

    class Service:
        def __init__(self) -> None:
            self.held: list[Any] = []

        @expose
        def allocate(self) -> None:
            self.held += [Resource(), Odd(), Resource(), Odd(), Resource()]
            for resource in self.held:
                current_context.track_resource(resource)

    daemon = Laboratory("127.0.0.1")
    uri = daemon.register(Service())
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    try:
        with Proxy(uri) as proxy:
            proxy.allocate()
        sync_eventually(lambda: happened.count("closed") == 3)
    finally:
        daemon.shutdown()
        thread.join(10)
    assert happened == ["5 tracked", *["closed"] * 3]


class Fragile:
    """Fails in every way that a client can bring about."""

    @expose
    def fail(self, number: int, *, word: str = "") -> None:
        raise ValueError(number, word)

    @expose
    @Pyro5.api.oneway
    def fail_unheard(self) -> None:
        raise KeyError("unheard")

    @expose
    @property
    def broken(self) -> int:
        raise RuntimeError("of a property nobody is told")


@BOTH
@pytest.mark.parametrize("servertype", ["thread", "multiplex"])
def test_the_programs_handler_is_told_what_methods_raise(
    module: Any, servertype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SERVERTYPE", servertype)
    told: list[tuple[Any, ...]] = []
    with module.Daemon("127.0.0.1") as daemon:
        assert callable(daemon.methodcall_error_handler)
        daemon.methodcall_error_handler = lambda *args: told.append(args)
        uri = daemon.register(Fragile)
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(uri) as proxy:
            with pytest.raises(ValueError, match="1"):
                proxy.fail(1, word="a")
            batch = Pyro5.api.BatchProxy(proxy)
            batch.fail(2)
            with pytest.raises(ValueError, match="2"):
                list(batch())
            with pytest.raises(RuntimeError):
                _ = proxy.broken
            proxy.fail_unheard()
            sync_eventually(lambda: len(told) == 3)
            peer = proxy._pyroConnection.sock.getsockname()
        daemon.shutdown()
        thread.join(10)
    assert all(args[0] is daemon and args[1] == peer for args in told)
    assert [args[2].__name__ for args in told] == ["fail", "fail", "fail_unheard"]
    assert [(list(args[3]), args[4]) for args in told] == [
        ([1], {"word": "a"}),
        ([2], {}),
        ([], {}),
    ]
    assert [repr(args[5]) for args in told] == [
        "ValueError(1, 'a')",
        "ValueError(2, '')",
        "KeyError('unheard')",
    ]


@BOTH
def test_what_the_programs_handler_raises_is_what_the_client_gets(module: Any) -> None:
    def translate(*args: Any) -> None:
        raise LookupError("in other words") from args[-1]

    with module.Daemon("127.0.0.1") as daemon:
        daemon.methodcall_error_handler = translate
        uri = daemon.register(Fragile)
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(uri) as proxy, pytest.raises(LookupError, match="in other words"):
            proxy.fail(1)
        daemon.shutdown()
        thread.join(10)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
@pytest.mark.parametrize("method", ["annotations", "validateHandshake", "clientDisconnect"])
def test_what_ends_a_process_or_a_coroutine_ends_no_daemon_whose_own_methods_raise_it(
    method: str, error: type[BaseException]
) -> None:
    raised = threading.Event()
    answers: list[object] = []

    def fail(*_: object) -> object:
        if fails:
            raised.set()
            raise error
        return {} if method == "annotations" else "hello"

    def add(client: Proxy) -> None:
        client._pyroTimeout = 10
        try:
            answers.append(client.add())
        except (Pyro5.errors.PyroError, StopIteration) as why:
            answers.append(why)
        finally:
            client._pyroRelease()

    fails = False
    daemon = type("Odd", (compat.Daemon,), {method: fail})("127.0.0.1")
    uri = daemon.register(Counter())
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    try:
        connected = Proxy(uri)
        connected._pyroBind()
        fails = True
        add(connected)
        add(Proxy(uri))
        assert raised.wait(10)
        fails = False
        add(Proxy(uri))
    finally:
        daemon.shutdown()
        thread.join(10)
    assert not thread.is_alive()
    assert not any(isinstance(answer, Pyro5.errors.TimeoutError) for answer in answers)
    assert isinstance(answers[-1], int)

"""The life of a daemon and of its calls: deadlines, cancellation, draining, bounds, the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest

from rmi_runtime import (
    Daemon,
    DaemonLimits,
    Identity,
    Proxy,
    allow,
    current_call,
    errors,
    expose,
    oneway,
    wire,
)
from tests.attacks import RawClient, call
from tests.support import eventually


@expose
class Worker:
    """Work that can be held up, and tells what became of it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[Any] = []
        self.finished: list[Any] = []
        self.cancelled: list[Any] = []
        self.deadlines: list[float | None] = []

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value

    async def work(self, name: Any) -> Any:
        """Wait for the gate."""
        self.begun.append(name)
        self.deadlines.append(current_call().deadline)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.finished.append(name)
        return name

    @oneway
    async def leave_behind(self, name: Any) -> None:
        """Wait for the gate; nobody waits for this."""
        await self.work(name)

    async def tidy_slowly(self) -> None:
        """Wait for ever, and take two awaits to clean up."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.gate.wait()
            self.finished.append("tidied")

    async def count_to(self, number: int) -> Any:
        """Return a stream."""

        async def numbers() -> AsyncIterator[int]:
            try:
                for n in range(number):
                    yield n
            finally:
                self.finished.append("stream")

        return numbers()


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def daemon(worker: Worker) -> AsyncIterator[Daemon]:
    async with Daemon() as daemon:
        daemon.register(worker, "target")
        yield daemon
        worker.gate.set()


def _uri(daemon: Daemon) -> str:
    return f"PYRO:target@{daemon.location}"


def _address(daemon: Daemon) -> tuple[str, int]:
    host, _, port = daemon.location.rpartition(":")
    return host, int(port)


def _proxy(daemon: Daemon, **options: Any) -> Proxy:
    return Proxy(_uri(daemon), **options)


async def _raw(daemon: Daemon, **options: Any) -> RawClient:
    return await asyncio.to_thread(RawClient, _address(daemon), **options)


async def _in_thread(function: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(function)


# -- deadlines


async def test_the_deadline_travels_to_the_method(daemon: Daemon, worker: Worker) -> None:
    async with _proxy(daemon, timeout_s=30.0) as proxy:
        working = asyncio.ensure_future(proxy._call("work", (1,), timeout_s=5.0))
        await eventually(lambda: worker.deadlines)
        (deadline,) = worker.deadlines
        assert deadline is not None
        assert 0 < deadline - time.monotonic() <= 5.0
        worker.gate.set()
        assert await working == 1


async def test_a_stock_client_sets_no_deadline(daemon: Daemon, worker: Worker) -> None:
    worker.gate.set()

    def stock() -> None:
        with Pyro5.api.Proxy(_uri(daemon)) as proxy:
            proxy.work(1)

    await _in_thread(stock)
    assert worker.deadlines == [None]


async def test_work_is_given_up_when_its_caller_stops_waiting(
    daemon: Daemon, worker: Worker
) -> None:
    async with _proxy(daemon) as proxy:
        with pytest.raises((errors.CallTimeout, errors.Interrupted)):
            await proxy._call("work", (1,), timeout_s=0.05)
        await eventually(lambda: worker.cancelled == [1])
        assert await proxy.echo(2) == 2
    assert daemon.stats()["inflight"] == 0


async def test_work_whose_time_is_over_is_not_begun(daemon: Daemon, worker: Worker) -> None:
    payload = call("work", 1, seq=5)
    late = bytearray(payload)
    late[36:38] = (1).to_bytes(2, "big")  # ten milliseconds

    def strike() -> wire.Message | None:
        with RawClient(_address(daemon), pipelining=True) as client:
            client.send(bytes(late))
            return client.receive()

    striking = asyncio.ensure_future(_in_thread(strike))
    real = daemon.loop.create_task

    def slow_to_begin(coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        time.sleep(0.02)  # the loop has other things to do
        return real(coroutine, **options)

    class Loop:
        create_task = staticmethod(slow_to_begin)

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio.get_running_loop(), name)

    daemon.loop = Loop()  # type: ignore[assignment]
    reply = await striking
    assert reply is not None
    assert reply.flags & wire.FLAG_EXCEPTION
    assert b"deadline_passed" in reply.payload
    assert worker.begun == []


async def test_clean_up_is_not_cancelled_again_and_again(daemon: Daemon, worker: Worker) -> None:
    async with _proxy(daemon) as proxy:
        with pytest.raises((errors.CallTimeout, errors.Interrupted)):
            await proxy._call("tidy_slowly", timeout_s=0.02)
        await asyncio.sleep(0)
        for _ in range(3):
            daemon.dispatcher.sweep()
            await asyncio.sleep(0)
        worker.gate.set()
        await eventually(lambda: worker.finished == ["tidied"])


# -- callers that go away


async def test_pipelined_work_is_cancelled_when_its_caller_goes_away(
    daemon: Daemon, worker: Worker
) -> None:
    proxy = _proxy(daemon)
    working = [asyncio.ensure_future(proxy.work(n)) for n in range(3)]
    await eventually(lambda: len(worker.begun) == 3)
    await proxy._close()
    await eventually(lambda: sorted(worker.cancelled) == [0, 1, 2])
    assert await asyncio.gather(*working, return_exceptions=True)
    await eventually(lambda: daemon.stats()["inflight"] == 0)


async def test_a_stock_clients_work_goes_on_to_its_end(daemon: Daemon, worker: Worker) -> None:
    with await _raw(daemon) as client:
        client.send(call("work", "stock"))
        await eventually(lambda: worker.begun == ["stock"])
    await eventually(lambda: daemon.stats()["connections"] == 0)
    worker.gate.set()
    await eventually(lambda: worker.finished == ["stock"])
    assert worker.cancelled == []


async def test_oneway_work_goes_on_whoever_asked_for_it(daemon: Daemon, worker: Worker) -> None:
    async with _proxy(daemon) as proxy:
        await proxy.leave_behind("ours")
        await eventually(lambda: worker.begun == ["ours"])
    await eventually(lambda: daemon.stats()["connections"] == 0)
    worker.gate.set()
    await eventually(lambda: worker.finished == ["ours"])
    assert worker.cancelled == []


async def test_callbacks_at_the_end_of_a_connection(daemon: Daemon) -> None:
    ended: list[str] = []

    @expose
    class Watcher:
        def watch(self, name: str) -> None:
            connection = current_call().connection
            assert connection is not None
            connection.on_close(lambda: ended.append(name))
            connection.on_close(lambda: 1 / 0)
            connection.on_close(lambda: ended.append("taken back"))()

    daemon.register(Watcher(), "watcher")
    async with Proxy(f"PYRO:watcher@{daemon.location}") as proxy:
        await proxy.watch("first")
        await proxy.watch("second")
        assert ended == []
    await eventually(lambda: ended == ["first", "second"])


# -- order


async def test_a_stock_client_is_answered_in_order(daemon: Daemon, worker: Worker) -> None:
    with await _raw(daemon) as client:
        client.send(call("work", 1, seq=1) + call("echo", 2, seq=2) + call("work", 3, seq=3))
        await eventually(lambda: worker.begun == [1])
        await asyncio.sleep(0)
        assert worker.begun == [1]
        worker.gate.set()
        replies = [await _in_thread(client.receive) for _ in range(3)]
        assert [reply.seq for reply in replies] == [1, 2, 3]


async def test_a_pipelining_client_is_answered_as_the_work_is_done(
    daemon: Daemon, worker: Worker
) -> None:
    async with _proxy(daemon) as proxy:
        working = asyncio.ensure_future(proxy.work("late"))
        await eventually(lambda: worker.begun)
        assert await proxy.echo("soon") == "soon"
        assert not working.done()
        worker.gate.set()
        assert await working == "late"


async def test_a_flood_on_one_connection_leaves_turns_to_the_others(daemon: Daemon) -> None:
    turns: list[str] = []

    @expose
    class Turns:
        def take(self, name: str) -> None:
            turns.append(name)

    daemon.register(Turns(), "turns")
    with await _raw(daemon, pipelining=True) as flood, await _raw(daemon) as other:
        flood.send(call("take", "flood", object_id="turns") * 1000)
        other.send(call("take", "other", object_id="turns"))
        await eventually(lambda: len(turns) == 1001)
        assert turns.index("other") < 500


# -- bounds


async def test_past_the_bound_of_a_daemon_calls_are_overloaded_and_pings_are_not(
    worker: Worker,
) -> None:
    async with Daemon(limits=DaemonLimits(inflight_max=2)) as daemon:
        daemon.register(worker, "target")
        async with _proxy(daemon) as one, _proxy(daemon) as other:
            working = [asyncio.ensure_future(p.work(1)) for p in (one, other)]
            await eventually(lambda: len(worker.begun) == 2)
            with pytest.raises(errors.Overloaded) as refused:
                await one.work(2)
            assert refused.value.definite
            assert refused.value.fields["retry_after_s"] == 1
            await one._call("ping", object_id="Pyro.Daemon")
            worker.gate.set()
            assert await asyncio.gather(*working) == [1, 1]
            assert await one.work(3) == 3
        assert daemon.stats()["overloads"] == 1


async def test_past_the_bound_of_a_connection_its_own_calls_are_overloaded(worker: Worker) -> None:
    async with Daemon(limits=DaemonLimits(connection_inflight_max=2)) as daemon:
        daemon.register(worker, "target")
        async with _proxy(daemon) as crowded, _proxy(daemon) as other:
            found = [asyncio.ensure_future(crowded.work(n)) for n in range(3)]
            with pytest.raises(errors.Overloaded):
                await found[2]
            assert await other.echo(1) == 1
            worker.gate.set()
            assert await asyncio.gather(*found[:2]) == [0, 1]


async def test_past_the_bound_of_a_connection_oneway_calls_wait_and_none_is_lost(
    worker: Worker,
) -> None:
    async with Daemon(limits=DaemonLimits(connection_inflight_max=2)) as daemon:
        daemon.register(worker, "target")
        async with _proxy(daemon) as proxy:
            for number in range(6):
                await proxy.leave_behind(number)
            await eventually(lambda: worker.begun == [0, 1])
            worker.gate.set()
            await eventually(lambda: sorted(worker.finished) == [0, 1, 2, 3, 4, 5])


async def test_one_connection_too_many_is_closed_unless_another_is_silent(worker: Worker) -> None:
    async with Daemon(limits=DaemonLimits(connections_max=2)) as daemon:
        daemon.register(worker, "target")
        with RawClient(_address(daemon), 0) as silent:
            await eventually(lambda: daemon.stats()["connections"] == 1)
            async with _proxy(daemon) as one, _proxy(daemon) as other:  # in the silent one's place
                assert await _in_thread(silent.outcome) == "closed"
                with pytest.raises(errors.Unavailable):
                    await _proxy(daemon)._bind()
                assert [await one.echo(1), await other.echo(2)] == [1, 2]
        await eventually(lambda: daemon.stats()["connections"] == 0)
        assert daemon.stats()["refusals"] == 2


async def test_strangers_may_send_less_than_those_who_are_known() -> None:
    def identify(handshake: object, _: object) -> Identity:
        return Identity("service") if handshake == "known" else Identity()

    async with Daemon(authenticate=identify) as daemon:
        daemon.register(Worker(), "target")
        async with (
            _proxy(daemon, handshake="known") as known,
            _proxy(daemon, serializer="serpent") as stranger,
        ):
            text = "x" * 200_000
            assert await known.echo(text) == text
            assert len(await known.echo([1] * 5000)) == 5000
            with pytest.raises(errors.RmiError):
                await stranger.echo(text)
            with pytest.raises(Pyro5.errors.SerializeError, match="more than 4096 elements"):
                await stranger.echo([1] * 10_000)


async def test_a_reply_that_is_too_large_is_an_error_that_does_not_claim_nothing_happened(
    worker: Worker,
) -> None:
    async with Daemon(limits=DaemonLimits(reply_size_bytes_max=1000)) as daemon:
        daemon.register(worker, "target")
        async with _proxy(daemon) as proxy:
            with pytest.raises(errors.InternalError, match="at most 1000") as refused:
                await proxy.echo("x" * 2000)
            assert not refused.value.definite
            assert await proxy.echo(1) == 1


# -- draining and closing


async def test_draining_finishes_what_is_under_way_and_refuses_what_is_new(
    daemon: Daemon, worker: Worker
) -> None:
    async with _proxy(daemon) as proxy, _proxy(daemon) as newcomer:
        working = asyncio.ensure_future(proxy.work("old"))
        await eventually(lambda: worker.begun)
        draining = asyncio.ensure_future(daemon.drain(10.0))
        await asyncio.sleep(0)
        with pytest.raises(errors.Draining) as refused:
            await newcomer.echo("new")
        assert refused.value.definite
        await newcomer._call("ping", object_id="Pyro.Daemon")
        assert daemon.stats()["state"] == "draining"
        assert not draining.done()
        worker.gate.set()
        assert await draining is True
        assert await working == "old"


async def test_draining_ends_after_its_time(daemon: Daemon, worker: Worker) -> None:
    async with _proxy(daemon) as proxy:
        working = asyncio.ensure_future(proxy.work("stuck"))
        await eventually(lambda: worker.begun)
        assert await daemon.drain(0.05) is False
        worker.gate.set()
        assert await working == "stuck"


async def test_a_stream_can_be_read_to_its_end_while_draining(daemon: Daemon) -> None:
    async with _proxy(daemon) as proxy:
        stream = await proxy.count_to(3)
        assert await anext(stream) == 0
        await daemon.drain(1.0)
        assert [n async for n in stream] == [1, 2]


async def test_a_stock_client_reads_draining_as_a_connection_error(daemon: Daemon) -> None:
    daemon.draining = True

    def stock() -> None:
        with Pyro5.api.Proxy(_uri(daemon)) as proxy, pytest.raises(ConnectionError) as refused:
            proxy.echo(1)
        assert refused.value.code == "draining"

    await _in_thread(stock)


async def test_closing_with_calls_under_way_answers_them_and_leaves_nothing(
    worker: Worker,
) -> None:
    async with Daemon() as daemon:
        daemon.register(worker, "target")
        proxy = _proxy(daemon)
        working = [asyncio.ensure_future(proxy.work(n)) for n in range(10)]
        stream = await proxy.count_to(3)
        await anext(stream)
        await eventually(lambda: len(worker.begun) == 10)
    outcomes = await asyncio.gather(*working, return_exceptions=True)
    assert all(isinstance(e, (errors.Interrupted, errors.ConnectionLost)) for e in outcomes)
    assert len(worker.cancelled) == 10
    assert worker.finished == ["stream"]
    await eventually(lambda: daemon.stats()["connections"] == 0)
    assert daemon.stats()["inflight"] == 0
    with pytest.raises(errors.Unavailable):
        await proxy.echo(1)
    await daemon.close()  # once more is harmless
    with pytest.raises(Pyro5.errors.DaemonError, match="closed"):
        await daemon.start()


async def test_calls_that_never_began_are_refused_as_definite_when_the_daemon_closes(
    worker: Worker, recwarn: pytest.WarningsRecorder
) -> None:
    async with Daemon() as daemon:
        daemon.register(worker, "target")
        with await _raw(daemon, pipelining=True) as client:
            await eventually(lambda: daemon.stats()["connections"] == 1)
            (connection,) = daemon._connections
            connection.data_received(call("work", 1))  # its task has not had a turn yet
            await daemon.close()
            reply = await _in_thread(client.receive)
    assert reply is not None
    assert b"'draining'" in reply.payload
    assert worker.begun == []
    gc.collect()
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


async def test_objects_come_and_go_while_they_are_called(daemon: Daemon, worker: Worker) -> None:
    async with _proxy(daemon) as proxy:
        working = asyncio.ensure_future(proxy.work("old"))
        await eventually(lambda: worker.begun)
        daemon.unregister("target")
        with pytest.raises(Pyro5.errors.DaemonError, match="unknown object"):
            await proxy.echo(1)
        with pytest.raises(errors.NotFound):
            await _proxy(daemon)._bind()
        other = Worker()
        daemon.register(other, "target")
        assert await proxy.echo(2) == 2
        worker.gate.set()
        assert await working == "old"


# -- robustness


async def test_housekeeping_goes_on_after_an_exception(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    swept: list[int] = []

    def fails_once() -> None:
        swept.append(1)
        if len(swept) == 1:
            raise RuntimeError("dust")

    with caplog.at_level(logging.ERROR, "rmi_runtime.daemon"):
        monkeypatch.setattr(daemon.dispatcher, "sweep", fails_once)
        await eventually(lambda: len(swept) >= 2)
    assert "housekeeping failed" in caplog.text


class Unspeakable(Exception):
    """Cannot be described nor serialized."""

    def __init__(self) -> None:
        super().__init__(object())

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
async def test_whatever_a_method_raises_or_returns_there_is_an_answer(
    daemon: Daemon, serializer: str
) -> None:
    @expose
    class Odd:
        def unspeakable(self) -> None:
            raise Unspeakable

        def odd_fields(self) -> None:
            raise errors.Conflict("odd", thing=object())

        def surrogate(self) -> None:
            raise ValueError("\udc80")

        def not_serializable(self) -> object:
            return (n for n in "abc").gi_frame

        def bad_annotation(self) -> int:
            current_call().response_annotations["TOO LONG"] = b""
            return 1

        async def generator_exit(self) -> None:
            raise KeyboardInterrupt

        def endless(self) -> Any:
            found: list[Any] = []
            found.append(found)
            return found

    daemon.register(Odd(), "odd")
    async with Proxy(f"PYRO:odd@{daemon.location}", serializer=serializer) as proxy:
        for name in sorted(proxy._methods):
            with pytest.raises(Exception) as raised:  # noqa: PT011 (any, but in time)
                await proxy._call(name, timeout_s=10.0)
            assert not isinstance(raised.value, (errors.CallTimeout, errors.ConnectionLost)), name
        with pytest.raises(errors.Conflict):
            await proxy.odd_fields()


async def test_a_getter_of_an_unexposed_property_does_not_run(daemon: Daemon) -> None:
    ran: list[str] = []

    class Guarded:
        @property
        def secret(self) -> int:
            ran.append("secret")
            return 1

        @expose
        def open(self) -> int:
            return 2

    daemon.register(Guarded(), "guarded")
    async with Proxy(f"PYRO:guarded@{daemon.location}") as proxy:
        with pytest.raises(AttributeError, match="unexposed"):
            await proxy._call("secret")
        with pytest.raises(AttributeError):
            await proxy._call("__getattr__", ("secret",))
        assert await proxy.open() == 2
    assert ran == []


async def test_who_may_set_a_property_is_said_at_its_setter(daemon: Daemon) -> None:
    class Guarded:
        level = 1

        @property
        def shown(self) -> int:
            return self.level

        @expose
        @shown.setter
        def shown(self, value: int) -> None:
            self.level = value

    allow("admin")(Guarded.shown.fset)  # type: ignore[attr-defined]
    daemon.register(Guarded(), "guarded")
    async with Proxy(f"PYRO:guarded@{daemon.location}") as proxy:
        assert await proxy.shown == 1
        with pytest.raises(errors.Unauthenticated):
            await proxy._set("shown", 5)
        assert await proxy.shown == 1


async def test_a_long_batch_lets_others_have_their_turn(daemon: Daemon, worker: Worker) -> None:
    order: list[str] = []

    @expose
    class Steps:
        def step(self) -> None:
            order.append("step")

        def other(self) -> None:
            order.append("other")

    daemon.register(Steps(), "steps")
    uri = f"PYRO:steps@{daemon.location}"
    async with Proxy(uri) as one, Proxy(uri) as other:
        batch = one._batch()
        for _ in range(3000):
            batch.step()
        working = asyncio.ensure_future(batch())
        await eventually(lambda: order, every_s=0)
        await other.other()
        assert len(list(await working)) == 3000
    assert order.index("other") < 3000


async def test_a_batch_past_its_bound_has_no_effect(worker: Worker) -> None:
    async with Daemon(limits=DaemonLimits(batch_max=3)) as daemon:
        daemon.register(worker, "target")
        async with _proxy(daemon) as proxy:
            batch = proxy._batch()
            for number in range(4):
                batch.work(number)
            with pytest.raises(errors.InvalidRequest, match="at most 3"):
                await batch()
    assert worker.begun == []


# -- nothing piles up


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_many_calls_and_many_connections_leave_nothing_behind(daemon: Daemon) -> None:
    async with _proxy(daemon) as proxy:
        await asyncio.gather(*[proxy.echo(n) for n in range(500)])
        gc.collect()
        objects, files = len(gc.get_objects()), _descriptors()
        for _ in range(10):
            await asyncio.gather(*[proxy.echo(n) for n in range(500)])
            await asyncio.gather(*[proxy._call("info", object_id="Pyro.Daemon") for _ in range(50)])
        for _ in range(100):
            async with _proxy(daemon) as another:
                await another.echo(1)
        await eventually(lambda: daemon.stats()["connections"] == 1)
        gc.collect()
        assert len(gc.get_objects()) - objects < 1000
        assert _descriptors() <= files
    assert daemon.stats()["calls"] >= 5600
    assert daemon.stats()["inflight"] == 0

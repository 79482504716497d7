"""Methods that return a future: answered when it is done, without a task of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rmi_runtime import Daemon, Proxy, errors, expose, oneway
from tests.raw_client import RawClient, call
from tests.support import eventually


@expose
class Promises:
    """Its futures are kept by the test."""

    def __init__(self) -> None:
        self.made: list[asyncio.Future[Any]] = []

    def make(self) -> asyncio.Future[Any]:
        """Return a future of this call's own."""
        self.made.append(asyncio.get_running_loop().create_future())
        return self.made[-1]

    def last(self) -> asyncio.Future[Any]:
        """Return the last future once more."""
        return self.made[-1]

    @oneway
    def make_quietly(self) -> asyncio.Future[Any]:
        """Return a future, whose result nobody wants."""
        return self.make()

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value


@pytest.fixture
async def served() -> AsyncIterator[tuple[Daemon, Promises, Proxy]]:
    promises = Promises()
    async with Daemon() as daemon, Proxy(daemon.register(promises), timeout_s=30) as proxy:
        yield daemon, promises, proxy


Served = tuple[Daemon, Promises, Proxy]


async def asked(promises: Promises, call: Any) -> asyncio.Future[Any]:
    """Return a call that the server has begun."""
    before = len(promises.made)
    future = asyncio.ensure_future(call)
    await eventually(lambda: len(promises.made) > before)
    return future


async def test_the_answer_is_what_the_future_ends_with(served: Served) -> None:
    daemon, promises, proxy = served
    calls = [await asked(promises, proxy.make()) for _ in range(3)]
    assert await proxy.echo("meanwhile") == "meanwhile"
    assert daemon.stats()["inflight"] == 3
    promises.made[2].set_result([1, 2])
    promises.made[0].set_exception(ValueError("no"))
    promises.made[1].cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in found] == [ValueError, errors.Interrupted, list]
    await eventually(lambda: daemon.stats()["inflight"] == 0)


async def test_one_that_is_done_already_is_answered_at_once(served: Served) -> None:
    _, promises, proxy = served
    call = await asked(promises, proxy.make())
    promises.made[0].set_result("done")
    assert [await call, await proxy.last()] == ["done", "done"]


async def test_one_future_may_answer_several_calls(served: Served) -> None:
    daemon, promises, proxy = served
    calls = [await asked(promises, proxy.make())]
    calls += [asyncio.ensure_future(proxy.last()) for _ in range(2)]
    await eventually(lambda: daemon.stats()["inflight"] == 3)
    promises.made[0].set_result("all")
    assert await asyncio.gather(*calls) == ["all"] * 3
    await eventually(lambda: daemon.stats()["inflight"] == 0)


@pytest.mark.parametrize("leaving", [[0], [1], [0, 1], [1, 0]])
async def test_one_caller_that_leaves_takes_nothing_from_the_others(
    served: Served, leaving: list[int]
) -> None:
    daemon, promises, proxy = served
    others = [Proxy(str(proxy._uri)) for _ in range(2)]
    calls = [await asked(promises, others[0]._call("make"))]
    calls += [asyncio.ensure_future(one._call("last")) for one in (others[1], proxy)]
    await eventually(lambda: daemon.stats()["inflight"] == 3)
    for left, number in enumerate(leaving, 1):
        await others[number]._close()
        await eventually(lambda left=left: daemon.stats()["inflight"] == 3 - left)
    promises.made[0].set_result("still")
    assert await calls[2] == "still"
    await asyncio.gather(*calls, return_exceptions=True)
    for other in others:
        await other._close()
    await eventually(lambda: daemon.stats()["inflight"] == 0)
    assert not daemon.dispatcher._shared._more


@pytest.mark.parametrize("leaving", [[0, 1, 2], [2, 1, 0]])
async def test_it_is_cancelled_when_the_last_of_several_callers_hangs_up(
    served: Served, leaving: list[int]
) -> None:
    daemon, promises, first = served
    proxies = [Proxy(str(first._uri)) for _ in range(3)]
    calls = [await asked(promises, proxies[0]._call("make"))]
    calls += [asyncio.ensure_future(proxy._call("last")) for proxy in proxies[1:]]
    await eventually(lambda: daemon.stats()["inflight"] == 3)
    for number in leaving:
        assert not promises.made[0].cancelled()
        await proxies[number]._close()
    await eventually(promises.made[0].cancelled)
    await asyncio.gather(*calls, return_exceptions=True)
    await eventually(lambda: daemon.stats()["inflight"] == 0)


async def test_it_is_cancelled_when_the_caller_stops_waiting(served: Served) -> None:
    daemon, promises, proxy = served
    with pytest.raises(errors.CallTimeout):
        await proxy._call("make", timeout_s=0.05)
    await eventually(promises.made[0].cancelled)
    assert await proxy.echo(1) == 1
    assert daemon.stats()["inflight"] == 0


async def test_it_is_cancelled_when_the_caller_hangs_up(served: Served) -> None:
    daemon, promises, first = served
    proxy = Proxy(str(first._uri))
    call = await asked(promises, proxy._call("make"))
    await proxy._close()
    with pytest.raises(errors.ConnectionLost):
        await call
    await eventually(promises.made[0].cancelled)
    await eventually(lambda: daemon.stats()["inflight"] == 0)


async def test_a_oneway_call_ends_with_it_and_answers_nothing(served: Served) -> None:
    daemon, promises, proxy = served
    await proxy.make_quietly()
    await eventually(lambda: promises.made)
    promises.made[0].set_exception(ValueError("nobody hears of it"))
    assert await proxy.echo(1) == 1
    await eventually(lambda: daemon.stats()["inflight"] == 0)


async def test_an_iterator_it_ends_with_is_a_stream(served: Served) -> None:
    _, promises, proxy = served

    def numbers() -> Iterator[int]:
        yield from range(3)

    call = await asked(promises, proxy.make())
    promises.made[0].set_result(numbers())
    assert [item async for item in await call] == [0, 1, 2]


async def test_a_result_that_cannot_be_sent_is_an_error_of_that_call(served: Served) -> None:
    daemon, promises, proxy = served
    call = await asked(promises, proxy.make())
    promises.made[0].set_result(object())
    with pytest.raises(Exception, match="object"):
        await call
    assert await proxy.echo(1) == 1
    assert daemon.stats()["inflight"] == 0


async def test_draining_waits_for_it(served: Served) -> None:
    daemon, promises, proxy = served
    call = await asked(promises, proxy.make())
    draining = asyncio.ensure_future(daemon.drain(30))
    await eventually(lambda: daemon.draining)
    assert not draining.done()
    promises.made[0].set_result("finished")
    assert await draining
    assert await call == "finished"


async def test_a_reply_that_cannot_be_made_does_not_hold_up_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promises = Promises()
    async with Daemon() as daemon:
        daemon.register(promises, "target")
        address = ("127.0.0.1", int(daemon.location.rpartition(":")[2]))
        with await asyncio.to_thread(RawClient, address) as client:
            client.send(call("make") + call("echo", 5, seq=2))
            await eventually(lambda: promises.made)

            def not_now(*_: object) -> None:
                raise ValueError("not now")

            monkeypatch.setattr(daemon.dispatcher, "_answer", not_now)
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            promises.made[0].set_result(1)
            answer = await asyncio.to_thread(client.receive)
            assert answer is not None
            assert answer.seq == 2


async def test_a_task_that_is_given_up_before_it_begins_is_answered_once(served: Served) -> None:
    daemon, _, _ = served
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: wrong.append(what))
    closing: list[asyncio.Future[None]] = []

    @expose
    class Last:
        def leave(self) -> asyncio.Future[Any]:
            """Return a task that begins when the daemon is closed already."""
            closing.append(asyncio.ensure_future(daemon.close()))
            return asyncio.ensure_future(asyncio.sleep(60))

    async with Proxy(daemon.register(Last())) as proxy:
        with pytest.raises(errors.Draining):
            await proxy.leave()
        await closing[0]
    assert not wrong


async def test_what_is_only_awaited_like_a_future_is_awaited(served: Served) -> None:
    class Likeness:
        """Passes for a future (``asyncio.isfuture``), and has no more than awaiting needs."""

        _asyncio_future_blocking = False

        def __await__(self) -> Iterator[Any]:
            yield
            return "awaited"

    assert asyncio.isfuture(Likeness())
    daemon, promises, proxy = served
    promises.made.append(Likeness())  # type: ignore[arg-type]
    assert await proxy.last() == "awaited"
    assert daemon.stats()["inflight"] == 0

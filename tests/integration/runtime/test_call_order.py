"""In which order calls are begun and answered."""

from __future__ import annotations

import asyncio

import pytest

from rmi_runtime import Daemon, Proxy, expose, wire
from tests.integration.runtime.worker import Worker, proxy_of, raw_client
from tests.raw_client import SERPENT, call, dumps, message
from tests.support import eventually


async def test_a_stock_client_is_answered_in_order(daemon: Daemon, worker: Worker) -> None:
    with await raw_client(daemon) as client:
        client.send(call("work", 1, seq=1) + call("echo", 2, seq=2) + call("work", 3, seq=3))
        await eventually(lambda: worker.begun == [1])
        await asyncio.sleep(0)
        assert worker.begun == [1]
        worker.gate.set()
        replies = [await asyncio.to_thread(client.receive) for _ in range(3)]
        assert [reply.seq for reply in replies] == [1, 2, 3]


@pytest.mark.parametrize("pipelining", [False, True])
async def test_a_oneway_batch_is_done_before_the_next_call_of_its_client(
    daemon: Daemon, worker: Worker, pipelining: bool
) -> None:
    flags = wire.FLAG_BATCH | wire.FLAG_ONEWAY
    batch = dumps(SERPENT, ("target", "<batch>", [("work", (1,), {})], {}))
    with await raw_client(daemon, pipelining=pipelining) as client:
        client.send(message(wire.MSG_INVOKE, batch, flags=flags) + call("work", 2, seq=2))
        await eventually(lambda: worker.begun == [1])
        await asyncio.sleep(0)
        assert worker.begun == [1]
        worker.gate.set()
        reply = await asyncio.to_thread(client.receive)
        assert reply is not None
        assert reply.seq == 2
        assert worker.finished == [1, 2]


async def test_a_pipelining_client_is_answered_as_the_work_is_done(
    daemon: Daemon, worker: Worker
) -> None:
    async with proxy_of(daemon) as proxy:
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
    with await raw_client(daemon, pipelining=True) as flood, await raw_client(daemon) as other:
        flood.send(call("take", "flood", object_id="turns") * 1000)
        other.send(call("take", "other", object_id="turns"))
        await eventually(lambda: len(turns) == 1001)
        assert turns.index("other") < 500


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

"""Messages through facade, loggers and messages services, some of which die."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rmi_msg import MessageGateway, message_id
from rmi_msg.stores import Claim, ConsumedStore, MessageQueue, Page, Stores, Word
from rmi_runtime import Proxy, errors
from tests.integration.msg.pages import read_all
from tests.integration.msg.system import MessageSystem, Service, message_system
from tests.integration.runtime.names import SERVICE_HANDSHAKE
from tests.support import eventually

TEN = [(message_id(f"msg{n}"), f"msg{n}") for n in range(1, 11)]


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[MessageSystem]:
    async with message_system(tmp_path) as running:
        yield running


async def three_loggers(system: MessageSystem, **options: Any) -> tuple[list[Service], Service]:
    loggers = [await system.logger(number) for number in (1, 2, 3)]
    facade = await system.facade(**options)
    await loggers_known(facade, 3)
    return loggers, facade


async def loggers_known(facade: Service, count: int) -> None:
    await eventually(lambda: len(facade.object._loggers.view()) == count)


async def test_ten_messages_spread_over_three_loggers_survive_two_of_them(
    system: MessageSystem,
) -> None:
    loggers, facade = await three_loggers(system)
    async with Proxy(facade.uri) as proxy:
        for id, text in TEN:
            assert await proxy.post(text, id) == {"id": id}
        lines = [system.lines(logger.name) for logger in loggers]
        assert all(lines), "every logger got some"
        assert sorted(line for log in lines for line in log) == sorted(
            f"msg = {text} UUID = {id}" for id, text in TEN
        )
        for dying in loggers[:2]:
            assert [(m["id"], m["text"]) for m in await read_all(proxy.page, 4)] == TEN
            await dying.kill()
        found = await read_all(proxy.page, 4)
        assert [(m["id"], m["text"]) for m in found] == TEN
        assert {m["logger"] for m in found} == {logger.name for logger in loggers}


async def test_no_request_fails_while_one_logger_lives(system: MessageSystem) -> None:
    loggers, facade = await three_loggers(system)
    posted: list[str] = []
    stopping = asyncio.Event()

    async def keep_posting(worker: int, proxy: Proxy) -> None:
        number = 0
        while not stopping.is_set():
            text = f"{worker}.{number}"
            posted.append((await proxy.post(text, f"id {text}"))["id"])
            await proxy.page(None, 1)
            number += 1

    async with Proxy(facade.uri) as proxy, asyncio.TaskGroup() as group:
        for worker in range(8):
            group.create_task(keep_posting(worker, proxy))
        for dying in loggers[:2]:
            goal = len(posted) + 40
            await eventually(lambda: len(posted) >= goal)  # noqa: B023
            await dying.kill()
        goal = len(posted) + 40
        await eventually(lambda: len(posted) >= goal)
        stopping.set()
    async with Proxy(facade.uri) as proxy:
        stored = Counter(m["id"] for m in await read_all(proxy.page, 1000))
    assert stored == Counter(posted)


async def test_a_post_waits_for_a_logger_to_come(system: MessageSystem) -> None:
    facade = await system.facade()
    async with Proxy(facade.uri) as proxy:
        waiting = proxy.post("patient", "1")
        await eventually(lambda: facade.object._loggers._waiting)
        await system.logger(1)
        assert await waiting == {"id": "1"}
        assert [m["id"] for m in await read_all(proxy.page, 4)] == ["1"]


async def test_a_post_that_no_logger_takes_is_refused_definitely(system: MessageSystem) -> None:
    facade = await system.facade(timeout_s=0.3)
    async with Proxy(facade.uri, timeout_s=10) as proxy:
        for call in (proxy.post("text", "1"), proxy.post_many(TEN), proxy.page()):
            with pytest.raises(errors.Unavailable) as refused:
                await call
            assert refused.value.definite


class Frozen:
    """A message store that answers nobody until it is thawed."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.thawed = asyncio.Event()

    async def put_many(self, messages: Sequence[tuple[str, str]], logger: str) -> list[Word]:
        self.asked.set()
        await self.thawed.wait()
        return ["new"] * len(messages)


async def test_a_frozen_logger_only_delays_its_messages(system: MessageSystem) -> None:
    loggers, facade = await three_loggers(system, timeout_s=2.0)
    frozen = loggers[0].object._store = Frozen()
    async with Proxy(facade.uri) as proxy:
        words = await proxy.post_many(TEN)
        assert frozen.asked.is_set()
        assert words == ["new"] * 10
        found = await read_all(proxy.page, 4)
    assert sorted((m["id"], m["text"]) for m in found) == sorted(TEN)
    assert {m["logger"] for m in found} == {"msg.logger.2", "msg.logger.3"}
    frozen.thawed.set()


async def test_the_same_id_is_one_message_through_whichever_logger(system: MessageSystem) -> None:
    loggers, facade = await three_loggers(system)
    async with Proxy(facade.uri) as proxy:
        results = await asyncio.gather(*(proxy.post("text", "1") for _ in range(30)))
        assert results == [{"id": "1"}] * 30
        assert await proxy.post_many([["1", "text"], ["1", "another"], ["2", "b"]]) == [
            "same",
            "other",
            "new",
        ]
        with pytest.raises(errors.Conflict) as reused:
            await proxy.post("another", "1")
        assert reused.value.code == "message_id_reused"
        assert reused.value.fields == {"id": "1"}
        assert [m["text"] for m in await read_all(proxy.page, 4)] == ["text", "b"]
    assert sum(len(system.lines(logger.name)) for logger in loggers) == 2


async def test_posts_without_an_id_are_messages_of_their_own(system: MessageSystem) -> None:
    _, facade = await three_loggers(system)
    async with Proxy(facade.uri) as proxy:
        made = [(await proxy.post("text"))["id"] for _ in range(3)]
        assert [m["id"] for m in await read_all(proxy.page, 4)] == made
    assert len(set(made)) == 3


async def test_the_gateway_sends_hundreds_of_posts_as_a_few_calls(system: MessageSystem) -> None:
    _, facade = await three_loggers(system)
    async with system.endpoints("msg.facade.") as facades:
        await facades.ready()
        gateway = MessageGateway(facades)
        words = await asyncio.gather(*(gateway.post(f"m{n}", f"id{n}") for n in range(500)))
        assert words == ["new"] * 500
        assert await gateway.post("m1", "id1") == "same"
        assert await gateway.post("m2", "id1") == "other"
        with pytest.raises(errors.InvalidRequest):
            await gateway.post("", "id")
        page = await gateway.page(None, 1000)
        assert len(page["messages"]) == 500
        assert page["next"] is None
        assert (await gateway.page(limit=1))["next"] is not None
        await gateway.aclose()
        with pytest.raises(errors.Draining):
            await gateway.post("late", "late")
    requests = [line for line in system.lines(facade.name) if " post_many: " in line]
    assert len(requests) <= 5


async def test_messages_are_consumed_once_each_by_one_of_two_services(
    system: MessageSystem,
) -> None:
    _, facade = await three_loggers(system)
    services = [await system.messages(number, limit=3) for number in (1, 2)]
    async with Proxy(facade.uri) as proxy:
        for id, text in TEN:
            await proxy.post(text, id)
        found = await eventually(lambda: consumed_by_now(proxy, 10))
        assert sorted((m["id"], m["text"]) for m in found) == sorted(TEN)
        assert {m["by"] for m in found} <= {service.name for service in services}
    logged = [line for service in services for line in system.lines(service.name)]
    assert sorted(logged) == sorted(f"msg = {text} UUID = {id}" for id, text in TEN)


async def consumed_by_now(facade: Proxy, count: int) -> list[dict[str, str]]:
    found = await read_all(facade.consumed, 100)
    return found if len(found) >= count else []


class Dying:
    """A queue and a consumed store whose user dies before or after one of its steps."""

    def __init__(self, stores: Stores, step: str) -> None:
        self._queue: MessageQueue = stores.queue
        self._consumed: ConsumedStore = stores.consumed
        self._step = step
        self.reached = asyncio.Event()

    async def _die_at(self, step: str) -> None:
        if step == self._step:
            self.reached.set()
            await asyncio.Event().wait()  # the test kills the service here

    async def claim(self, by: str, limit: int, lease_s: float) -> Claim | None:
        claim = await self._queue.claim(by, limit, lease_s)
        if claim is not None:
            await self._die_at("claimed")
        return claim

    async def add(self, claim: Claim) -> list[bool]:
        entered = await self._consumed.add(claim)
        await self._die_at("added")
        return entered

    async def done(self, claim: Claim) -> bool:
        done = await self._queue.done(claim)
        await self._die_at("done")
        return done

    async def give_back(self, by: str) -> int:
        return await self._queue.give_back(by)

    async def sweep(self) -> int:
        return await self._queue.sweep()

    async def page(self, after: str | None, limit: int) -> Page[Any]:
        return await self._consumed.page(after, limit)


@pytest.mark.parametrize("step", ["claimed", "added", "done"])
@pytest.mark.parametrize("heir", ["another service", "the same one, started anew"])
async def test_a_service_that_dies_between_two_steps_loses_and_doubles_nothing(
    system: MessageSystem, step: str, heir: str
) -> None:
    _, facade = await three_loggers(system)
    dying: list[Dying] = []

    def die(stores: Stores) -> Stores:
        dying.append(Dying(stores, step))
        return dataclasses.replace(stores, queue=dying[0], consumed=dying[0])

    first = await system.messages(1, die, limit=4, lease_s=0.3)
    async with Proxy(facade.uri) as proxy:
        await proxy.post_many(TEN)
        await dying[0].reached.wait()
        await first.kill()
        if heir == "another service":
            await system.messages(2, limit=4)
        else:
            await system.messages(1, limit=4, lease_s=300, sweep_s=1e9)
        found = await eventually(lambda: consumed_by_now(proxy, 10))
    assert sorted((m["id"], m["text"]) for m in found) == sorted(TEN)


async def test_a_service_goes_on_when_its_store_does_again(system: MessageSystem) -> None:
    _, facade = await three_loggers(system)

    class Failing(Dying):
        failures = 0

        async def add(self, claim: Claim) -> list[bool]:
            if self.failures < 3:
                self.failures += 1
                raise errors.Unavailable("the disk is full")
            return await super().add(claim)

    def fail(stores: Stores) -> Stores:
        failing = Failing(stores, "")
        return dataclasses.replace(stores, queue=failing, consumed=failing)

    await system.messages(1, fail, lease_s=0.05)
    async with Proxy(facade.uri) as proxy:
        await proxy.post_many(TEN)
        found = await eventually(lambda: consumed_by_now(proxy, 10))
    assert sorted((m["id"], m["text"]) for m in found) == sorted(TEN)


async def test_loggers_and_messages_services_are_for_services_only(system: MessageSystem) -> None:
    logger, messages = await system.logger(1), await system.messages(1)
    async with Proxy(logger.uri) as stranger:
        for call in (stranger.put_many([["1", "a"]]), stranger.page()):
            with pytest.raises(errors.Unauthenticated):
                await call
    async with Proxy(messages.uri) as stranger:
        with pytest.raises(errors.Unauthenticated):
            await stranger.consumed()
    async with Proxy(logger.uri, handshake=SERVICE_HANDSHAKE) as service:
        assert await service.put_many([["1", "a"]]) == ["new"]
        with pytest.raises(errors.InvalidRequest) as refused:
            await service.put_many([["2", "b"], ["3", ""]])
        assert refused.value.fields["field"] == "messages[1].text"
        assert [m["id"] for m in (await service.page())["messages"]] == ["1"]

"""Whether a part of a cluster may go on alone; and attempts that are made once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hazelcast.core import HazelcastJsonValue
from hazelcast.errors import HazelcastError
from hazelcast.internal.asyncio_invocation import InvocationService

from rmi_msg.hazelcast import acknowledged
from rmi_msg.hazelcast.link import Link
from rmi_msg.hazelcast.others import FRESH_S, Others, enough
from tests.support import eventually
from tests.unit.msg.test_hazelcast_table import Knows

NOBODY = "127.0.0.1:1"


class Somebody:
    """Accepts connections, and counts them."""

    def __init__(self) -> None:
        self.accepted = 0

    async def start(self) -> Somebody:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writer = writer

    def die(self) -> None:
        self._server.close()
        self._writer.transport.abort()


@pytest.fixture
async def somebody() -> AsyncIterator[Somebody]:
    started = await Somebody().start()
    yield started
    started._server.close()


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.others.FRESH_S", -1.0)


@pytest.mark.parametrize(
    ("present", "expected", "are"),
    [(3, 3, True), (2, 3, True), (1, 3, False), (1, 2, False), (1, 1, True), (2, 4, False)],
)
def test_more_than_half_need_not_care_for_the_others(
    present: int, expected: int, are: bool
) -> None:
    assert enough(present, expected) is are


async def test_who_takes_a_connection_lives_and_who_refuses_it_does_not(somebody: Somebody) -> None:
    others = Others(["127.0.0.1:2", NOBODY, somebody.address])
    assert await others.living(["127.0.0.1:2"]) == [somebody.address]
    assert await others.living(["127.0.0.1:2", somebody.address]) == []
    others.rest()


async def test_a_member_that_is_known_by_another_name_is_not_another(somebody: Somebody) -> None:
    by_name = somebody.address.replace("127.0.0.1", "localhost")
    others = Others([NOBODY, by_name])
    assert await others.living([somebody.address]) == []
    assert await others.living([NOBODY]) == [by_name]
    others.rest()


async def test_one_connection_serves_all_looks_until_its_end(somebody: Somebody) -> None:
    others = Others([NOBODY, somebody.address])
    for _ in range(5):
        assert await others.living([NOBODY]) == [somebody.address]
    await eventually(lambda: somebody.accepted == 1)
    somebody.die()

    async def gone() -> bool:
        return await others.living([NOBODY]) == []

    await eventually(gone)


async def test_looks_at_the_same_time_are_one(
    somebody: Somebody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.others.FRESH_S", FRESH_S)
    others = Others([NOBODY, somebody.address])
    found = await asyncio.gather(*(others.living([NOBODY]) for _ in range(50)))
    assert found == [[somebody.address]] * 50
    await eventually(lambda: somebody.accepted == 1)
    others.rest()


async def test_who_stops_waiting_for_a_look_leaves_it_to_the_others(
    somebody: Somebody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmi_msg.hazelcast.others.FRESH_S", FRESH_S)
    others = Others([NOBODY, somebody.address])
    looks = [asyncio.create_task(others.living([NOBODY])) for _ in range(2)]
    await asyncio.sleep(0)  # both wait for the one look now
    looks[0].cancel()
    assert await looks[1] == [somebody.address]
    others.rest()


class Alone(Link):
    """A link whose client knows of one member, which acknowledges whatever it is told."""

    async def client(self, wait_s: float = 0.0) -> Any:
        return Knows(0)


async def test_a_small_part_acknowledges_nothing_while_another_member_lives(
    somebody: Somebody, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put(*args: object) -> None:
        return None

    async def replace(*args: object) -> bool:
        return True

    monkeypatch.setattr(acknowledged, "put_if_absent", put)
    monkeypatch.setattr(acknowledged, "replace", replace)
    table: Any = None
    value = HazelcastJsonValue("1")
    split = Alone([NOBODY, somebody.address], "rmi")
    with pytest.raises(acknowledged.NoBackup, match=somebody.address):
        await split.put_if_absent(table, "k", value)
    with pytest.raises(acknowledged.NoBackup, match="lives without them"):
        await split.replace(table, "k", value, value)
    somebody.die()

    async def counts() -> bool:
        try:
            return await split.replace(table, "k", value, value)
        except acknowledged.NoBackup:
            return False

    await eventually(counts)
    assert await split.put_if_absent(table, "k", value) is None


class Message:
    """A member's answer."""

    def get_number_of_backup_acks(self) -> int:
        return 1


async def test_what_a_member_refused_is_not_repeated_by_the_client_on_old_acknowledgements() -> (
    None
):
    # A first attempt had a backup's acknowledgement, and failed in a way that may be repeated. If
    # the client did that by itself, the answer to the second would count with the backup of the
    # first.
    sent: list[Any] = []

    class Service(InvocationService):
        def __init__(self) -> None:
            self._fail_on_indeterminate_state = True
            self._backup_ack_to_client_enabled = True
            self._is_redo_operation = False
            self._invocation_timeout = 5.0
            self._invocation_retry_pause = 0.0
            self._pending = {}
            self._client = self
            self.lifecycle_service = self
            self._reactor = self

        def is_running(self) -> bool:
            return True

        def add_timer(self, delay_s: float, again: Any) -> None:
            pytest.fail("the client repeats it by itself")

        def invoke(self, invocation: Any) -> None:
            sent.append(invocation)
            if not invocation.timeout:
                invocation.timeout = 1e12

    class Request:
        retryable = False

        def get_correlation_id(self) -> int:
            return 1

    class Table:
        _invocation_service = Service()
        _partition_service = type("P", (), {"get_partition_id": lambda self, key: 0})()

    table: Any = Table()
    asked = asyncio.create_task(acknowledged._once(table, Request(), b"k", lambda message: "done"))
    await eventually(lambda: len(sent) == 1)
    table._invocation_service._notify_backup_complete(sent[0])
    table._invocation_service._notify_error(sent[0], OSError("the owner left"))
    with pytest.raises(HazelcastError):
        await asked

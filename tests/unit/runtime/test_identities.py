"""The memory of who tokens belong to."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from rmi_runtime import Identity
from rmi_runtime.credentials.identities import REMEMBERED_S, Identities
from rmi_runtime.errors import CallTimeout, ConnectionLost, Interrupted, RmiError, Unavailable
from tests.support import eventually


class Source:
    """Knows tokens, and counts who asks."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {"good": {"client": 7, "role": "teller"}}
        self.asked: list[str] = []
        self.now_s = 50.0
        self.error: Exception | None = None
        self.slow: asyncio.Event | None = None

    async def ask(self, token_hash: str) -> dict[str, Any] | None:
        self.asked.append(token_hash)
        if self.slow is not None:
            await self.slow.wait()
        if self.error is not None:
            raise self.error
        return self.known.get(token_hash)

    def identities(self, **options: Any) -> Identities:
        return Identities(self.ask, clock=lambda: self.now_s, **options)


@pytest.fixture
def source() -> Source:
    return Source()


async def test_an_answer_is_remembered_for_a_moment_also_if_it_is_no(source: Source) -> None:
    identities = source.identities()
    for _ in range(3):
        assert await identities.find("good") == Identity("client", 7, "teller")
        assert await identities.find("bad") is None
    assert source.asked == ["good", "bad"]


async def test_a_revoked_token_is_forgotten_and_a_new_one_known_after_that_moment(
    source: Source,
) -> None:
    identities = source.identities()
    await identities.find("good")
    await identities.find("new")
    source.known = {"new": {"client": 8, "role": "admin"}}
    source.now_s += REMEMBERED_S
    assert await identities.find("good") is None
    assert await identities.find("new") == Identity("client", 8, "admin")


async def test_two_memories_in_a_row_forget_within_two_seconds() -> None:
    assert 2 * REMEMBERED_S <= 2.0


async def test_an_answer_is_as_old_as_the_question(source: Source) -> None:
    source.slow = asyncio.Event()
    identities = source.identities()
    finding = asyncio.ensure_future(identities.find("good"))
    await eventually(lambda: source.asked)
    source.now_s += REMEMBERED_S
    source.slow.set()
    await finding
    await identities.find("good")
    assert len(source.asked) == 2


async def test_many_who_ask_at_once_ask_once(source: Source) -> None:
    identities = source.identities()
    found = await asyncio.gather(*(identities.find("good") for _ in range(50)))
    assert found == [Identity("client", 7, "teller")] * 50
    assert source.asked == ["good"]


async def test_one_who_gives_up_does_not_spoil_it_for_the_others(source: Source) -> None:
    source.slow = asyncio.Event()
    identities = source.identities()
    first, second = (asyncio.ensure_future(identities.find("good")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    source.slow.set()
    assert await second == Identity("client", 7, "teller")


async def test_a_failure_that_all_have_given_up_on_is_no_error_of_the_event_loop(
    source: Source,
) -> None:
    source.slow = asyncio.Event()
    source.error = Unavailable("away")
    identities = source.identities()
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
    finding = asyncio.ensure_future(identities.find("good"))
    await eventually(lambda: source.asked)
    finding.cancel()
    await asyncio.wait([finding])
    del finding  # it remembers whom it waited for
    source.slow.set()
    await eventually(lambda: not identities._asking)
    gc.collect()
    assert complaints == []


async def test_a_failure_is_told_and_not_remembered(source: Source) -> None:
    identities = source.identities()
    source.error = Unavailable("away")
    with pytest.raises(Unavailable):
        await identities.find("good")
    source.error = None
    assert await identities.find("good") is not None


@pytest.mark.parametrize("lost", [CallTimeout, ConnectionLost, Interrupted])
async def test_a_lost_reply_leaves_no_doubt_for_asking_changes_nothing(
    source: Source, lost: type[RmiError]
) -> None:
    source.error = lost("no reply")
    with pytest.raises(Unavailable) as caught:
        await source.identities().find("good")
    assert caught.value.definite
    assert isinstance(caught.value.__cause__, lost)


async def test_only_so_many_are_kept_the_latest_used(source: Source) -> None:
    identities = source.identities(entries_max=2)
    for token in ("a", "b", "a", "c", "a"):
        await identities.find(token)
    assert source.asked == ["a", "b", "c"]
    await identities.find("b")
    assert source.asked == ["a", "b", "c", "b"]

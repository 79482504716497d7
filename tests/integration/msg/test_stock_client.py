"""The facade through a stock ``Pyro5.api.Proxy``, which has never heard of our classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import Pyro5.api
import pytest

from rmi_msg import message_id
from tests.integration.msg.system import MessageSystem, message_system
from tests.integration.runtime.names import SERVICE_HANDSHAKE

T = TypeVar("T")

TEXT_SIZE_BYTES_MAX = 262_144


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[MessageSystem]:
    async with message_system(tmp_path) as running:
        await running.logger(1)
        await running.messages(1)
        await running.facade()
        yield running


async def stock(uri: str, use: Callable[[Any], T], handshake: object = "hello") -> T:
    """Run *use* with a stock proxy, on a thread as it blocks."""

    def run() -> T:
        with Pyro5.api.Proxy(uri) as proxy:
            proxy._pyroHandshake = handshake
            return use(proxy)

    return await asyncio.to_thread(run)


async def test_a_stock_client_posts_and_reads(system: MessageSystem) -> None:
    uri = system.services["msg.facade.1"].uri

    def use(facade: Any) -> None:
        for text in ("msg1", "é😀\n", "x" * 50_000):
            assert facade.post(text, message_id(text)) == {"id": message_id(text)}
        assert facade.post_many([("1", "one"), ("1", "one")]) == ["new", "same"]
        page = facade.page(None, 2)
        assert [m["text"] for m in page["messages"]] == ["msg1", "é😀\n"]
        assert page["messages"][0]["id"] == "487e0156-a04c-5aeb-b42c-52c752bc2dd7"
        assert page["messages"][0]["logger"] == "msg.logger.1"
        page = facade.page(page["next"])
        assert [len(m["text"]) for m in page["messages"]] == [50_000, 3]
        assert page["next"] is None
        assert set(facade.consumed()) == {"messages", "next"}

    await stock(uri, use)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda f: f.post(""), "text"),
        (lambda f: f.post(7), "text"),
        (lambda f: f.post("a", ""), "id"),
        (lambda f: f.post("a", "new\nline"), "id"),
        (lambda f: f.post("a", 5), "id"),
        (lambda f: f.post_many("a"), "messages"),
        (lambda f: f.post_many([["1"]]), "messages[0]"),
        (lambda f: f.post_many([["1", "a"], ["2", None]]), "messages[1].text"),
        (lambda f: f.post_many([["1", "a"]] * 1025), "messages"),
        (lambda f: f.page(None, 0), "limit"),
        (lambda f: f.page(None, 1001), "limit"),
        (lambda f: f.page(None, "10"), "limit"),
        (lambda f: f.page(7), "after"),
        (lambda f: f.page("nonsense"), "after"),
        (lambda f: f.consumed(None, True), "limit"),
        (lambda f: f.consumed("nonsense"), "after"),
    ],
)
async def test_mistakes_are_value_errors_that_name_the_field(
    system: MessageSystem, call: Callable[[Any], object], field: str
) -> None:
    def use(facade: Any) -> None:
        with pytest.raises(ValueError, match=field.partition("[")[0]) as refused:
            call(facade)
        assert refused.value.code == "invalid"
        assert refused.value.definite is True
        assert refused.value.fields["field"] == field
        assert facade.page()["messages"] == []

    await stock(system.services["msg.facade.1"].uri, use)


async def test_the_longest_text_goes_through_for_who_is_known(system: MessageSystem) -> None:
    # A stranger's calls are bounded more narrowly, by the daemon.
    def use(facade: Any) -> None:
        facade.post("x" * TEXT_SIZE_BYTES_MAX, "1")
        with pytest.raises(ValueError, match="262145 bytes") as refused:
            facade.post("x" * (TEXT_SIZE_BYTES_MAX + 1), "2")
        assert refused.value.fields == {"field": "text"}
        assert [len(m["text"]) for m in facade.page()["messages"]] == [TEXT_SIZE_BYTES_MAX]

    await stock(system.services["msg.facade.1"].uri, use, SERVICE_HANDSHAKE)


async def test_an_id_with_another_text_is_a_value_error(system: MessageSystem) -> None:
    def use(facade: Any) -> None:
        facade.post("one", "1")
        with pytest.raises(ValueError, match="another text") as refused:
            facade.post("two", "1")
        assert refused.value.code == "message_id_reused"
        assert refused.value.fields == {"id": "1"}

    await stock(system.services["msg.facade.1"].uri, use)


async def test_a_logger_refuses_a_stranger_with_a_permission_error(system: MessageSystem) -> None:
    def use(logger: Any) -> None:
        with pytest.raises(PermissionError) as refused:
            logger.put_many([["1", "a"]])
        assert refused.value.code == "unauthenticated"

    await stock(system.services["msg.logger.1"].uri, use)

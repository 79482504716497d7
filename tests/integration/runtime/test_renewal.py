"""A caller's rights end while it is connected: its calls are refused, and nobody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import Pyro5.api
import pytest
from Pyro5.server import expose

from rmi_runtime import Daemon, Identity, Proxy, ServiceAuthenticator, errors, hash_token
from rmi_runtime.context import allow, current_call
from rmi_runtime.daemon import handshake
from tests.integration.runtime.names import KEY, SERVICE_HANDSHAKE
from tests.support import eventually

TOKEN, OTHER = "token-of-seven", "token-of-eight"


@expose
@allow("client", "service")
class Till:
    """Counts what it is asked to."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()

    def add(self) -> int:
        """Count one."""
        self.count += 1
        return self.count

    def role(self) -> str | None:
        """Return the caller's role."""
        return current_call().identity.role

    async def wait(self) -> str:
        """Return when the gate is open."""
        await self.gate.wait()
        return "done"

    def numbers(self) -> Iterator[int]:
        """Stream numbers."""
        yield from range(1_000_000)


class Authority:
    """Knows whose tokens are good."""

    def __init__(self) -> None:
        self.known = {
            hash_token(TOKEN): Identity("client", 7, "teller"),
            hash_token(OTHER): Identity("client", 8, "teller"),
        }
        self.asked: list[str] = []
        self.pondering = 0
        self.error: BaseException | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def identify(self, token_hash: str) -> Identity | None:
        """Answer when the gate is open."""
        self.asked.append(token_hash)
        self.pondering += 1
        try:
            await self.gate.wait()
        finally:
            self.pondering -= 1
        if self.error is not None:
            raise self.error
        return self.known.get(token_hash)

    def revoke(self, token: str) -> None:
        """Forget a token."""
        del self.known[hash_token(token)]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def till() -> Till:
    return Till()


@pytest.fixture
async def uri(
    authority: Authority, till: Till, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    monkeypatch.setattr(handshake, "KNOWN_S", 0.05)
    monkeypatch.setattr(handshake, "ASK_AGAIN_S", 0.05)
    async with Daemon(authenticate=ServiceAuthenticator(KEY, authority.identify)) as daemon:
        yield str(daemon.register(till, "till"))


def client(uri: str, token: str = TOKEN, **options: Any) -> Proxy:
    """Return a proxy that shows a token."""
    return Proxy(uri, handshake={"token": token}, **options)


async def refused(proxy: Proxy) -> bool:
    """Say whether a call is refused as forbidden."""
    try:
        await proxy.add()
    except errors.Forbidden:
        return True
    return False


async def test_a_revoked_token_is_refused_on_the_open_connection(
    uri: str, authority: Authority, till: Till
) -> None:
    async with client(uri) as seven, client(uri, OTHER) as eight:
        await seven.add()
        connection = seven._connection
        authority.revoke(TOKEN)
        await eventually(lambda: refused(seven))
        before = till.count
        for _ in range(20):
            assert await refused(seven)
        assert till.count == before
        assert seven._connection is connection
        assert not await refused(eight)


async def test_the_first_call_after_a_pause_is_refused_and_not_only_the_next(
    uri: str, authority: Authority, till: Till
) -> None:
    async with client(uri) as seven:
        await seven.add()
        authority.revoke(TOKEN)
        long_known = time.monotonic() + 2 * handshake.KNOWN_S
        await eventually(lambda: time.monotonic() > long_known)
        assert await refused(seven)
    assert till.count == 1


async def test_a_stock_client_is_refused_in_words_it_knows(uri: str, authority: Authority) -> None:
    def use() -> str:
        with Pyro5.api.Proxy(uri) as till:
            till._pyroHandshake = {"token": TOKEN}
            till.add()
            authority.revoke(TOKEN)
            try:
                while True:
                    till.add()
            except PermissionError as error:
                return str(error)

    assert "revoked" in await asyncio.to_thread(use)


async def test_a_batch_that_lasts_ends_when_its_caller_has_lost_its_rights(
    uri: str, authority: Authority, till: Till
) -> None:
    async with client(uri) as seven:
        batch = seven._batch()
        batch.add()
        batch.wait()
        batch.add()
        under_way = asyncio.ensure_future(batch())
        await eventually(lambda: till.count == 1)
        authority.revoke(TOKEN)
        long_known = time.monotonic() + 2 * handshake.KNOWN_S
        await eventually(lambda: time.monotonic() > long_known)
        till.gate.set()
        results = await under_way
        assert [next(results), next(results)] == [1, "done"]
        with pytest.raises(errors.Forbidden, match="revoked"):
            next(results)
    assert till.count == 1


async def test_calls_sent_together_are_all_refused_and_none_is_lost(
    uri: str, authority: Authority, till: Till
) -> None:
    async with client(uri) as seven:
        await seven.add()
        authority.revoke(TOKEN)
        await eventually(lambda: refused(seven))
        before = till.count
        calls = [seven._call("add") for _ in range(80)]  # fewer than are held back
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(answer) for answer in answers} == {errors.Forbidden}
        assert till.count == before


async def test_batches_streams_and_oneway_calls_are_refused_too(
    uri: str, authority: Authority, till: Till
) -> None:
    async with client(uri) as seven:
        stream = await seven.numbers()
        assert await anext(stream) == 0
        authority.revoke(TOKEN)
        await eventually(lambda: refused(seven))
        with pytest.raises(errors.Forbidden):
            await anext(stream)
        before = till.count
        batch = seven._batch()
        batch.add()
        with pytest.raises(errors.Forbidden):
            await batch()
        batch = seven._batch()
        batch.add()
        await batch(oneway=True)
        assert await refused(seven)
        assert till.count == before


async def test_work_that_was_begun_before_is_finished(
    uri: str, authority: Authority, till: Till
) -> None:
    async with client(uri) as seven:
        begun = asyncio.ensure_future(seven.wait())
        await eventually(lambda: not begun.done() and seven._connection is not None)
        await seven.add()
        authority.revoke(TOKEN)
        await eventually(lambda: refused(seven))
        till.gate.set()
        assert await begun == "done"


async def test_another_role_counts_from_then_on(uri: str, authority: Authority) -> None:
    async with client(uri) as seven:
        assert await seven.role() == "teller"
        authority.known[hash_token(TOKEN)] = Identity("client", 7, "customer")

        async def changed() -> bool:
            return bool(await seven.role() == "customer")

        await eventually(changed)


async def test_nothing_is_done_while_nobody_can_say_who_calls_and_again_afterwards(
    uri: str, authority: Authority, till: Till
) -> None:
    async with client(uri) as seven:
        await seven.add()
        authority.error = errors.Unavailable("the bank is away")

        async def unavailable() -> bool:
            try:
                await seven.add()
            except errors.Unavailable:
                return True
            return False

        await eventually(unavailable)
        authority.error = None

        async def back() -> bool:
            return not await unavailable()

        await eventually(back)


async def calls_held_up(proxy: Proxy, authority: Authority) -> list[asyncio.Future[Any]]:
    """Close the gate, and call until it is asked about the caller again; return the calls."""
    authority.gate.clear()
    asked = len(authority.asked)
    calls: list[asyncio.Future[Any]] = []

    def held() -> bool:
        calls.append(asyncio.ensure_future(proxy.add()))
        return len(authority.asked) > asked

    await eventually(held)
    return calls


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
async def test_asking_that_is_cancelled_itself_refuses_calls_and_keeps_nobody_waiting(
    uri: str, authority: Authority, error: type[BaseException]
) -> None:
    async with client(uri) as seven:
        await seven.add()
        authority.error = error()

        async def is_refused() -> bool:
            try:
                await seven.add()
            except errors.Unavailable as refused:
                return error.__name__ in str(refused)
            return False

        await eventually(is_refused)
        with pytest.raises(errors.Unavailable, match=error.__name__):
            await client(uri, OTHER)._bind()
        authority.error = None

        async def is_served() -> bool:
            return not await is_refused()

        await eventually(is_served)


async def test_calls_wait_in_their_order_while_it_is_asked_and_others_do_not(
    uri: str, authority: Authority, till: Till
) -> None:
    async with client(uri) as seven, Proxy(uri, handshake=SERVICE_HANDSHAKE) as service:
        await seven.add()
        asked = len(authority.asked)
        calls = await calls_held_up(seven, authority)
        for _ in range(50):
            calls.append(asyncio.ensure_future(seven.add()))
        assert await service.role() is None
        assert len(authority.asked) == asked + 1
        authority.gate.set()
        counts = await asyncio.gather(*calls)
        assert counts == sorted(counts)


async def test_services_and_strangers_are_not_asked_for_again(
    uri: str, authority: Authority
) -> None:
    async with Proxy(uri, handshake=SERVICE_HANDSHAKE) as service:
        for _ in range(20):
            await service.add()
    assert not authority.asked


async def test_a_client_who_hangs_up_while_it_is_asked_leaves_nothing(
    uri: str, authority: Authority
) -> None:
    async with client(uri) as seven:
        await seven.add()
        calls = await calls_held_up(seven, authority)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[-1], errors.ConnectionLost)
    authority.gate.set()
    async with client(uri) as again:
        await again.add()


async def test_nobody_goes_on_asking_about_who_hung_up_during_the_handshake(
    uri: str, authority: Authority
) -> None:
    authority.gate.clear()
    calling = asyncio.ensure_future(client(uri)._call("add"))
    await eventually(lambda: authority.pondering)
    calling.cancel()
    await asyncio.wait([calling])
    await eventually(lambda: not authority.pondering)

"""Tokens at the facade: the bank, which makes them, is asked whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import Pyro5.api
import pytest
from Pyro5.server import expose

from rmi_msg import run_facade, run_logger
from rmi_runtime import Announcer, NameServers, Proxy, Settings, errors, hash_token
from rmi_runtime.context import allow
from rmi_runtime.daemon import handshake
from tests.integration.runtime.names import KEY, SERVICE_HANDSHAKE, name_server
from tests.integration.runtime.names import service as daemon_of
from tests.support import eventually

TOKEN = "token-of-seven"


@expose
@allow("service")
class Bank:
    """Knows one token, until it is revoked."""

    known: dict[str, dict[str, Any]]

    def __init__(self) -> None:
        self.known = {hash_token(TOKEN): {"client": 7, "role": "customer"}}

    def identify(self, token_hash: str) -> dict[str, Any] | None:
        """Return whose it is."""
        return self.known.get(token_hash)


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
async def names(
    tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[NameServers]:
    """Run a name server, a logger, a facade, and a bank that is not announced yet."""
    monkeypatch.setattr(handshake, "KNOWN_S", 0.05)
    monkeypatch.setattr("rmi_msg.facade.ASK_BANK_S", 0.5)
    key = tmp_path / "cluster.key"
    key.write_text(KEY)
    key.chmod(0o600)
    stop = asyncio.Event()
    async with name_server() as location:
        settings = Settings(data_dir=tmp_path, ns=(location,))
        services = [
            asyncio.ensure_future(run(settings, 1, stop=stop)) for run in (run_logger, run_facade)
        ]
        async with NameServers([location], handshake=SERVICE_HANDSHAKE) as known:

            async def ready() -> bool:
                return {"msg.facade.1", "msg.logger.1"} <= set(await known.list())

            await eventually(ready)
            yield known
        stop.set()
        await asyncio.gather(*services)


@pytest.fixture
async def with_bank(names: NameServers, bank: Bank) -> AsyncIterator[NameServers]:
    _, daemon, _ = daemon_of("bank.echo")
    uri = str(daemon.register(bank, "bank.business.1"))
    async with daemon, Announcer(names, "bank.business.1", uri) as announcer:
        await announcer.announced.wait()
        yield names


async def facade(names: NameServers, token: str) -> Proxy:
    uri = await names.lookup("msg.facade.1")
    return Proxy(uri, handshake={"token": token})


async def test_a_stock_client_with_a_token_posts(with_bank: NameServers) -> None:
    uri = await with_bank.lookup("msg.facade.1")

    def post() -> Any:
        with Pyro5.api.Proxy(uri) as proxy:
            proxy._pyroHandshake = {"token": TOKEN}
            return proxy.post("hello", "1")

    assert await asyncio.to_thread(post) == {"id": "1"}


async def test_a_fake_token_is_refused(with_bank: NameServers) -> None:
    async with await facade(with_bank, TOKEN):
        pass
    with pytest.raises(errors.Forbidden, match="fake"):
        async with await facade(with_bank, "fake"):
            pass


async def test_a_revoked_token_is_refused_on_the_open_connection(
    with_bank: NameServers, bank: Bank
) -> None:
    async with await facade(with_bank, TOKEN) as proxy:
        await proxy.post("hello", "1")
        bank.known.clear()

        async def refused() -> bool:
            try:
                await proxy.post("again", "2")
            except errors.Forbidden:
                return True
            return False

        await eventually(refused)


async def test_without_a_bank_a_token_is_worth_nothing_and_none_is_needed_here(
    names: NameServers,
) -> None:
    with pytest.raises(errors.Unavailable, match="nobody can say whose token"):
        async with await facade(names, TOKEN):
            pass
    async with Proxy(await names.lookup("msg.facade.1")) as stranger:
        assert await stranger.post("hello", "1") == {"id": "1"}

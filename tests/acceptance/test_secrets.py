"""Keys and tokens stay where they belong, whatever is tried, at the most talkative log level."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rmi_runtime import NameServers, Proxy, errors, new_token
from tests.acceptance.system import System, running_system

FAKE = new_token()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    data_dir = tmp_path_factory.mktemp("data")
    data_dir.chmod(0o755)  # made by somebody who did not think of it
    before = os.umask(0o022)
    try:
        sizes = ("--business", "1", "--loggers", "1", "--messages", "1")
        with running_system(data_dir, "--demo", "--log-level", "DEBUG", *sizes) as running:
            yield running
    finally:
        os.umask(before)


def secrets_of(system: System) -> list[str]:
    """Return the cluster key and all tokens."""
    key = (system.data_dir / "cluster.key").read_text().strip()
    return [key, FAKE, *system.tokens().values()]


async def try_everything(system: System) -> None:
    """Show good and bad secrets to every service and to the gateway, in every way."""
    key, *tokens = secrets_of(system)
    shown: list[Any] = [{"token": token} for token in tokens]
    shown += [{"cluster_key": key}, {"cluster_key": "ab" * 32}, {"cluster_key": FAKE}]
    shown += [{"token": [FAKE]}, {"password": FAKE}, FAKE]
    async with NameServers([system.name_server]) as names:
        uris = [entry.uri for entry in (await names.list()).values()]
    for uri in uris:
        for handshake in shown:
            with contextlib.suppress(errors.RmiError, AttributeError, TypeError):
                async with Proxy(uri, handshake=handshake, timeout_s=5) as proxy:
                    with contextlib.suppress(errors.RmiError, AttributeError, TypeError):
                        await proxy._call("balance", (1,))
                    with contextlib.suppress(errors.RmiError, AttributeError, TypeError):
                        await proxy._call("balance", ("nonsense", FAKE))
    async with httpx.AsyncClient(base_url=system.url) as http:
        for token in [*tokens, key]:
            headers = {"Authorization": f"Bearer {token}"}
            for path in ("/bank/accounts/1", "/bank/accounts/x", f"/nowhere/{FAKE}"):
                await http.get(path, headers=headers)
            await http.post("/bank/deposits", headers=headers, content=b"{")


def test_every_file_is_its_owners_alone(system: System) -> None:
    modes = {
        str(path.relative_to(system.data_dir)): stat.S_IMODE(path.stat().st_mode)
        for path in system.data_dir.rglob("*")
    }
    assert "bank.sqlite" in modes
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def test_no_secret_is_written_or_printed_anywhere(system: System) -> None:
    asyncio.run(try_everything(system))
    allowed = {"cluster.key", "demo-tokens.json"}
    texts = {
        path.name: path.read_bytes().decode("latin-1")
        for path in system.data_dir.rglob("*")
        if path.is_file() and path.name not in allowed
    }
    texts["rmi up"] = "\n".join(system.output)
    texts["rmi status"] = system.rmi("status").stdout + system.rmi("status", "--json").stdout
    texts["rmi config"] = system.rmi("config").stdout + system.rmi("config", "--json").stdout
    texts["rmi token list"] = system.rmi("token", "list", "--json").stdout
    for path in ("/status", "/metrics", "/readyz", "/healthz", "/openapi.json"):
        texts[path] = httpx.get(system.url + path).text
    for service in system.running()["services"]:
        for file in ("cmdline", "environ"):
            source = Path(f"/proc/{service['pid']}/{file}")
            texts[f"{service['name']} {file}"] = source.read_bytes().decode("latin-1")
    assert all(texts[name] for name in ("bank.business.1.out", "/status", "rmi config"))
    for secret in secrets_of(system):
        assert [name for name, text in texts.items() if secret in text] == []


def test_tokens_are_kept_as_hashes_only(system: System) -> None:
    written = b"".join(path.read_bytes() for path in system.data_dir.glob("bank.sqlite*"))
    hashes = set(re.findall(rb"[0-9a-f]{64}", written))
    assert len(hashes) >= len(system.tokens())
    assert not any(token.encode() in written for token in system.tokens().values())


def test_a_proxy_that_is_sent_takes_no_secret_along(system: System) -> None:
    key, *_ = secrets_of(system)
    proxy = Proxy("PYRO:x@127.0.0.1:1", handshake={"cluster_key": key})
    from rmi_runtime.wire.serializers import BY_NAME

    for serializer in BY_NAME.values():
        assert key.encode() not in serializer.dumps([proxy])
    assert key not in repr(proxy)


def test_refusals_say_nothing_of_what_was_shown(system: System) -> None:
    async def refused(handshake: object) -> str:
        async with NameServers([system.name_server]) as names:
            uri = await names.lookup("bank.business.1")
        with pytest.raises(errors.Forbidden) as caught:
            async with Proxy(uri, handshake=handshake):
                pass
        return str(caught.value) + json.dumps(caught.value.fields)

    for handshake in ({"token": FAKE}, {"cluster_key": FAKE}):
        assert FAKE not in asyncio.run(refused(handshake))

"""The services as they are run, with settings: start, demonstration, stop, start again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import stat
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rmi_bank import (
    BankClient,
    SqliteLedger,
    business,
    demo,
    run_business,
    run_data,
    run_nameserver,
)
from rmi_bank.rules import ROLES
from rmi_runtime import NameServers, Proxy, Settings, load_or_create_cluster_key
from rmi_runtime.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unavailable
from rmi_runtime.files import sqlite
from tests.ports import free_ports
from tests.support import eventually


async def test_the_bank_runs_with_the_demonstrations_tokens_and_finds_its_data_again(
    tmp_path: Path,
) -> None:
    settings = Settings(data_dir=tmp_path, ns=(f"127.0.0.1:{free_ports()}",), demo=True)
    tokens_path = tmp_path / "demo-tokens.json"
    tokens_before = None
    for run in (1, 2):
        stop = asyncio.Event()
        services = [
            asyncio.ensure_future(run_nameserver(settings, stop=stop)),
            asyncio.ensure_future(run_data(settings, stop=stop)),
            asyncio.ensure_future(run_business(settings, 1, stop=stop)),
        ]
        await eventually(tokens_path.exists)
        assert stat.S_IMODE(tokens_path.stat().st_mode) == 0o600
        tokens = json.loads(tokens_path.read_text())
        assert [row["client"] for row in tokens] == [1, 2, 3, 4, 5]
        assert tokens == (tokens_before or tokens)
        tokens_before = tokens
        async with BankClient(settings.ns, token=tokens[2]["token"]) as bank:
            assert (await bank.transfer(1, 2, 100))["balance"] == 1000 - 100 * run
            assert await bank.balance(10) == 1000
        stop.set()
        await asyncio.gather(*services)
    business_log = (tmp_path / "log" / "bank.business.1.log").read_text().splitlines()
    assert [line.split(" - ")[1] for line in business_log] == [
        f"OperationNumber: {number}" for number in range(1, 5)
    ]
    assert "ClientID: 3" in business_log[0]
    assert "getlock" in (tmp_path / "log" / "bank.data.log").read_text()


async def test_a_business_object_is_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        data_dir=tmp_path,
        ns=(f"127.0.0.1:{free_ports()}",),
        call_timeout_s=7.0,
        lock_wait_s=3.0,
        batch_max=17,
        queue_max=170,
    )
    made: list[dict[str, Any]] = []

    def noted(*args: Any, **options: Any) -> Any:
        made.append(options)
        raise ConnectionAbortedError("that is enough")

    monkeypatch.setattr(business, "open_business", noted)
    with pytest.raises(ConnectionAbortedError):
        await run_business(settings, 1)
    expected = {"call_timeout_s": 7.0, "lock_wait_s": 3.0, "round_max": 17, "queue_max": 170}
    assert made == [expected]


async def test_seeding_that_broke_off_is_done_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = SqliteLedger(tmp_path / "bank.sqlite")
    await ledger.start()

    async def broken(*args: object) -> bool:
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "seed", broken)
        with pytest.raises(OSError, match="power cut"):
            await demo.seed_demo(ledger, tmp_path)
    first = json.loads((tmp_path / "demo-tokens.json").read_text())
    assert await demo.seed_demo(ledger, tmp_path)
    second = json.loads((tmp_path / "demo-tokens.json").read_text())
    assert first != second
    assert not await demo.seed_demo(ledger, tmp_path)
    assert json.loads((tmp_path / "demo-tokens.json").read_text()) == second
    assert len(await ledger.tokens(0, 100)) == 5
    assert ledger.balances(range(11)) == [-10_000, *[1000] * 10]
    assert sorted(path.name for path in tmp_path.glob("*token*")) == ["demo-tokens.json"]
    await ledger.close()


async def test_a_second_data_object_with_other_books_is_refused_while_the_first_answers(
    tmp_path: Path,
) -> None:
    ns = (f"127.0.0.1:{free_ports()}",)
    first = Settings(data_dir=tmp_path / "first", ns=ns, demo=True)
    second = Settings(data_dir=tmp_path / "second", ns=ns, demo=True)
    for settings in (first, second):
        settings.data_dir.mkdir()
    stop, end_first = asyncio.Event(), asyncio.Event()
    running = [
        asyncio.ensure_future(run_nameserver(first, stop=stop)),
        asyncio.ensure_future(run_data(first, stop=end_first)),
    ]
    key = first.data_dir / "cluster.key"
    async with NameServers(ns) as names:

        async def announced() -> bool:
            with contextlib.suppress(Unavailable):
                return bool(await names.list("bank.data"))
            return False

        await eventually(key.exists)
        shutil.copy(key, second.data_dir)
        await eventually(announced)
        with pytest.raises(Conflict, match=r"bank\.data runs already, at 127\.0\.0\.1:.*--ns"):
            await run_data(second, stop=stop)
        assert not (second.data_dir / "bank.sqlite").exists()
        end_first.set()
        await running[1]
        running.append(asyncio.ensure_future(run_data(second, stop=stop)))
        await eventually(announced)
    stop.set()
    await asyncio.gather(*running)


async def uri_of_data(names: NameServers) -> str:
    """Return where the data object is, once it is announced."""

    async def found() -> str:
        with contextlib.suppress(NotFound, Unavailable):
            return await names.lookup("bank.data")
        return ""

    return await eventually(found)


async def test_the_data_object_lets_admins_make_tokens_and_other_clients_do_nothing(
    tmp_path: Path,
) -> None:
    settings = Settings(data_dir=tmp_path, ns=(f"127.0.0.1:{free_ports()}",))
    stop = asyncio.Event()
    services = [
        asyncio.ensure_future(run_nameserver(settings, stop=stop)),
        asyncio.ensure_future(run_data(settings, stop=stop)),
    ]
    await eventually((tmp_path / "cluster.key").exists)
    key = {"cluster_key": load_or_create_cluster_key(tmp_path)}
    async with NameServers(settings.ns, handshake=key) as names:
        uri = await uri_of_data(names)
    async with Proxy(uri, handshake=key) as service:
        tokens = {role: (await service.token_create(7, role))["token"] for role in ROLES}
        methods = set(service._methods)
    assert {"lock", "commit", "open_account", "identify"} < methods
    for role, token in tokens.items():
        refused = set()
        async with Proxy(uri, handshake={"token": token}) as client:
            for method in methods:
                try:
                    await client._call(method)
                except Forbidden:
                    refused.add(method)
                except (TypeError, InvalidRequest):
                    pass  # it was let in, and gave no arguments
        about_tokens = {"token_create", "token_list", "token_revoke"}
        assert methods - refused == (about_tokens if role == "admin" else set())
    stop.set()
    await asyncio.gather(*services)


async def test_a_lease_lives_as_long_as_the_settings_say(tmp_path: Path) -> None:
    ns = (f"127.0.0.1:{free_ports()}",)
    settings = Settings(data_dir=tmp_path, ns=ns, lock_lease_s=0.1)
    stop = asyncio.Event()
    services = [
        asyncio.ensure_future(run_nameserver(settings, stop=stop)),
        asyncio.ensure_future(run_data(settings, stop=stop)),
    ]
    await eventually((tmp_path / "cluster.key").exists)
    key = {"cluster_key": load_or_create_cluster_key(tmp_path)}
    async with NameServers(settings.ns, handshake=key) as names:
        uri = await uri_of_data(names)
    async with Proxy(uri, handshake=key) as one:
        await one.lock(1, [1])

        async def expired() -> bool:
            return bool((await one.figures())["leases_expired"] == 1)

        await eventually(expired, timeout_s=5.0)
    stop.set()
    await asyncio.gather(*services)


async def test_who_waits_for_a_lock_does_not_hold_up_a_data_object_that_leaves(
    tmp_path: Path,
) -> None:
    settings = Settings(
        data_dir=tmp_path, ns=(f"127.0.0.1:{free_ports()}",), demo=True, stop_wait_s=60.0
    )
    stop, leave = asyncio.Event(), asyncio.Event()
    names = asyncio.ensure_future(run_nameserver(settings, stop=stop))
    data = asyncio.ensure_future(run_data(settings, stop=leave))
    await eventually((tmp_path / "demo-tokens.json").exists)
    key = {"cluster_key": load_or_create_cluster_key(tmp_path)}
    async with NameServers(settings.ns, handshake=key) as name_servers:
        uri = await uri_of_data(name_servers)
        async with Proxy(uri, handshake=key) as one, Proxy(uri, handshake=key) as two:
            await one.lock(1, [1])
            waits = asyncio.ensure_future(two.lock(2, [1], [], 50.0))

            async def waiting() -> bool:
                return bool((await one.figures())["tickets"] == 2)

            await eventually(waiting)
            leave.set()
            async with asyncio.timeout(20):
                with pytest.raises(Unavailable):
                    await waits
                await data
    stop.set()
    await names


@pytest.mark.parametrize("run", [run_nameserver, run_data])
async def test_who_is_told_to_stop_while_its_disk_hangs_at_the_start_stops(
    run: Callable[..., Coroutine[Any, Any, None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, again, stop = asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(*args: object, **options: object) -> None:
        loop.call_soon_threadsafe(opening.set)
        again.wait()
        raise OSError("the test is over")

    monkeypatch.setattr(sqlite, "connect", hang)
    settings = Settings(data_dir=tmp_path, ns=("127.0.0.1:0",))
    try:
        async with asyncio.timeout(10):
            service = asyncio.ensure_future(run(settings, stop=stop))
            await opening.wait()
            stop.set()
            await service
    finally:
        again.set()

"""Where clients may be used: threads, loops, forked processes; and what refuses does nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from Pyro5.errors import PyroError

from rmi_bank import BankClient, SyncBankClient
from rmi_runtime import Proxy, SyncProxy, errors, expose
from rmi_runtime.compat import Daemon


@expose
class Counter:
    """Counts the calls that reach it, and stands for a business object as well."""

    def __init__(self) -> None:
        self.counted = 0
        self.entered, self.leave = threading.Event(), threading.Event()

    def count(self) -> int:
        self.counted += 1
        return self.counted

    def pause(self) -> int:
        self.entered.set()
        assert self.leave.wait(10)
        return self.count()

    def echo(self, value: Any) -> Any:
        return value


@expose
class Names:
    """A name server that knows one business object."""

    def __init__(self) -> None:
        self.uri = ""

    def list(self, **_: Any) -> dict[str, Any]:
        return {"bank.business.1": [self.uri, []]}


@expose
class Business:
    """Tells which process asks."""

    def balance(self, account: int) -> dict[str, int]:
        return {"balance": account}


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def uri(counter: Counter) -> Iterator[str]:
    with Daemon() as daemon:
        made = str(daemon.register(counter))
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        yield made
        counter.leave.set()
        daemon.shutdown()
        thread.join(10)


@pytest.fixture
def name_server() -> Iterator[str]:
    names = Names()
    with Daemon() as daemon:
        names.uri = str(daemon.register(Business()))
        daemon.register(names, "Pyro.NameServer")
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        yield daemon.locationStr
        daemon.shutdown()
        thread.join(10)


def elsewhere(do: Callable[[], Any]) -> Any:
    """Do something in another thread; return what it returns or raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(do).result(20)


def in_child(do: Callable[[], object], meanwhile: Callable[[], object] = lambda: True) -> bool:
    """Do something in a forked process, and something here; return whether both came out true."""
    pid = os.fork()
    if pid == 0:
        try:
            done = bool(do())
        except BaseException:
            done = False
        os._exit(0 if done else 1)
    try:
        here = bool(meanwhile())
    finally:
        status = os.waitpid(pid, 0)[1]
    return here and os.waitstatus_to_exitcode(status) == 0


def test_another_thread_is_refused_before_anything_is_sent(uri: str, counter: Counter) -> None:
    with SyncProxy(uri) as proxy:
        for use in (proxy.count, proxy._close, proxy._bind, proxy._batch()):
            with pytest.raises(
                errors.Misused, match=r"not the owner.* _claim_ownership\(\)"
            ) as caught:
                elsewhere(use)
            assert isinstance(caught.value, PyroError)
            assert caught.value.definite
        assert proxy.count() == 1
    assert counter.counted == 1


def test_another_thread_may_claim_a_proxy_but_not_during_a_call(uri: str, counter: Counter) -> None:
    with SyncProxy(uri) as proxy:

        def claim_too_early() -> None:
            assert counter.entered.wait(10)
            try:
                with pytest.raises(errors.Misused, match="under way"):
                    proxy._claim_ownership()
                with pytest.raises(errors.Misused, match="not the owner"):
                    proxy.count()
            finally:
                counter.leave.set()

        with ThreadPoolExecutor(1) as pool:
            early = pool.submit(claim_too_early)
            assert proxy.pause() == 1
            early.result(10)

        def claim() -> int:
            proxy._claim_ownership()
            return int(proxy.count())

        assert elsewhere(claim) == 2
        with pytest.raises(errors.Misused):
            proxy.count()
        proxy._claim_ownership()
        assert proxy.count() == 3


async def test_blocking_clients_are_refused_where_a_loop_runs_without_noise(
    uri: str, counter: Counter
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proxy = SyncProxy(uri)
        for use in (lambda: proxy._call("count"), proxy._bind, proxy._batch()):
            with pytest.raises(errors.Misused, match="use Proxy there"):
                use()
        with pytest.raises(errors.Misused, match="use BankClient there"):
            SyncBankClient().__enter__()
        gc.collect()
    assert counter.counted == 0


def test_the_bank_client_of_another_thread_is_refused(name_server: str) -> None:
    client = SyncBankClient([name_server], token="t")
    with pytest.raises(errors.Misused, match="with statement"):
        client.balance(1)
    with client as bank:
        assert bank.balance(1) == 1
        with pytest.raises(errors.Misused, match=r"not the owner.* claim_ownership\(\)"):
            elsewhere(lambda: bank.balance(2))

        def claim() -> int:
            bank.claim_ownership()
            return bank.balance(3)

        assert elsewhere(claim) == 3
        bank.claim_ownership()
        assert bank.balance(4) == 4


async def test_a_bank_client_that_was_not_entered_says_so_at_once() -> None:
    client = BankClient(token="t", timeout_s=60)
    with pytest.raises(errors.Misused, match="async with"):
        await client.balance(1)


def test_a_proxy_of_a_loop_that_goes_on_is_refused_on_another(uri: str, counter: Counter) -> None:
    async def main() -> None:
        async with Proxy(uri) as proxy:

            async def call() -> None:
                with pytest.raises(errors.Misused, match="another event loop"):
                    await proxy.count()

            await asyncio.to_thread(asyncio.run, call())
            assert await proxy.count() == 1

    asyncio.run(main())
    assert counter.counted == 1


def test_a_proxy_that_two_loops_connect_at_once_is_connected_on_one(uri: str) -> None:
    begun, go = threading.Event(), threading.Event()

    async def main() -> None:
        here = asyncio.get_running_loop()

        async def resolve(_: str) -> str:
            if asyncio.get_running_loop() is not here:
                begun.set()
                assert await asyncio.to_thread(go.wait, 20)
            return uri

        proxy = Proxy("PYRONAME:counter", resolve=resolve)

        async def call() -> None:
            with pytest.raises(errors.Misused, match="another event loop"):
                await proxy.count()

        elsewhere = asyncio.create_task(asyncio.to_thread(asyncio.run, call()))
        assert await asyncio.to_thread(begun.wait, 20)
        async with proxy:
            go.set()
            await elsewhere
            assert await proxy.count() == 1

    asyncio.run(main())


def test_a_proxy_that_is_closed_from_another_loop_hangs_up(uri: str) -> None:
    async def main() -> None:
        over = asyncio.Event()
        connected, go = threading.Event(), asyncio.get_running_loop().call_soon_threadsafe
        proxy = Proxy(uri)
        ends: list[Any] = []

        async def use() -> None:
            await proxy.count()
            ends.append(proxy._connection.ended)
            connected.set()
            await asyncio.wait_for(ends[0], 20)  # the loop does nothing else
            go(over.set)

        using = asyncio.create_task(asyncio.to_thread(asyncio.run, use()))
        assert await asyncio.to_thread(connected.wait, 20)
        await proxy._close()
        async with asyncio.timeout(10):
            await over.wait()
        await using

    asyncio.run(main())


def test_a_sync_proxy_goes_on_in_parent_and_forked_child(uri: str) -> None:
    with SyncProxy(uri, timeout_s=5) as proxy:

        def echoes(name: str) -> bool:
            said = [f"{name} {number}" for number in range(300)]
            return [proxy.echo(text) for text in said] == said

        assert proxy.echo(0) == 0
        assert in_child(lambda: echoes("child"), lambda: echoes("parent"))
        assert echoes("parent")


def test_a_child_that_drops_or_closes_a_sync_proxy_leaves_the_parents_alone(uri: str) -> None:
    proxies = [SyncProxy(uri, timeout_s=5)]
    for drop in (proxies.clear, proxies[0]._close):
        assert proxies[0].echo(1) == 1

        def child(drop: Callable[[], object] = drop) -> bool:
            drop()
            gc.collect()
            return True

        assert in_child(child)
        connection = proxies[0]._proxy._connection
        assert proxies[0].echo(2) == 2
        assert proxies[0]._proxy._connection is connection
    proxies[0]._close()


def test_a_child_that_uses_a_sync_proxy_lets_go_of_the_parents_connection(uri: str) -> None:
    with SyncProxy(uri) as proxy:
        number = proxy._proxy._connection.transport_fileno()
        inherited = os.stat(number).st_ino

        def sockets() -> set[int]:
            paths = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
            return {os.stat(path).st_ino for path in paths if os.path.exists(path)}

        assert inherited in sockets()
        assert in_child(lambda: proxy.echo("mine") and inherited not in sockets())


def test_a_bank_client_goes_on_in_parent_and_forked_child(name_server: str) -> None:
    with SyncBankClient([name_server], token="t", timeout_s=5) as bank:
        assert bank.balance(1) == 1

        def child() -> bool:
            found = [bank.balance(n) for n in range(20)]
            bank.__exit__(None, None, None)
            return found == list(range(20))

        def leave() -> bool:
            bank.__exit__(None, None, None)
            return True

        for do in (child, leave):
            assert in_child(do)
            assert [bank.balance(n) for n in range(20)] == list(range(20))


def test_a_proxy_goes_on_in_parent_and_forked_child(uri: str) -> None:
    loop = asyncio.new_event_loop()
    proxies = [Proxy(uri, timeout_s=5)]

    async def echo(value: int) -> Any:
        return await proxies[0].echo(value)

    async def child() -> bool:
        asked = [await echo(n) for n in range(20)] == list(range(20))
        await proxies[0]._close()
        return asked

    def drop() -> bool:
        proxies.clear()
        return not gc.collect() < 0

    assert loop.run_until_complete(echo(1)) == 1
    connection = proxies[0]._connection
    for do in (lambda: asyncio.run(child()), drop):
        assert in_child(do)
        assert loop.run_until_complete(echo(2)) == 2
        assert proxies[0]._connection is connection
    loop.run_until_complete(proxies[0]._close())
    loop.close()

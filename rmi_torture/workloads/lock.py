"""The raw lock of the data object: lock, dawdle, commit or unlock, also when it is too late.

What only services may call is called with the cluster key, over connections of our own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

from rmi_bank import BankClient
from rmi_runtime import NameServers, Proxy
from rmi_runtime.errors import RmiError
from rmi_torture.checkers import Line
from rmi_torture.kept import Kept
from rmi_torture.workloads.base import PAUSE_S, Process, Setting

ACCOUNTS = range(1, 7)
PAGE = 1000
HOLD_S_MAX = 0.02
DAWDLE = 0.12
"""Share of the holders that dawdle past the end of their lease."""

HANG_UP = 0.06
"""Share of the holders that commit on another connection than the one that locked."""

TWICE = 0.05
"""Share of the holders that commit twice."""

WAIT_S = 2.0


class LockWorkload:
    """See the module.

    Args:
        setting: where it runs.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._lease_s = float(setting.system.setting("RMI_LOCK_LEASE_S", "10"))
        handshake = {"cluster_key": setting.system.cluster_key()}
        self._handshake = handshake
        self._names = NameServers(
            [setting.system.name_server], handshake=handshake, ssl=setting.system.ssl
        )
        self._bank = BankClient(
            [setting.system.name_server],
            handshake=handshake,
            timeout_s=10,
            ssl=setting.system.ssl,
        )
        self._connections: list[_Connection] = []

    async def prepare(self) -> None:
        """Connect."""
        await self._bank.__aenter__()

    def clients(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Return the steps of the holders."""
        return [self._holder(number) for number in range(2 * self._setting.concurrency)]

    def _connection(self) -> _Connection:
        made = _Connection(self._names, self._handshake, self._setting.timeout_s)
        self._connections.append(made)
        return made

    def _holder(self, number: int) -> Callable[[], Awaitable[None]]:
        rng = self._setting.rng(f"lock{number}")
        process = Process(self._setting)
        mine, other = self._connection(), self._connection()
        holder = _Holder(number, rng, process, mine, other, self._lease_s)
        return holder.step

    async def collect(self) -> Kept:
        """Read the journal."""
        lines: set[Line] = set()
        for account in ACCOUNTS:
            after: int | None = 0
            while after is not None:
                page = await self._bank.statement(account, after, PAGE)
                lines.update(Line(*(line[key] for key in Line._fields)) for line in page["lines"])
                after = page["next"]
        return Kept(lines=lines)

    async def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            await connection.close()
        await self._bank.__aexit__(None, None, None)
        await self._names.aclose()


class _Connection:
    """A connection to the data object, wherever it is now."""

    def __init__(self, names: NameServers, handshake: Mapping[str, str], timeout_s: float) -> None:
        self._names = names
        self._handshake = handshake
        self._timeout_s = timeout_s
        self._proxy: Proxy | None = None

    async def call(self, method: str, *args: Any) -> Any:
        """Call, once."""
        try:
            if self._proxy is None or not self._proxy._connected:
                await self.close()
                uri = await self._names.lookup("bank.data")
                self._proxy = Proxy(
                    uri,
                    handshake=self._handshake,
                    timeout_s=self._timeout_s,
                    ssl=self._names.ssl,
                )
                await self._proxy._bind()
            return await self._proxy._call(method, args, timeout_s=self._timeout_s)
        except BaseException:
            # What is not answered in time is hung up on, as business objects do.
            await self.close()
            raise

    async def close(self) -> None:
        """Hang up."""
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            await proxy._close()


class _Holder:
    """One client of the lock."""

    def __init__(
        self,
        number: int,
        rng: Random,
        process: Process,
        mine: _Connection,
        other: _Connection,
        lease_s: float,
    ) -> None:
        self._number = number
        self._rng = rng
        self._process = process
        self._mine = mine
        self._other = other
        self._lease_s = lease_s
        self._count = 0

    async def step(self) -> None:
        """Lock, hold, and let go in one way or another."""
        rng = self._rng
        source, target = rng.sample(ACCOUNTS, 2)
        self._count += 1
        request_id = f"0:L{self._number}-{self._count}"
        asked = {"accounts": sorted((source, target)), "request_id": request_id}
        granted_at = time.monotonic()
        grant = await self._ask(
            "lock", asked, self._mine, 0, asked["accounts"], [request_id], WAIT_S
        )
        if grant is None:
            await asyncio.sleep(PAUSE_S)
            return
        choice = rng.random()
        lease = grant["lease"]
        if choice < DAWDLE:
            # The lease began after we asked and before we were answered: surely over by then.
            await asyncio.sleep(granted_at + self._lease_s * 1.3 + WAIT_S - time.monotonic())
        else:
            await asyncio.sleep(rng.random() * HOLD_S_MAX)
        if DAWDLE <= choice < DAWDLE + HANG_UP:
            await self._mine.close()
            self._process.invoke("hang_up", {"lease": lease})
            self._process.ok("hang_up", {"lease": lease}, {})
            await self._commit(self._other, lease, source, target, request_id)
        elif choice > 0.85:
            await self._ask("unlock", {"lease": lease}, self._mine, lease)
        else:
            await self._commit(self._mine, lease, source, target, request_id)
            if choice < DAWDLE + HANG_UP + TWICE:
                await self._commit(self._mine, lease, source, target, request_id)

    async def _commit(
        self, connection: _Connection, lease: int, source: int, target: int, request_id: str
    ) -> None:
        posting = [source, target, 1, 0]
        outcome = [request_id, f"transfer {source} {target} 1", "0"]
        asked = {"lease": lease, "request_id": request_id, "source": source, "target": target}
        await self._ask("commit", asked, connection, lease, [posting], [outcome])

    async def _ask(
        self, method: str, asked: dict[str, Any], connection: _Connection, *args: Any
    ) -> Any:
        """Call and note; return the answer, None if there was none or it was a refusal."""
        self._process.invoke(method, asked)
        try:
            answer = await connection.call(method, *args)
        except Exception as error:
            self._process.raised(method, asked, error)
            if not isinstance(error, RmiError):
                await asyncio.sleep(PAUSE_S)
            return None
        got = {"lease": answer["lease"]} if method == "lock" else {}
        if method == "commit":
            got = {"commit": answer}
        self._process.ok(method, asked, got)
        return answer if method == "lock" else True

"""The bank for plain scripts: :class:`rmi_bank.BankClient` on a private loop, no threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from rmi_bank.client import DEFAULT_NAME_SERVER, BankClient
from rmi_runtime.errors import Misused
from rmi_runtime.proxy.forked import never_free
from rmi_runtime.proxy.ownership import Ownership

T = TypeVar("T")


class SyncBankClient:
    """The same for plain scripts: no threads, every method blocks until its answer is there::

        with SyncBankClient(token=token) as bank:
            bank.transfer(1, 2, 50)

    It belongs to the thread that enters it: make one for each thread, or hand it over with
    :meth:`claim_ownership`. Other threads, and code that an event loop runs, get ``Misused``, and
    nothing is sent. In a process forked since it connects anew.

    Args:
        name_servers: ``host:port`` of each.
        options: see :class:`BankClient`.
    """

    def __init__(
        self, name_servers: Sequence[str] = (DEFAULT_NAME_SERVER,), **options: Any
    ) -> None:
        self._make: Callable[[], BankClient] = lambda: BankClient(name_servers, **options)
        self._owner = Ownership("SyncBankClient", "BankClient", "claim_ownership")
        self._entered = False
        self._runner: asyncio.Runner | None = None
        self._client: BankClient | None = None

    def claim_ownership(self) -> None:
        """Make the calling thread the one that may use the client.

        Raises:
            Misused: a call of another thread is under way.
        """
        self._owner.claim()

    def __enter__(self) -> SyncBankClient:
        self._leave_parent()
        if not self._entered:
            self._owner.claim()
        with self._owner:
            self._connected()
            self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave_parent()
        with self._owner:
            self._entered = False
            client, self._client = self._client, None
            runner, self._runner = self._runner, None
            if runner is None:
                return
            try:
                if client is not None:
                    runner.run(client.__aexit__(kind, error, trace))
            finally:
                runner.close()

    def __del__(self) -> None:
        if self.__dict__.get("_runner") is not None:
            self._leave_parent()

    def deposit(
        self, account: int, amount: int, *, request_id: str | None = None
    ) -> dict[str, Any]:
        """See :meth:`BankClient.deposit`."""
        return self._run(lambda bank: bank.deposit(account, amount, request_id=request_id))

    def withdraw(
        self, account: int, amount: int, *, request_id: str | None = None
    ) -> dict[str, Any]:
        """See :meth:`BankClient.withdraw`."""
        return self._run(lambda bank: bank.withdraw(account, amount, request_id=request_id))

    def transfer(
        self, source: int, target: int, amount: int, *, request_id: str | None = None
    ) -> dict[str, Any]:
        """See :meth:`BankClient.transfer`."""
        return self._run(lambda bank: bank.transfer(source, target, amount, request_id=request_id))

    def open_account(
        self,
        account: int,
        balance: int = 0,
        owner: int | None = None,
        *,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """See :meth:`BankClient.open_account`."""
        return self._run(
            lambda bank: bank.open_account(account, balance, owner, request_id=request_id)
        )

    def balance(self, account: int) -> int:
        """See :meth:`BankClient.balance`."""
        return self._run(lambda bank: bank.balance(account))

    def statement(self, account: int, after: int = 0, limit: int = 100) -> dict[str, Any]:
        """See :meth:`BankClient.statement`."""
        return self._run(lambda bank: bank.statement(account, after, limit))

    def execute(self, operations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See :meth:`BankClient.execute`."""
        return self._run(lambda bank: bank.execute(operations))

    def _run(self, call: Callable[[BankClient], Awaitable[T]]) -> T:
        self._leave_parent()
        with self._owner:
            if not self._entered:
                raise Misused("use this client in a with statement; nothing was sent")
            runner, client = self._connected()

            async def run() -> T:
                return await call(client)

            return runner.run(run())

    def _connected(self) -> tuple[asyncio.Runner, BankClient]:
        if self._runner is None:
            self._runner = asyncio.Runner()
        if self._client is None:

            async def enter() -> BankClient:
                return await self._make().__aenter__()

            self._client = self._runner.run(enter())
        return self._runner, self._client

    def _leave_parent(self) -> None:
        """In a process forked since: leave loop and connections to the parent, and start anew."""
        if self._owner.in_child:
            never_free(self._runner, self._client)
            self._runner = self._client = None
            self._owner.settle()

"""A bank in one process: name server, data object, business objects, each with its own daemon."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from Pyro5.core import NAMESERVER_NAME

from rmi_bank import DataObject, SqliteLedger, open_business, open_data
from rmi_bank.business import BusinessObject
from rmi_bank.oplines import BusinessEntry, DataEntry, business_lines, data_lines
from rmi_runtime import (
    Announcer,
    Daemon,
    Endpoints,
    NameKeeper,
    NameServer,
    NameServers,
    OperationLog,
    Proxy,
    ServiceAuthenticator,
)
from tests.support import eventually

CLUSTER_KEY = "c0ffee" * 10 + "cafe"
SERVICE_HANDSHAKE = {"cluster_key": CLUSTER_KEY}


class Part:
    """One service; :meth:`stop` ends it as a crash would: connections break, nothing is drained."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        self.daemon = Daemon(authenticate=ServiceAuthenticator(CLUSTER_KEY))
        self.uri = ""

    async def stop(self) -> None:
        await self.daemon.close()
        await self.stack.aclose()


class BankCluster:
    """An async context manager.

    Args:
        path: directory for the store and the logs.
        businesses: how many business objects.
        data_options: for :func:`rmi_bank.open_data`.
        business_options: for :func:`rmi_bank.open_business`.
    """

    def __init__(
        self,
        path: Path,
        businesses: int = 2,
        *,
        data_options: dict[str, Any] | None = None,
        business_options: dict[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.businesses = businesses
        self.data_options = data_options or {}
        self.business_options = {"call_timeout_s": 8.0, **(business_options or {})}
        self.parts: dict[str, Part] = {}
        self.objects: dict[str, Any] = {}
        self.ledger = SqliteLedger(path / "bank.sqlite")
        self._stack = AsyncExitStack()
        self.location = ""

    async def __aenter__(self) -> BankCluster:
        keeper = await self._stack.enter_async_context(NameKeeper(self.path / "names.sqlite"))
        daemon = Daemon(authenticate=ServiceAuthenticator(CLUSTER_KEY))
        daemon.register(NameServer(keeper), NAMESERVER_NAME)
        await self._stack.enter_async_context(daemon)
        self.location = daemon.location
        await self.start_data()
        for number in range(1, self.businesses + 1):
            await self.start_business(number)
        return self

    async def __aexit__(self, *error: object) -> None:
        for name in reversed(list(self.parts)):
            await self.stop(name)
        await self._stack.aclose()

    @property
    def data(self) -> DataObject:
        """The data object, for calls without a wire."""
        found: DataObject = self.objects["bank.data"]
        return found

    def name_servers(self, handshake: object = None) -> NameServers:
        """Return a client of the name server."""
        return NameServers([self.location], handshake=handshake or SERVICE_HANDSHAKE)

    async def start_data(self) -> None:
        """Start the data object, on a new port, over the same store."""
        part = Part()
        log: OperationLog[DataEntry] = OperationLog(self.path / "bank.data.log", data_lines)
        part.stack.enter_context(log)
        self.ledger = SqliteLedger(self.path / "bank.sqlite")
        data = await part.stack.enter_async_context(
            open_data(self.ledger, log, **self.data_options)
        )
        await self._serve("bank.data", part, data)

    async def start_business(self, number: int) -> None:
        """Start a business object."""
        part = Part()
        name = f"bank.business.{number}"
        log: OperationLog[BusinessEntry] = OperationLog(self.path / f"{name}.log", business_lines)
        part.stack.enter_context(log)
        names = self.name_servers()
        part.stack.push_async_callback(names.aclose)
        caller = await part.stack.enter_async_context(
            Endpoints(names, "bank.data", handshake=SERVICE_HANDSHAKE, refresh_s=0.1)
        )
        business = await part.stack.enter_async_context(
            open_business(number, caller, log, **self.business_options)
        )
        authenticate = part.daemon._authenticate
        assert isinstance(authenticate, ServiceAuthenticator)
        authenticate.identify = business._identities.find
        await self._serve(name, part, business)

    async def _serve(self, name: str, part: Part, served: DataObject | BusinessObject) -> None:
        part.uri = str(part.daemon.register(served, name))
        await part.daemon.start()
        names = self.name_servers()
        part.stack.push_async_callback(names.aclose)
        announcer = Announcer(names, name, part.uri)
        await part.stack.enter_async_context(announcer)
        await announcer.announced.wait()
        self.parts[name] = part
        self.objects[name] = served

    async def stop(self, name: str) -> None:
        """End a service abruptly."""
        await self.parts.pop(name).stop()
        del self.objects[name]

    async def has_tickets(self, count: int) -> None:
        """Return when the data object has so many leases and waiting callers."""
        await eventually(lambda: self.data.figures()["tickets"] == count)

    def proxy(self, name: str, handshake: object = None, **options: Any) -> Proxy:
        """Return a proxy of a service, as a service unless *handshake* says otherwise."""
        return Proxy(self.parts[name].uri, handshake=handshake or SERVICE_HANDSHAKE, **options)

    async def token(self, client: int, role: str) -> str:
        """Make a token."""
        made: str = (await self.data.token_create(client, role))["token"]
        return made

    async def open_accounts(
        self, *accounts: int, balance: int = 1000, owner: int | None = None
    ) -> None:
        """Open accounts."""
        for account in accounts:
            await self.data.open_account(account, balance, owner)

    def balances(self, *accounts: int) -> list[int | None]:
        """Return balances, straight from the store."""
        return self.ledger.balances(accounts)

    def check_books(self) -> None:
        """Assert that all accounts, cash included, sum to nothing."""
        accounts = self.ledger._books.accounts
        assert accounts.total() == 0
        assert all((accounts.balance(account) or 0) >= 0 for account in accounts if account)

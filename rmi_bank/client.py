"""The bank for programs that await; for plain scripts see :mod:`rmi_bank.sync_client`.

Every change carries a request id, made here unless it is given. A call that failed, or whose
answer was lost, is repeated with the same id through whichever business object answers, until the
deadline: whatever happens in between, the change is made once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from ssl import SSLContext
from types import TracebackType
from typing import Any

from rmi_bank.errors import LockTimeout, StoreFull
from rmi_bank.operations import Refused
from rmi_bank.request_ids import new_request_id
from rmi_runtime import Endpoints, NameServers
from rmi_runtime.errors import (
    DeadlinePassed,
    Indefinite,
    InvalidRequest,
    Misused,
    RmiError,
    settles,
)

DEFAULT_NAME_SERVER = "127.0.0.1:9090"
DEFAULT_TIMEOUT_S = 10.0

_PAUSE_S_MAX = 0.5
_PASSING = (LockTimeout, StoreFull, DeadlinePassed)  # Endpoints sees to the rest


class BankClient:
    """An asyncio client of the bank; an async context manager::

        async with BankClient(token=token) as bank:
            await bank.transfer(1, 2, 50)

    Args:
        name_servers: ``host:port`` of each.
        token: the client's, or None if *handshake* is given.
        handshake: instead of a token, such as ``{"cluster_key": …}``.
        timeout_s: deadline of each call, repetitions included.
        ssl: client context for TLS (:func:`rmi_runtime.client_context`), or None.
    """

    def __init__(
        self,
        name_servers: Sequence[str] = (DEFAULT_NAME_SERVER,),
        *,
        token: str | None = None,
        handshake: object = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        ssl: SSLContext | None = None,
    ) -> None:
        shown = {"token": token} if token is not None else handshake or "hello"
        self._timeout_s = timeout_s
        # Look-ups are open to everybody, and a token is no business of a name server's.
        self._name_servers = NameServers(name_servers, handshake=handshake or "hello", ssl=ssl)
        self._business = Endpoints(
            self._name_servers,
            "bank.business.",
            handshake=shown,
            policy="less_busy",
            timeout_s=timeout_s,
        )
        self._loop: asyncio.AbstractEventLoop | None = None  # where it was entered

    async def __aenter__(self) -> BankClient:
        await self._business.__aenter__()
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop = None
        await self._business.__aexit__(kind, error, trace)
        await self._name_servers.aclose()

    async def deposit(
        self, account: int, amount: int, *, request_id: str | None = None
    ) -> dict[str, Any]:
        """Put *amount* minor units of cash into *account*.

        Args:
            account: its number.
            amount: minor units, 1 to 10**15.
            request_id: 1 to 200 printable characters; has one effect. None makes one.

        Returns:
            ``{"request_id", "balance", "commit"}``: minor units on the account after it.

        Raises:
            Definite: nothing was done; the class tells why (``InsufficientFunds``,
                ``UnknownAccount``, ``Forbidden``, ``Unavailable``, …).
            Indefinite: nobody knows. Call again with ``error.fields["request_id"]``.
        """
        return await self._change("deposit", account, amount, request_id=request_id)

    async def withdraw(
        self, account: int, amount: int, *, request_id: str | None = None
    ) -> dict[str, Any]:
        """Take *amount* minor units of cash out of *account*. Else as :meth:`deposit`."""
        return await self._change("withdraw", account, amount, request_id=request_id)

    async def transfer(
        self, source: int, target: int, amount: int, *, request_id: str | None = None
    ) -> dict[str, Any]:
        """Move *amount* minor units; the balance told is the source's. Else as :meth:`deposit`."""
        return await self._change("transfer", source, target, amount, request_id=request_id)

    async def open_account(
        self,
        account: int,
        balance: int = 0,
        owner: int | None = None,
        *,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """Open *account* for the client *owner* (needs the role admin). Else as :meth:`deposit`."""
        return await self._change("open_account", account, balance, owner, request_id=request_id)

    async def balance(self, account: int) -> int:
        """Return the minor units on *account*.

        Raises:
            RmiError: why it cannot be told.
        """
        found = await self._call("balance", account)
        balance: int = found["balance"]
        return balance

    async def statement(self, account: int, after: int = 0, limit: int = 100) -> dict[str, Any]:
        """Return journal lines of *account*, oldest first.

        Args:
            account: its number.
            after: lines above this one: the ``next`` of the page before.
            limit: most lines, 1 to 1,000.

        Returns:
            ``{"lines": [{"line", "commit", "at", "debit", "credit", "amount", "request_id"}],
            "next": line to go on after, or None}``
        """
        found: dict[str, Any] = await self._call("statement", account, after, limit)
        return found

    async def execute(self, operations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Do several operations in their order; each happens or is refused by itself.

        Args:
            operations: at most 4,096 dictionaries such as ``{"type": "transfer", "source": 1,
                "target": 2, "amount": 50}``; types are ``deposit``, ``withdrawal``, ``transfer``,
                ``balance`` and ``open``. A change without a ``request_id`` gets one.

        Returns:
            Per operation ``{"request_id", "status": "ok", "balance", "commit"}`` or
            ``{"request_id", "status": "error", "code", "message", "definite", "fields"}``.

        Raises:
            InvalidRequest: one of them is malformed; none was done.
            Definite: none was done.
            Indefinite: nobody knows. Call again with ``error.fields["request_ids"]``, in order.
        """
        keyed = [
            dict(operation)
            if "request_id" in operation or operation.get("type") == "balance"
            else {"request_id": new_request_id(), **operation}
            for operation in _dictionaries(operations)
        ]
        lost: list[Indefinite] = []
        try:
            found: list[dict[str, Any]] = await self._call("execute", keyed, lost=lost)
        except Indefinite as error:
            error.fields["request_ids"] = [operation.get("request_id") for operation in keyed]
            raise
        return list(map(_in_doubt, found)) if lost else found

    async def _change(self, method: str, *args: Any, request_id: str | None) -> dict[str, Any]:
        request_id = new_request_id() if request_id is None else request_id
        try:
            found: dict[str, Any] = await self._call(method, *args, request_id)
        except Indefinite as error:
            error.fields["request_id"] = request_id
            raise
        return found

    async def _call(self, method: str, *args: Any, lost: list[Indefinite] | None = None) -> Any:
        """Call until there is an answer that stands, or the deadline has come.

        Tries before it that may have been done are noted in *lost*.
        """
        if self._loop is not asyncio.get_running_loop():
            raise Misused(
                "use this client in an async with statement, on the loop where it was entered; "
                "nothing was sent"
            )
        deadline_s = time.monotonic() + self._timeout_s
        pause_s = 0.01
        in_doubt: Indefinite | None = None
        lost = [] if lost is None else lost
        while True:
            left_s = max(0.001, deadline_s - time.monotonic())
            try:
                return await self._business.call(
                    method, *args, timeout_s=left_s, repeatable=True, unsure=lost.append
                )
            except Indefinite as error:
                failure: RmiError = error
                in_doubt = error
                lost.append(error)
            except _PASSING as error:
                failure = error
            except RmiError as error:
                if in_doubt is None or settles(error):
                    raise
                raise in_doubt from error
            if time.monotonic() + pause_s >= deadline_s:
                raise in_doubt or failure
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)


def _in_doubt(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return what *outcome* is if an earlier try may have done the operation."""
    if outcome["status"] == "ok":
        return outcome
    told = ("code", "message", "definite", "fields")
    refused = Refused(*(outcome[name] for name in told)).after_lost_reply()
    return {**outcome, **{name: getattr(refused, name) for name in told}}


def _dictionaries(operations: object) -> list[Mapping[str, Any]]:
    if isinstance(operations, (str, bytes, Mapping)) or not isinstance(operations, Iterable):
        raise InvalidRequest(
            f"operations must be a list of dictionaries, not {type(operations).__name__}",
            field="operations",
        )
    listed = list(operations)
    for place, operation in enumerate(listed):
        if not isinstance(operation, Mapping):
            raise InvalidRequest(
                f"operation {place} must be a dictionary, not {type(operation).__name__}",
                field="operations",
            )
    return listed

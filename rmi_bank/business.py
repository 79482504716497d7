"""The business object (Pyro name ``bank.business.N``): what clients of the bank talk to.

Calls that come while others are under way are gathered into rounds: one lock, one decision, one
commit for hundreds of operations of many callers. It keeps no state: any business object may be
asked, and asked again, with the same request id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from rmi_bank import operations as op
from rmi_bank import rules
from rmi_bank.execution import PATIENCE_S, DataCaller, Execution
from rmi_bank.operations import Done, Outcome, Principal, Refused, Request
from rmi_bank.oplines import BusinessEntry, business_entry, business_lines
from rmi_bank.request_ids import new_request_id
from rmi_bank.rounds import Rounds
from rmi_bank.values import checked_int, checked_limit
from rmi_runtime import (
    Endpoints,
    Identities,
    OperationLog,
    ServiceContext,
    Settings,
    allow,
    current_call,
    expose,
    run_service,
)
from rmi_runtime.errors import InvalidRequest

T = TypeVar("T")

SERVICE_CLIENT = 0
"""The client number of what services do on their own behalf."""

REPLY_S_MAX = 0.25
"""How long before the caller's deadline to give up, at most."""


@expose
@allow("client", "service")
class BusinessObject:
    """Deposits, withdrawals, transfers and balances, each done once per request id.

    A caller known by a token acts for its client, in its role. A service acts as a teller (and as
    an admin where it opens an account), as client 0.

    Args:
        business_id: its number, from 1.
        data: how the data object is called.
        op_log: gets a line per operation that was done, or None.
        call_timeout_s: how long callers wait who do not say.
        lock_wait_s: longest wait for a lock before it is asked for again.
        round_max: most operations gathered into one round; above 4,096, which a batch may have,
            it counts as that: the data object takes no more in one commit.
        queue_max: most operations that wait for a round.
    """

    def __init__(
        self,
        business_id: int,
        data: DataCaller,
        op_log: OperationLog[BusinessEntry] | None = None,
        *,
        call_timeout_s: float = 10.0,
        lock_wait_s: float = 5.0,
        round_max: int = 1024,
        queue_max: int = 16384,
    ) -> None:
        self._data = data
        self._op_log = op_log
        self._call_timeout_s = call_timeout_s
        self._execution = Execution(data, business_id, lock_wait_s=lock_wait_s)
        round_max = min(round_max, op.OPERATIONS_MAX)
        rounds = partial(Rounds, round_max=round_max, queue_max=queue_max)
        patiently = partial(self._change, patience_s=lock_wait_s)
        self._changes = rounds(self._change, probe=self._execution.probe, patiently=patiently)
        self._reads = rounds(self._read)
        self._identities = Identities(self._ask_identity)

    def deposit(self, account: int, amount: int, request_id: str) -> Awaitable[dict[str, Any]]:
        """Put cash into an account.

        Args:
            account: its number.
            amount: minor units, 1 to 10**15.
            request_id: 1 to 200 printable characters, made by the caller; has one effect.

        Returns:
            ``{"request_id", "balance", "commit"}``: minor units on the account after it.

        Raises:
            InvalidRequest, UnknownAccount, AnotherAccount, BalanceLimit, RequestIdReused: nothing
                was done, and trying again is no use.
            Unavailable, LockTimeout, Overloaded, StoreFull: nothing was done; try again.
            Interrupted: nobody knows; ask again with the same request id.
        """
        return self._do_one(
            {"type": "deposit", "account": account, "amount": amount, "request_id": request_id}
        )

    def withdraw(self, account: int, amount: int, request_id: str) -> Awaitable[dict[str, Any]]:
        """Take cash out of an account.

        Arguments, result and errors are those of :meth:`deposit`.

        Raises:
            InsufficientFunds: the balance is below the amount.
        """
        return self._do_one(
            {"type": "withdrawal", "account": account, "amount": amount, "request_id": request_id}
        )

    def transfer(
        self, source: int, target: int, amount: int, request_id: str
    ) -> Awaitable[dict[str, Any]]:
        """Move money between accounts.

        Arguments, result (the balance is the source's) and errors are those of :meth:`withdraw`.

        Raises:
            SameAccount: source and target are the same.
        """
        accounts = {"source": source, "target": target}
        return self._do_one(
            {"type": "transfer", **accounts, "amount": amount, "request_id": request_id}
        )

    def balance(self, account: int) -> Awaitable[dict[str, Any]]:
        """Read a balance.

        Returns:
            ``{"account", "balance", "commit"}``: minor units, as of a commit number that no commit
            answered before this call exceeds.

        Raises:
            InvalidRequest, UnknownAccount, AnotherAccount: as they say.
            Unavailable, Overloaded: try again.
        """
        operation = op.parse_operation({"type": "balance", "account": account})
        return self._submit([(self._principal(), operation)], partial(_shown, {"account": account}))

    async def statement(self, account: int, after: int = 0, limit: int = 100) -> dict[str, Any]:
        """Read the journal lines of an account, oldest first.

        Args:
            account: its number.
            after: lines above this one: the ``next`` of the page before.
            limit: most lines, 1 to 1,000.

        Returns:
            ``{"lines": [{"line", "commit", "at", "debit", "credit", "amount", "request_id"}],
            "next": line to go on after, or None}``

        Raises:
            InvalidRequest, UnknownAccount, AnotherAccount: as they say.
        """
        return await self._statement(self._principal(), account, after, limit)

    @allow("admin", "service")
    async def open_account(
        self,
        account: int,
        balance: int = 0,
        owner: int | None = None,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """Open an account.

        Args:
            account: its number, 1 to 2**53.
            balance: minor units of cash to put on it.
            owner: client whose it is, or None.
            request_id: as in :meth:`deposit`; None makes one, and then nobody can ask again.

        Returns:
            ``{"request_id", "balance", "commit"}``

        Raises:
            AccountExists: it has been opened before.
            Exception: else as :meth:`deposit`.
        """
        principal = self._principal()._replace(role=rules.ADMIN)
        fields = {"account": account, "balance": balance, "owner": owner}
        request_id = new_request_id() if request_id is None else request_id
        return await self._do_one({"type": "open", **fields, "request_id": request_id}, principal)

    def execute(self, operations: Sequence[Mapping[str, Any]]) -> Awaitable[list[dict[str, Any]]]:
        """Do several operations in their order; each happens or is refused by itself.

        Args:
            operations: at most 4,096 dictionaries: ``type`` (``deposit``, ``withdrawal``,
                ``transfer``, ``balance``, ``open``) and the arguments of :meth:`deposit`,
                :meth:`withdraw` and so on, by name. A ``request_id`` of a ``balance`` is told back.

        Returns:
            One dictionary per operation: ``{"request_id", "status": "ok", "balance", "commit"}`` or
            ``{"request_id", "status": "error", "code", "message", "definite", "fields"}``.

        Raises:
            InvalidRequest: one of them is malformed or out of range; none was done.
            Unavailable, Overloaded, LockTimeout, StoreFull: none was done. If some are known to
                have been done before, these are told, and only the others refused with that.
            Interrupted: nobody knows; ask again with the same request ids. The same holds.
        """
        principal = self._principal()
        if not isinstance(operations, (list, tuple)):
            raise InvalidRequest("operations must be a list", field="operations")
        op.check_size(len(operations))
        requests = [(principal, operation) for operation in op.parse_batch(operations)]
        return self._submit(requests, partial(op.outcome_dicts, requests))

    @allow("service")
    def execute_packed(self, batch: bytes, loose: bool = False) -> Awaitable[bytes]:
        """Do a batch of operations of many clients: what gateways call.

        Args:
            batch: see :func:`rmi_bank.operations.pack_batch`.
            loose: they have nothing to do with each other: one that needs what somebody holds for
                long is refused (``lock_timeout``), and the others do not wait for it.

        Returns:
            See :func:`rmi_bank.operations.pack_outcomes`.

        Raises:
            InvalidRequest: it cannot be read; none was done.
            Exception: else as :meth:`execute`.
        """
        if not isinstance(batch, (bytes, bytearray)):
            raise InvalidRequest("the batch must be bytes", field="batch")
        return self._submit(op.unpack_batch(batch), op.pack_outcomes, loose is True)

    @allow("service")
    async def statement_for(
        self, client: int, role: str, account: int, after: int = 0, limit: int = 100
    ) -> dict[str, Any]:
        """Do :meth:`statement` on behalf of a client: what gateways call."""
        principal = Principal(checked_int("client", client, 0, op.ACCOUNT_MAX), str(role))
        return await self._statement(principal, account, after, limit)

    @allow("service")
    async def identify(self, token_hash: str) -> dict[str, Any] | None:
        """Say whose token it is.

        Args:
            token_hash: SHA-256 of the token, in hex.

        Returns:
            ``{"client", "role"}``, or None if it is fake, revoked or expired.
        """
        known = isinstance(token_hash, str)
        identity = await self._identities.find(token_hash) if known else None
        return None if identity is None else {"client": identity.client, "role": identity.role}

    async def _ask_identity(self, token_hash: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._data.call(
            "identify", token_hash, timeout_s=self._call_timeout_s, repeatable=True
        )
        return found

    async def _close(self) -> None:
        await self._changes.aclose()
        await self._reads.aclose()

    def _principal(self) -> Principal:
        identity = current_call().identity
        if identity.kind == "client" and identity.client is not None:
            return Principal(identity.client, identity.role or "")
        return Principal(SERVICE_CLIENT, rules.TELLER)

    def _deadline_s(self) -> float:
        """Return when to give up: early enough for the caller to hear what is known then."""
        left_s = current_call().remaining_s(self._call_timeout_s)
        return time.monotonic() + left_s - min(REPLY_S_MAX, left_s / 8)

    def _do_one(
        self, data: dict[str, Any], principal: Principal | None = None
    ) -> asyncio.Future[dict[str, Any]]:
        operation = op.parse_operation(data)
        return self._submit(
            [(principal or self._principal(), operation)],
            partial(_shown, {"request_id": data["request_id"]}),
        )

    def _submit(
        self, requests: list[Request], form: Callable[[list[Outcome]], T], loose: bool = False
    ) -> asyncio.Future[T]:
        reads_only = all(type(operation) is op.BalanceQuery for _, operation in requests)
        rounds = self._reads if reads_only else self._changes
        return rounds.submit(requests, self._deadline_s(), form, loose=loose)

    async def _change(
        self, requests: list[Request], deadline_s: float, patience_s: float = PATIENCE_S
    ) -> list[Outcome]:
        outcomes, done = await self._execution.change(requests, deadline_s, patience_s)
        self._log([requests[place] for place in done])
        return outcomes

    async def _read(self, requests: list[Request], deadline_s: float) -> list[Outcome]:
        outcomes = await self._execution.read(requests, deadline_s)
        pairs = zip(requests, outcomes, strict=True)
        self._log([request for request, outcome in pairs if type(outcome) is Done])
        return outcomes

    async def _statement(
        self, principal: Principal, account: int, after: int, limit: int
    ) -> dict[str, Any]:
        checked_int("account", account, 1, op.ACCOUNT_MAX)
        checked_int("after", after, 0, 2**63 - 1)
        checked_limit(limit)
        timeout_s = self._deadline_s() - time.monotonic()
        found: dict[str, Any] = await self._data.call(
            "statement", account, after, limit, timeout_s=timeout_s, repeatable=True
        )
        rules.check_reader(principal, account, found.pop("owner"))
        return found

    def _log(self, requests: list[Request]) -> None:
        if self._op_log is not None:
            entries = map(business_entry, requests)
            self._op_log.append(entry for entry in entries if entry is not None)


@asynccontextmanager
async def open_business(
    business_id: int,
    data: DataCaller,
    op_log: OperationLog[BusinessEntry] | None = None,
    **options: Any,
) -> AsyncIterator[BusinessObject]:
    """Make a business object; on the way out, finish what it has gathered.

    Args:
        business_id: its number, from 1.
        data: how the data object is called.
        op_log: gets a line per operation that was done, or None.
        options: see :class:`BusinessObject`.
    """
    business = BusinessObject(business_id, data, op_log, **options)
    try:
        yield business
    finally:
        await business._close()


async def run_business(
    settings: Settings, business_id: int, *, stop: asyncio.Event | None = None
) -> None:
    """Run the service ``bank.business.N`` until it is told to stop.

    Args:
        settings: the settings in force.
        business_id: N, from 1.
        stop: set it to stop. None: SIGTERM, SIGINT and SIGHUP stop it.
    """

    @asynccontextmanager
    async def build(context: ServiceContext) -> AsyncIterator[BusinessObject]:
        with OperationLog(context.log_path, business_lines, limits=context.log_limits) as op_log:
            async with (
                Endpoints(
                    context.name_servers,
                    "bank.data",
                    handshake=context.cluster_handshake,
                    timeout_s=settings.call_timeout_s,
                ) as data,
                open_business(
                    business_id,
                    data,
                    op_log,
                    call_timeout_s=settings.call_timeout_s,
                    lock_wait_s=settings.lock_wait_s,
                    round_max=settings.batch_max,
                    queue_max=settings.queue_max,
                ) as business,
            ):
                context.identify = business._identities.find
                yield business

    await run_service(f"bank.business.{business_id}", build, settings, stop=stop)


def _shown(answer: dict[str, Any], outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the answer to a single operation; raise what it was refused for."""
    (outcome,) = outcomes
    if isinstance(outcome, Refused):
        raise outcome.to_error()
    answer["balance"], answer["commit"] = outcome.balance, outcome.commit
    return answer


if __name__ == "__main__":
    raise SystemExit("this module is no command; the service is started with: rmi business --id 1")

"""The bank as a gateway sees it: one object that turns many callers' requests into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from rmi_bank import operations as op
from rmi_bank.errors import LockTimeout
from rmi_bank.operations import Operation, Outcome, Principal, Refused, Request
from rmi_runtime import Coalescer, Identities, Identity, hash_token
from rmi_runtime.errors import (
    Forbidden,
    Indefinite,
    Interrupted,
    InvalidRequest,
    Overloaded,
    RmiError,
    settles,
)

SENDS_UNDER_WAY = 2
"""Batches of one kind on their way to business objects at once."""

ALONE_MAX = 1024
"""Most operations that wait, each by itself, for what somebody holds for long."""


class BusinessCaller(Protocol):
    """How business objects are called; ``Endpoints("bank.business.", policy="less_busy")`` fits."""

    async def call(
        self,
        method: str,
        *args: Any,
        repeatable: bool = False,
        unsure: Callable[[Indefinite], None] | None = None,
    ) -> Any:
        """Call a method of one of the business objects; *unsure* hears of tries without a reply."""


class BankGateway:
    """Asks the bank on behalf of clients whose tokens were shown to the gateway.

    Operations that come while others are under way leave as one batch. Operations that only read
    go in batches of their own, so that they wait for no lock.

    Args:
        endpoints: the business objects; our handshake with them must be the cluster key's.
        batch_max: most operations in a batch.
        queue_max: most operations of one kind that wait.
        wait_s_max: how long they may wait to be sent; then they are refused.
    """

    def __init__(
        self,
        endpoints: BusinessCaller,
        *,
        batch_max: int = 1024,
        queue_max: int = 16384,
        wait_s_max: float = 10.0,
    ) -> None:
        self._endpoints = endpoints
        self._identities = Identities(self._ask_identity)
        self._alone = 0
        self._changes = self._coalescer(batch_max, queue_max, wait_s_max)
        self._reads = self._coalescer(batch_max, queue_max, wait_s_max)

    def _coalescer(
        self, batch_max: int, queue_max: int, wait_s_max: float
    ) -> Coalescer[Request, Outcome]:
        return Coalescer(
            self._send_apart_if_need_be,
            batch_max=min(batch_max, op.OPERATIONS_MAX),
            queue_max=queue_max,
            concurrency=SENDS_UNDER_WAY,
            wait_s_max=wait_s_max,
        )

    async def aclose(self) -> None:
        """Take nothing new, and finish what is under way."""
        await self._changes.aclose()
        await self._reads.aclose()

    def identify(self, token: str) -> Coroutine[Any, Any, Identity | None]:
        """Return whose token it is; None if it is fake, revoked (for a second or two) or expired.

        Raises:
            Unavailable: nobody could be asked.
        """
        return self._identities.find(hash_token(token))

    async def execute(self, identity: Identity, operation: Operation) -> dict[str, Any]:
        """Do one operation.

        Args:
            identity: of a client, from :meth:`identify`.
            operation: what to do.

        Returns:
            ``{"request_id", "balance", "commit"}``; no ``request_id`` for a balance query.

        Raises:
            RmiError: why it was not done, or (not definite) may not have been.
        """
        queue = self._reads if isinstance(operation, op.BalanceQuery) else self._changes
        request = (_principal(identity), operation)
        outcome = await queue.submit_nowait(request)
        if isinstance(outcome, Refused) and outcome.code == LockTimeout.code:
            outcome = await self._wait_alone(request, in_doubt=not outcome.definite)
        if isinstance(outcome, Refused):
            raise outcome.to_error()
        if isinstance(operation, op.BalanceQuery):
            return {"balance": outcome.balance, "commit": outcome.commit}
        return {
            "request_id": operation.request_id,
            "balance": outcome.balance,
            "commit": outcome.commit,
        }

    async def execute_many(
        self, identity: Identity, operations: Sequence[Operation]
    ) -> list[dict[str, Any]]:
        """Do several operations in their order; each happens or is refused by itself.

        Args:
            identity: of a client.
            operations: at most 4,096.

        Returns:
            Per operation ``{"request_id", "status": "ok", "balance", "commit"}`` or
            ``{"request_id", "status": "error", "code", "message", "definite", "fields"}``.

        Raises:
            RmiError: of the batch as a whole.
        """
        principal = _principal(identity)
        requests: list[Request] = [(principal, operation) for operation in operations]
        return op.outcome_dicts(requests, await self._send(requests))

    async def balance(self, identity: Identity, account: int) -> dict[str, Any]:
        """Read a balance.

        Returns:
            ``{"account", "balance", "commit"}``

        Raises:
            RmiError: why it cannot be told.
        """
        found = await self.execute(identity, op.BalanceQuery(account))
        return {"account": account, **found}

    async def statement(
        self, identity: Identity, account: int, after: int = 0, limit: int = 100
    ) -> dict[str, Any]:
        """Read journal lines of an account; see :meth:`BusinessObject.statement`."""
        client, role = _principal(identity)
        found: dict[str, Any] = await self._endpoints.call(
            "statement_for", client, role, account, after, limit, repeatable=True
        )
        return found

    async def open_account(
        self, identity: Identity, account: int, balance: int, owner: int | None, request_id: str
    ) -> dict[str, Any]:
        """Open an account; see :meth:`BusinessObject.open_account`."""
        return await self.execute(identity, op.OpenAccount(account, request_id, balance, owner))

    async def _ask_identity(self, token_hash: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._endpoints.call(
            "identify", token_hash, repeatable=True
        )
        return found

    async def _wait_alone(self, request: Request, *, in_doubt: bool) -> Outcome:
        """Send an operation by itself, since somebody holds for long what it needs.

        Args:
            request: for whom, and what.
            in_doubt: it may have been done before.

        Raises:
            Overloaded: too many wait like this.
            Interrupted: it was not done now, but may have been before.
        """
        try:
            return await self._send_alone(request)
        except RmiError as error:
            if in_doubt and not settles(error):
                raise Interrupted(
                    f"no answer came to an earlier try ({error.message}); ask again with the same "
                    "request id"
                ) from error
            raise

    async def _send_alone(self, request: Request) -> Outcome:
        if self._alone >= ALONE_MAX:
            raise Overloaded(
                f"{self._alone} operations wait for accounts that are held for long, which is the "
                "bound; try again shortly",
                retry_after_s=1,
            )
        self._alone += 1
        try:
            # Who asks may have no task, which connecting to a service needs.
            return (await asyncio.create_task(self._send([request])))[0]
        finally:
            self._alone -= 1

    async def _send(self, requests: list[Request], loose: bool = False) -> list[Outcome]:
        if not requests:
            return []
        lost: list[Indefinite] = []
        packed = await self._endpoints.call(
            "execute_packed", op.pack_batch(requests), loose, repeatable=True, unsure=lost.append
        )
        outcomes = op.unpack_outcomes(packed)
        # What is refused for now may have been done by a try whose reply was lost.
        return [_in_doubt(outcome) for outcome in outcomes] if lost else outcomes

    async def _send_apart_if_need_be(
        self, requests: list[Request]
    ) -> Sequence[Outcome | BaseException]:
        """Send a batch; what is invalid, or too much at once, must not harm the others in it."""
        try:
            return await self._send(requests, loose=True)
        except InvalidRequest as error:
            if len(requests) == 1:
                return [error]
        half = len(requests) // 2
        results: list[Outcome | BaseException] = []
        for part in (requests[:half], requests[half:]):
            try:
                results += await self._send_apart_if_need_be(part)
            except Exception as error:  # it is no word on the other half
                results += [error] * len(part)
        return results


def _in_doubt(outcome: Outcome) -> Outcome:
    """Return what *outcome* is if an earlier try may have done the operation."""
    if not isinstance(outcome, Refused):
        return outcome
    if outcome.code == LockTimeout.code:  # who waits alone may find it out yet
        outcome.definite = False
        return outcome
    return outcome.after_lost_reply()


def _principal(identity: Identity) -> Principal:
    if identity.kind != "client" or identity.client is None:
        raise Forbidden("only clients, known by their tokens, have business with the bank here")
    return Principal(identity.client, identity.role or "")

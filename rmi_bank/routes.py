"""The bank over HTTP: resources for ``/bank/*``.

The order of checks is the same everywhere: path and method (404, 405), who asks (401, 403), the
``Idempotency-Key`` (422), the media type (415), the body (400, 422), and then the bank's own word
(403, 404, 409, 422, 503). So a stranger never makes us parse anything.

Every change has a request id, the ``Idempotency-Key`` or one made here. The answer names it, also
if that is a problem: asking again with that id as the key does the change once, however often.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import falcon.asgi
import msgspec

from rmi_bank.errors import SameAccount, UnknownAccount
from rmi_bank.http_bodies import (
    BATCH_TYPES,
    AccountAnswer,
    AccountBody,
    BatchAnswer,
    BatchBalance,
    BatchBody,
    BatchDeposit,
    BatchItem,
    BatchWithdrawal,
    CashBody,
    Receipt,
    StatementAnswer,
    TransferBody,
)
from rmi_bank.operations import (
    ACCOUNT_MAX,
    BalanceQuery,
    Deposit,
    Operation,
    Transfer,
    Withdrawal,
)
from rmi_bank.request_ids import keyed_request_id, new_request_id
from rmi_runtime import Identity, errors
from rmi_runtime.http import (
    Answer,
    HeadersByName,
    HttpProblem,
    JsonBody,
    Parameter,
    Route,
    bearer_token,
    describe,
    direct,
    headers_of,
    idempotency_key,
    invalid,
    plain,
    problem_of,
    query_fields,
    whole_number,
)

STATEMENT_LIMIT_MAX = 1000
STATEMENT_LIMIT_DEFAULT = 100

_encode = msgspec.json.Encoder().encode

_ACCOUNT = Parameter(
    "account", "the account's number", {"type": "integer", "minimum": 0}, place="path"
)
_CHANGE_PROBLEMS = (404, 409, 415, 422)


class Bank(Protocol):
    """What these routes need of the bank; :class:`rmi_bank.BankGateway` has it."""

    async def identify(self, token: str) -> Identity | None:
        """Return whose token it is, or None."""

    async def execute(self, identity: Identity, operation: Any) -> dict[str, Any]:
        """Do one operation; return its outcome or raise its error."""

    async def execute_many(
        self, identity: Identity, operations: Sequence[Any]
    ) -> list[dict[str, Any]]:
        """Do several operations; return their outcomes, each with its own status."""

    async def balance(self, identity: Identity, account: int) -> dict[str, Any]:
        """Return the balance of an account."""

    async def statement(
        self, identity: Identity, account: int, after: int, limit: int
    ) -> dict[str, Any]:
        """Return journal lines of an account, and where to go on."""

    async def open_account(
        self, identity: Identity, account: int, balance: int, owner: int | None, request_id: str
    ) -> dict[str, Any]:
        """Open an account."""


class _BankResource:
    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def admit(self, headers: HeadersByName) -> None:
        """Raise what a caller is told who may not ask this at all."""
        await self._caller(headers)

    async def _caller(self, headers: HeadersByName) -> Identity:
        identity = await self._bank.identify(bearer_token(headers))
        if identity is None:
            raise errors.Forbidden("Forbidden")
        return identity

    async def _change(
        self, identity: Identity, operation: Deposit | Withdrawal | Transfer
    ) -> Answer:
        try:
            outcome = await self._bank.execute(identity, operation)
        except errors.RmiError as error:
            raise problem_of(error, request_id=operation.request_id) from error
        return Answer(_encode(outcome), 201)


class Deposits(_BankResource):
    """Cash in."""

    _body: JsonBody[CashBody] = JsonBody(CashBody)

    @describe(
        summary="Put cash into an account",
        body=CashBody,
        status=201,
        answer=Receipt,
        keyed=True,
        token=True,
        problems=_CHANGE_PROBLEMS,
    )
    @direct
    async def on_post(self, headers: HeadersByName, body: bytes) -> Answer:
        """Make a deposit."""
        identity = await self._caller(headers)
        request_id = idempotency_key(headers) or new_request_id()
        asked = self._body.read(headers, body)
        operation = Deposit(asked.account, asked.amount, request_id)
        return await self._change(identity, operation)


class Withdrawals(_BankResource):
    """Cash out."""

    _body: JsonBody[CashBody] = JsonBody(CashBody)

    @describe(
        summary="Take cash out of an account",
        body=CashBody,
        status=201,
        answer=Receipt,
        keyed=True,
        token=True,
        problems=_CHANGE_PROBLEMS,
    )
    @direct
    async def on_post(self, headers: HeadersByName, body: bytes) -> Answer:
        """Make a withdrawal."""
        identity = await self._caller(headers)
        request_id = idempotency_key(headers) or new_request_id()
        asked = self._body.read(headers, body)
        operation = Withdrawal(asked.account, asked.amount, request_id)
        return await self._change(identity, operation)


class Transfers(_BankResource):
    """From one account to another."""

    _body: JsonBody[TransferBody] = JsonBody(TransferBody)

    @describe(
        summary="Move money from one account to another",
        body=TransferBody,
        status=201,
        answer=Receipt,
        keyed=True,
        token=True,
        problems=_CHANGE_PROBLEMS,
    )
    @direct
    async def on_post(self, headers: HeadersByName, body: bytes) -> Answer:
        """Make a transfer."""
        identity = await self._caller(headers)
        request_id = idempotency_key(headers) or new_request_id()
        asked = self._body.read(headers, body)
        if asked.source == asked.target:
            raise _same_account("target")
        operation = Transfer(asked.source, asked.target, asked.amount, request_id)
        return await self._change(identity, operation)


class Batches(_BankResource):
    """Many operations in one request."""

    _body: JsonBody[BatchBody] = JsonBody(BatchBody, BATCH_TYPES)

    @describe(
        summary="Do many operations; each has its own outcome",
        body=BatchBody,
        status=200,
        answer=BatchAnswer,
        keyed=True,
        token=True,
        problems=(415, 422),
        text="If one operation is malformed (400) or out of range (422), none is done. Otherwise "
        "each one happens, or is refused, by itself: look at each outcome's status. An operation "
        "without a request_id gets one from the Idempotency-Key and its place in the batch.",
    )
    @plain
    async def on_post(self, headers: HeadersByName, body: bytes) -> Answer:
        """Do a batch."""
        identity = await self._caller(headers)
        key = idempotency_key(headers)
        asked = self._body.read(headers, body)
        operations = [_operation(place, item, key) for place, item in enumerate(asked.operations)]
        try:
            outcomes = await self._bank.execute_many(identity, operations)
        except errors.RmiError as error:
            ids = [getattr(operation, "request_id", None) for operation in operations]
            raise problem_of(error, request_ids=ids) from error
        return Answer(_encode({"outcomes": outcomes}))


class Accounts(_BankResource):
    """All accounts."""

    _body: JsonBody[AccountBody] = JsonBody(AccountBody)

    async def _caller(self, headers: HeadersByName) -> Identity:
        identity = await super()._caller(headers)
        if identity.role != "admin":
            raise errors.Forbidden("only the role admin opens accounts")
        return identity

    @describe(
        summary="Open an account (role admin)",
        body=AccountBody,
        status=201,
        answer=AccountAnswer,
        keyed=True,
        token=True,
        problems=(409, 415, 422),
    )
    @plain
    async def on_post(self, headers: HeadersByName, body: bytes) -> Answer:
        """Open an account."""
        identity = await self._caller(headers)
        request_id = idempotency_key(headers) or new_request_id()
        asked = self._body.read(headers, body)
        try:
            await self._bank.open_account(
                identity, asked.account, asked.balance, asked.owner, request_id
            )
        except errors.RmiError as error:
            raise problem_of(error, request_id=request_id) from error
        return Answer(_encode({"account": asked.account, "balance": asked.balance}), 201)


class OneAccount(_BankResource):
    """One account."""

    @describe(
        summary="The balance of an account",
        answer=AccountAnswer,
        token=True,
        parameters=(_ACCOUNT,),
        problems=(404,),
    )
    async def on_get(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, account: int
    ) -> None:
        """Show the balance."""
        identity = await self._caller(headers_of(req))
        _check_account(account)
        found = await self._bank.balance(identity, account)
        resp.data = _encode({"account": account, "balance": found["balance"]})


class Statement(_BankResource):
    """The journal lines of one account."""

    @describe(
        summary="The journal lines of an account, oldest first",
        answer=StatementAnswer,
        token=True,
        parameters=(
            _ACCOUNT,
            Parameter(
                "after",
                "start behind this line: the `next` of the page before",
                {"type": "integer", "minimum": 0, "maximum": ACCOUNT_MAX, "default": 0},
            ),
            Parameter(
                "limit",
                "lines on the page",
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": STATEMENT_LIMIT_MAX,
                    "default": STATEMENT_LIMIT_DEFAULT,
                },
            ),
        ),
        problems=(404, 422),
    )
    async def on_get(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, account: int
    ) -> None:
        """Show a page."""
        identity = await self._caller(headers_of(req))
        _check_account(account)
        fields = query_fields(req)
        after = whole_number(fields, "after", default=0, high=ACCOUNT_MAX)
        limit = whole_number(
            fields, "limit", default=STATEMENT_LIMIT_DEFAULT, low=1, high=STATEMENT_LIMIT_MAX
        )
        resp.data = _encode(await self._bank.statement(identity, account, after, limit))


def bank_routes(bank: Bank) -> list[Route]:
    """Return the routes of the bank.

    Args:
        bank: the bank, usually a :class:`rmi_bank.BankGateway`.
    """
    number = {"account": "number"}
    return [
        Route("/bank/accounts", Accounts(bank)),
        Route("/bank/accounts/{account}", OneAccount(bank), number),
        Route("/bank/accounts/{account}/statement", Statement(bank), number),
        Route("/bank/deposits", Deposits(bank)),
        Route("/bank/withdrawals", Withdrawals(bank)),
        Route("/bank/transfers", Transfers(bank)),
        Route("/bank/batches", Batches(bank)),
    ]


def _operation(place: int, item: BatchItem, key: str | None) -> Operation:
    """Return the operation that *item* of a batch asks for; *key* is the batch's."""
    given = item.request_id
    if given is msgspec.UNSET:
        if isinstance(item, BatchBalance):
            return BalanceQuery(item.account)
        request_id = new_request_id() if key is None else keyed_request_id(key, place)
    elif given.isascii() and given.isprintable():
        request_id = given
    else:
        raise _bad_request_id(place)
    if isinstance(item, BatchBalance):
        return BalanceQuery(item.account, request_id)
    if isinstance(item, BatchDeposit):
        return Deposit(item.account, item.amount, request_id)
    if isinstance(item, BatchWithdrawal):
        return Withdrawal(item.account, item.amount, request_id)
    if item.source == item.target:
        raise _same_account(f"operations[{place}].target")
    return Transfer(item.source, item.target, item.amount, request_id)


def _bad_request_id(place: int) -> HttpProblem:
    return invalid(f"operations[{place}].request_id", "must be printable ASCII characters")


def _same_account(field: str) -> SameAccount:
    return SameAccount(f"{field}: is the source too; a transfer needs two accounts", field=field)


def _check_account(account: int) -> None:
    if not 1 <= account <= ACCOUNT_MAX:
        raise UnknownAccount(f"there is no account {account}", account=account)

"""Objects in memory in place of the two gateways, and a client of the application over them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import msgspec

from rmi_bank.errors import (
    AccountExists,
    AnotherAccount,
    InsufficientFunds,
    RequestIdReused,
    UnknownAccount,
)
from rmi_bank.operations import BalanceQuery, Deposit, Transfer, Withdrawal
from rmi_msg.gateway_app import gateway_app
from rmi_msg.gateway_metrics import GatewayMetrics
from rmi_msg.gateway_pages import GatewayPages
from rmi_runtime import Identity
from rmi_runtime.errors import InvalidRequest, RmiError

TELLER = {"Authorization": "Bearer teller-1"}
CUSTOMER = {"Authorization": "Bearer customer-2"}
ADMIN = {"Authorization": "Bearer admin-3"}


class FakeBank:
    """Accounts in a dictionary; the rules that the routes' tests need, and no more."""

    def __init__(self) -> None:
        self.tokens = {
            "teller-1": Identity("client", 1, "teller"),
            "customer-2": Identity("client", 2, "customer"),
            "admin-3": Identity("client", 3, "admin"),
        }
        self.balances = {1: 1000, 2: 1000}
        self.outcomes: dict[str, tuple[Any, dict[str, Any]]] = {}
        self.operations: list[Any] = []
        self.error: Exception | None = None
        self.statement_args: tuple[Any, ...] = ()
        self.tokens_asked_for: list[str] = []

    async def identify(self, token: str) -> Identity | None:
        self.tokens_asked_for.append(token)
        return self.tokens.get(token)

    async def execute(self, identity: Identity, operation: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        known = self.outcomes.get(operation.request_id)
        if known is not None:
            if known[0] != operation:
                raise RequestIdReused("used for another one", request_id=operation.request_id)
            return known[1]
        self.operations.append(operation)
        balance = self._apply(identity, operation)
        commit = len(self.operations)
        outcome = {"request_id": operation.request_id, "balance": balance, "commit": commit}
        self.outcomes[operation.request_id] = (operation, outcome)
        return outcome

    async def execute_many(
        self, identity: Identity, operations: Sequence[Any]
    ) -> list[dict[str, Any]]:
        if self.error is not None:
            raise self.error
        outcomes = []
        for operation in operations:
            request_id = getattr(operation, "request_id", None)
            try:
                if isinstance(operation, BalanceQuery):
                    balance = self._check(identity, operation.account)
                    outcome = {"request_id": request_id, "balance": balance, "commit": 0}
                else:
                    outcome = await self.execute(identity, operation)
                outcomes.append({"status": "ok", **outcome})
            except RmiError as error:
                outcomes.append(
                    {
                        "request_id": request_id,
                        "status": "error",
                        "code": error.code,
                        "message": error.message,
                        "definite": error.definite,
                        "fields": error.fields,
                    }
                )
        return outcomes

    async def balance(self, identity: Identity, account: int) -> dict[str, Any]:
        return {"account": account, "balance": self._check(identity, account), "commit": 7}

    async def statement(
        self, identity: Identity, account: int, after: int, limit: int
    ) -> dict[str, Any]:
        self._check(identity, account)
        self.statement_args = (after, limit)
        line = {"line": 1, "commit": 1, "at": "2026-01-01T00:00:00Z", "debit": 0, "credit": 1}
        return {"lines": [{**line, "amount": 5, "request_id": "r"}], "next": None}

    async def open_account(
        self, identity: Identity, account: int, balance: int, owner: int | None, request_id: str
    ) -> dict[str, Any]:
        if account in self.balances:
            raise AccountExists("it is open", account=account)
        self.balances[account] = balance
        return {"request_id": request_id, "balance": balance, "commit": 1}

    def _check(self, identity: Identity, account: int) -> int:
        if account not in self.balances:
            raise UnknownAccount(f"there is no account {account}", account=account)
        if identity.role == "customer" and identity.client != account:
            raise AnotherAccount("not yours", account=account)
        return self.balances[account]

    def _apply(self, identity: Identity, operation: Any) -> int:
        amount = operation.amount
        account = operation.source if isinstance(operation, Transfer) else operation.account
        balance = self._check(identity, account)
        if isinstance(operation, Deposit):
            amount = -amount
        elif balance < amount:
            raise InsufficientFunds("too little", account=account, balance=balance, amount=amount)
        if isinstance(operation, Transfer):
            if operation.target not in self.balances:
                raise UnknownAccount("there is no target", account=operation.target)
            self.balances[operation.target] += amount
        else:
            assert isinstance(operation, Deposit | Withdrawal)
        self.balances[account] -= amount
        return self.balances[account]


class FakeMessages:
    """Messages in a dictionary, read in pages of at most *page_max*."""

    def __init__(self, page_max: int = 1000) -> None:
        self.texts: dict[str, str] = {}
        self.read: list[str] = []
        self.error: Exception | None = None
        self.pages: list[tuple[str | None, int]] = []
        self.page_max = page_max

    async def post(self, text: str, id: str) -> str:
        if self.error is not None:
            raise self.error
        if id in self.texts:
            return "same" if self.texts[id] == text else "other"
        self.texts[id] = text
        return "new"

    async def page(self, after: str | None, limit: int) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.pages.append((after, limit))
        return self._cut(list(self.texts), after, limit, {"received_at": "now", "logger": "one"})

    async def consumed(self, after: str | None, limit: int) -> dict[str, Any]:
        return self._cut(self.read, after, limit, {"consumed_at": "now", "by": "one"})

    def _cut(
        self, ids: list[str], after: str | None, limit: int, more: dict[str, Any]
    ) -> dict[str, Any]:
        if not (after or "0").isdecimal():
            raise InvalidRequest("after is no cursor", field="after")
        start = int(after or 0)
        end = start + min(limit, self.page_max)
        messages = [{"id": id, "text": self.texts[id], **more} for id in ids[start:end]]
        return {"messages": messages, "next": str(end) if end < len(ids) else None}


class Gateway:
    """The application over the fakes, and a client of it."""

    def __init__(self) -> None:
        self.bank = FakeBank()
        self.messages = FakeMessages()
        self.reasons: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.metrics = GatewayMetrics()
        self.pages = GatewayPages(self.metrics, self._reasons, self._rows)
        self.app = gateway_app(self.bank, self.messages, self.pages)
        transport = httpx.ASGITransport(app=self.app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    async def _reasons(self) -> list[str]:
        return self.reasons

    async def _rows(self) -> list[dict[str, Any]]:
        return self.rows

    async def post(
        self,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """POST JSON as a teller; *raw* bytes instead of *body*, *headers* over the usual ones."""
        content = msgspec.json.encode(body) if raw is None else raw
        sent = {"Content-Type": "application/json", **TELLER, **(headers or {})}
        kept = {name: value for name, value in sent.items() if value}
        return await self.http.post(path, content=content, headers=kept)

    async def get(self, path: str, headers: dict[str, str] = TELLER) -> httpx.Response:
        """GET as a teller."""
        return await self.http.get(path, headers=headers)


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    """Yield a :class:`Gateway`."""
    made = Gateway()
    async with made.http:
        yield made


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that *response* is the problem expected, and return its document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["code"] == code
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    return document

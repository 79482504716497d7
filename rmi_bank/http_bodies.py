"""Shapes of the JSON bodies of ``/bank/*``: what is taken, what is given.

Requests are strict: an unknown field, a missing one, or one of another type is refused. Amounts and
balances are whole numbers of minor units.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from rmi_bank.operations import Account, Amount, Client, OpeningBalance, RequestId
from rmi_runtime.http import IDEMPOTENCY_KEY_PATTERN

BATCH_OPERATIONS_MAX = 1000
"""Most operations in one batch."""


class CashBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a deposit or a withdrawal."""

    account: Account
    amount: Amount


class TransferBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a transfer."""

    source: Account
    target: Account
    amount: Amount


class AccountBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Body that opens an account: for the client *owner*, or nobody in particular."""

    account: Account
    balance: OpeningBalance = 0
    owner: Client | None = None


_BatchRequestId = Annotated[
    RequestId, msgspec.Meta(extra_json_schema={"pattern": IDEMPOTENCY_KEY_PATTERN})
]


class _Keyed(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    request_id: _BatchRequestId | msgspec.UnsetType = msgspec.UNSET


class BatchDeposit(_Keyed, tag="deposit"):
    """A deposit in a batch."""

    account: Account
    amount: Amount


class BatchWithdrawal(_Keyed, tag="withdrawal"):
    """A withdrawal in a batch."""

    account: Account
    amount: Amount


class BatchTransfer(_Keyed, tag="transfer"):
    """A transfer in a batch."""

    source: Account
    target: Account
    amount: Amount


class BatchBalance(_Keyed, tag="balance"):
    """A look at a balance in a batch; its request id is told back, and has no other meaning."""

    account: Account


BatchItem = BatchDeposit | BatchWithdrawal | BatchTransfer | BatchBalance

BATCH_TYPES = ("deposit", "withdrawal", "transfer", "balance")
"""What the ``type`` of an operation in a batch may be."""


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a batch."""

    operations: Annotated[
        list[BatchItem], msgspec.Meta(min_length=1, max_length=BATCH_OPERATIONS_MAX)
    ]


class Receipt(msgspec.Struct):
    """A change that happened: the balance (a transfer's source) after it, and its commit number."""

    request_id: str
    balance: int
    commit: int


class BatchDone(msgspec.Struct, tag_field="status", tag="ok"):
    """Outcome of an operation that happened."""

    request_id: str | None
    balance: int
    commit: int


class BatchRefused(msgspec.Struct, tag_field="status", tag="error"):
    """Outcome of an operation that did not happen, or, if not definite, may have."""

    request_id: str | None
    code: str
    message: str
    definite: bool
    fields: dict[str, Any]


class BatchAnswer(msgspec.Struct):
    """Outcomes, in the order of the operations."""

    outcomes: list[BatchDone | BatchRefused]


class AccountAnswer(msgspec.Struct):
    """An account and its balance."""

    account: int
    balance: int


class StatementLine(msgspec.Struct):
    """One posting: *amount* minor units from the account *debit* to the account *credit*."""

    line: int
    commit: int
    at: str
    debit: int
    credit: int
    amount: int
    request_id: str


class StatementAnswer(msgspec.Struct):
    """A page of journal lines; *next* is the ``after`` of the next page, or null."""

    lines: list[StatementLine]
    next: int | None

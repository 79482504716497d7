"""The bank's own errors, hung below the runtime's tree (``rmi_runtime.errors``).

RmiError
└── Definite
    ├── InvalidRequest
    │   ├── SameAccount           same_account        ValueError       both sides of a transfer
    │   └── RequestIdReused       request_id_reused   ValueError       same id, other payload
    ├── Forbidden
    │   └── AnotherAccount        another_account     PermissionError  not the caller's account
    ├── NotFound
    │   └── UnknownAccount        unknown_account     LookupError      never opened
    ├── Conflict
    │   ├── AccountExists         account_exists      ValueError       opened already
    │   ├── InsufficientFunds     insufficient_funds  ValueError       balance below the amount
    │   └── BalanceLimit          balance_limit       ValueError       more than a balance can hold
    ├── StaleLease                stale_lease         RuntimeError     not, or no longer, the right
    │                                                                  to commit
    ├── LockTimeout               lock_timeout        TimeoutError     accounts stayed locked
    └── StoreFull                 store_full          OSError          the runtime's: the disk is
                                                                       full

All of them are definite: whoever gets one knows that no money moved. What may have happened is told
by the runtime's indefinite errors (``ConnectionLost``, ``CallTimeout``, ``Interrupted``).
"""

from __future__ import annotations

from rmi_runtime.errors import (
    Conflict,
    Definite,
    Forbidden,
    InvalidRequest,
    NotFound,
    StoreFull,
)

__all__ = [
    "AccountExists",
    "AnotherAccount",
    "BalanceLimit",
    "InsufficientFunds",
    "LockTimeout",
    "RequestIdReused",
    "SameAccount",
    "StaleLease",
    "StoreFull",
    "UnknownAccount",
]


class SameAccount(InvalidRequest):
    """A transfer names the same account on both sides."""

    code = "same_account"


class RequestIdReused(InvalidRequest):
    """The request id has been used for another operation. ``fields['request_id']`` names it."""

    code = "request_id_reused"


class AnotherAccount(Forbidden):
    """A customer asked for an account that is not its own. ``fields['account']`` names it."""

    code = "another_account"


class UnknownAccount(NotFound):
    """The account has never been opened. ``fields['account']`` names it."""

    code = "unknown_account"


class AccountExists(Conflict):
    """The account has been opened already. ``fields['account']`` names it."""

    code = "account_exists"


class InsufficientFunds(Conflict):
    """The balance is below the amount. Fields: ``account``, ``balance``, ``amount``."""

    code = "insufficient_funds"


class BalanceLimit(Conflict):
    """The balance would pass what one account, or the whole bank, can hold."""

    code = "balance_limit"


class StaleLease(Definite):
    """The lease is unknown, expired, another's, or from before a restart. Lock again."""

    code = "stale_lease"
    http_status = 503


class LockTimeout(Definite):
    """The accounts stayed locked by others for as long as the caller would wait.

    If the caller had no more patience with one single lease, or several of them, the fields
    ``accounts`` and ``request_ids`` name what they hold: all their accounts, and those request ids
    that were asked for; and the same of those in front who wait for them with more patience.
    """

    code = "lock_timeout"
    http_status = 503
    builtin = TimeoutError

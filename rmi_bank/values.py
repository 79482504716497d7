"""Plain values over the wire: checks of what comes in, and the shape of what goes out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, Any, NamedTuple

import msgspec

from rmi_bank import operations as op
from rmi_bank.rules import NewOutcome, Posting, ScopedId, unscoped
from rmi_bank.stores import Line, Record
from rmi_runtime.errors import InvalidRequest, shown

KEYS_MAX = 3 * op.OPERATIONS_MAX
"""Most accounts and request ids in one lock, and most rows in one commit: what a batch needs."""

PAGE_LIMIT_MAX = 1000
"""Most entries on a page of anything."""


_Size = msgspec.Meta(max_length=KEYS_MAX)

# Each in a class: msgspec remembers how to check a class, and works a bare type out every time.


class _Accounts(NamedTuple):
    value: Annotated[list[op.Account], _Size]


class _AnyAccounts(NamedTuple):
    value: Annotated[list[op.AnyAccount], _Size]


class _RequestIds(NamedTuple):
    value: Annotated[list[ScopedId], _Size]


class _RecordArguments(msgspec.Struct):
    postings: Annotated[list[Posting], _Size]
    outcomes: Annotated[list[NewOutcome], _Size]
    opened: Annotated[list[tuple[op.Account, op.Client | None]], _Size]


def checked_int(name: str, value: object, low: int, high: int) -> int:
    """Return *value* if it is a whole number from *low* to *high*.

    Raises:
        InvalidRequest: it is not; True and False are no numbers here.
    """
    if type(value) is not int or not low <= value <= high:
        raise InvalidRequest(
            f"{name} must be a whole number from {low} to {high}, not {shown(value)}", field=name
        )
    return value


def checked_seconds(name: str, value: object, high: float) -> float:
    """Return *value* if it is a number of seconds from 0 to *high*.

    Raises:
        InvalidRequest: it is not.
    """
    if type(value) not in (int, float) or not 0 <= value <= high:  # type: ignore[operator]
        raise InvalidRequest(
            f"{name} must be a number of seconds from 0 to {high}, not {shown(value)}", field=name
        )
    return float(value)  # type: ignore[arg-type]


def checked_limit(value: object) -> int:
    """Return the most entries a page shall have, 1 to :data:`PAGE_LIMIT_MAX`."""
    return checked_int("limit", value, 1, PAGE_LIMIT_MAX)


def iso_time(at_us: int) -> str:
    """Return ``2021-10-31T16:05:13.640164Z`` for microseconds since 1970 (UTC)."""
    seconds, us = divmod(at_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{us:06d}Z"


def accounts_of(value: object, *, cash: bool = False) -> list[int]:
    """Return *value* if it is a list of account numbers, not too long.

    Args:
        value: what was sent.
        cash: cash (0) may be among them.

    Raises:
        InvalidRequest: it is not.
    """
    accounts: list[int]
    (accounts,) = _converted((value,), _AnyAccounts if cash else _Accounts, "accounts")
    return accounts


def request_ids_of(value: object) -> list[str]:
    """Return *value* if it is a list of scoped request ids, not too long.

    Raises:
        InvalidRequest: it is not.
    """
    request_ids: list[str]
    (request_ids,) = _converted((value,), _RequestIds, "request_ids")
    _check_text(request_ids, "request_ids")
    return request_ids


def record_of(postings: object, outcomes: object, opened: object) -> Record:
    """Return what a commit shall write, of valid types and ranges.

    Raises:
        InvalidRequest: something is of the wrong type or out of range.
    """
    found = _converted(
        {"postings": postings, "outcomes": outcomes, "opened": opened}, _RecordArguments, ""
    )
    _check_text(chain.from_iterable(found.outcomes), "outcomes")
    return Record(found.postings, found.outcomes, found.opened)


def shown_line(line: Line) -> dict[str, Any]:
    """Return a journal line as it is sent to clients."""
    return {
        "line": line.line,
        "commit": line.commit,
        "at": iso_time(line.at_us),
        "debit": line.debit,
        "credit": line.credit,
        "amount": line.amount,
        "request_id": unscoped(line.request_id) or "",
    }


def _check_text(texts: Iterable[str], field: str) -> None:
    """Refuse what the store cannot take: it would fail all that is committed with it.

    Or what it could not find again: its look-ups of a text end at a NUL, with what another has.
    """
    text = "".join(texts)
    if "\0" in text:
        raise InvalidRequest(f"{field}: a text in it has a NUL; leave that out", field=field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{field}: a text in it has a lone surrogate, which no UTF-8 can carry"
        raise InvalidRequest(message, field=field) from error


def _converted(value: object, kind: Any, field: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).rpartition(" - at `$")
        where = field + place.removeprefix("[0]" if field else ".").rstrip("`")
        raise InvalidRequest(f"{where}: {what}", field=where) from error

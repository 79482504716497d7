"""What can be asked of the bank, and what comes of it: plain structures and their checks.

:func:`parse_operation`, and every decoder of a type here, refuses what is out of range or of the
wrong type, so a structure that came in is valid. (One that was made by calling its class is checked
by whoever receives it.) Between gateway and business object a batch travels as one MessagePack
buffer (:func:`pack_batch`, :func:`pack_outcomes`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from rmi_bank.errors import SameAccount
from rmi_runtime.errors import (
    Interrupted,
    InvalidRequest,
    MalformedRequest,
    RmiError,
    make_error,
)

AMOUNT_MAX = 10**15
"""Most minor units in one operation."""

ACCOUNT_MAX = 2**53
"""Highest account number: the last one every JSON reader keeps exact."""

BALANCE_END = 2**62
"""A balance stays below this."""

REQUEST_ID_SIZE_MAX = 200
"""Most characters in a request id."""

OPERATIONS_MAX = 4096
"""Most operations in one batch."""

CASH = 0
"""The account that deposits come from and withdrawals go to. No customer has it."""

Account = Annotated[int, msgspec.Meta(ge=1, le=ACCOUNT_MAX)]
AnyAccount = Annotated[int, msgspec.Meta(ge=CASH, le=ACCOUNT_MAX)]
Amount = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MAX)]
OpeningBalance = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]
Client = Annotated[int, msgspec.Meta(ge=0, le=ACCOUNT_MAX)]
RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=REQUEST_ID_SIZE_MAX)]


def check_request_id(request_id: str) -> None:
    """Refuse a request id that cannot be shown.

    Raises:
        ValueError: it has characters that do not print.
    """
    if not request_id.isprintable():
        raise ValueError("Expected `str` of printable characters - at `$.request_id`")


class Deposit(msgspec.Struct, frozen=True, tag="deposit", forbid_unknown_fields=True):
    """Put *amount* minor units of cash into *account*."""

    account: Account
    amount: Amount
    request_id: RequestId

    def __post_init__(self) -> None:
        check_request_id(self.request_id)


class Withdrawal(msgspec.Struct, frozen=True, tag="withdrawal", forbid_unknown_fields=True):
    """Take *amount* minor units of cash out of *account*."""

    account: Account
    amount: Amount
    request_id: RequestId

    def __post_init__(self) -> None:
        check_request_id(self.request_id)


class Transfer(msgspec.Struct, frozen=True, tag="transfer", forbid_unknown_fields=True):
    """Move *amount* minor units from *source* to *target*."""

    source: Account
    target: Account
    amount: Amount
    request_id: RequestId

    def __post_init__(self) -> None:
        check_request_id(self.request_id)
        if self.source == self.target:
            raise ValueError(_SAME_ACCOUNT)


class OpenAccount(msgspec.Struct, frozen=True, tag="open", forbid_unknown_fields=True):
    """Open *account* for the client *owner* (None: nobody's) with *balance* minor units of cash."""

    account: Account
    request_id: RequestId
    balance: OpeningBalance = 0
    owner: Client | None = None

    def __post_init__(self) -> None:
        check_request_id(self.request_id)


class BalanceQuery(
    msgspec.Struct, frozen=True, tag="balance", forbid_unknown_fields=True, omit_defaults=True
):
    """Read the balance of *account*. The request id is told back, and has no other meaning."""

    account: Account
    request_id: RequestId | None = None

    def __post_init__(self) -> None:
        if self.request_id is not None:
            check_request_id(self.request_id)


Change = Deposit | Withdrawal | Transfer | OpenAccount
"""Operations that change something, and so carry a request id."""

Operation = Deposit | Withdrawal | Transfer | OpenAccount | BalanceQuery


class Principal(NamedTuple):
    """For whom an operation is done: the client's number and role."""

    client: int
    role: str


Request = tuple[Principal, Operation]


class Done(msgspec.Struct, array_like=True, tag=0):
    """It happened.

    Attributes:
        balance: minor units on the account (a transfer's source) after it.
        commit: the commit number it happened at; for a read, the last one it shows.
    """

    balance: int
    commit: int


class Refused(msgspec.Struct, array_like=True, tag=1):
    """It did not happen (or, if not *definite*, nobody knows): an error in plain values."""

    code: str
    message: str
    definite: bool
    fields: dict[str, Any]

    @classmethod
    def from_error(cls, error: RmiError) -> Refused:
        """Take *error* apart."""
        return cls(error.code, error.message, error.definite, error.fields)

    def to_error(self) -> RmiError:
        """Put the error together again."""
        return make_error(self.code, self.definite, self.message, self.fields)

    def after_lost_reply(self) -> Refused:
        """Return what this is if an earlier try, whose reply was lost, may have been done.

        What was decided had the outcomes on record in sight; what was refused for now had not.
        """
        if not self.definite or self.to_error().http_status < 500:
            return self
        return Refused.from_error(
            Interrupted(
                f"no answer came to an earlier try ({self.message}); ask again with the same "
                "request id"
            )
        )


Outcome = Done | Refused

_PLACE = re.compile(r"(?:\[[^\]]*\])*\.?([\w.]*)`")
_TYPES = ("deposit", "withdrawal", "transfer", "open", "balance")
_SAME_ACCOUNT = "source and target are the same account; a transfer needs two different ones"


class _Operations(NamedTuple):
    """A class, because msgspec works a bare type out anew for every conversion."""

    operations: list[Operation]


_requests = msgspec.msgpack.Decoder(list[tuple[Client, str, Operation]])
_outcomes = msgspec.msgpack.Decoder(list[Outcome])
_encode = msgspec.msgpack.Encoder().encode


def pack_batch(requests: Sequence[Request]) -> bytes:
    """Encode a batch for ``execute_packed``: a list of [client, role, operation]."""
    return _encode([(principal[0], principal[1], operation) for principal, operation in requests])


def unpack_batch(batch: bytes) -> list[Request]:
    """Decode what :func:`pack_batch` made.

    Raises:
        InvalidRequest: it is not such a batch, or too long.
    """
    try:
        rows = _requests.decode(batch)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(error) from error
    check_size(len(rows))
    return [(Principal(client, role), operation) for client, role, operation in rows]


def pack_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """Encode the outcomes of a batch, in its order."""
    return _encode(outcomes)


def unpack_outcomes(packed: bytes) -> list[Outcome]:
    """Decode what :func:`pack_outcomes` made."""
    return _outcomes.decode(packed)


def check_size(operations: int) -> None:
    """Refuse a batch of too many operations.

    Raises:
        InvalidRequest: there are more than :data:`OPERATIONS_MAX`.
    """
    if operations > OPERATIONS_MAX:
        raise InvalidRequest(
            f"a batch of {operations} operations; at most {OPERATIONS_MAX} go into one, "
            "so send several",
            field="operations",
        )


def parse_operation(data: Mapping[str, Any]) -> Operation:
    """Make an operation from a dictionary such as ``{"type": "deposit", "account": 1, ...}``.

    Raises:
        InvalidRequest: something is missing, of the wrong type or out of range.
        MalformedRequest: it has a field that nobody knows.
    """
    if not isinstance(data, Mapping):
        raise InvalidRequest(f"an operation is a dictionary, not {type(data).__name__}")
    return parse_operations([dict(data)])[0]


def parse_operations(data: list[dict[str, Any]]) -> list[Operation]:
    """Make operations from dictionaries.

    Raises:
        InvalidRequest, MalformedRequest: as :func:`parse_operation`; it does not tell which one.
    """
    try:
        return msgspec.convert((data,), _Operations).operations
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise invalid(error) from error


def parse_batch(batch: Sequence[Mapping[str, Any]]) -> list[Operation]:
    """Make the operations of a batch; all are good, or the batch is refused.

    Raises:
        InvalidRequest, MalformedRequest: as :func:`parse_operation`; the field is named with its
            place in the batch, such as ``operations[3].amount``.
    """
    try:
        return parse_operations(list(batch))  # type: ignore[arg-type]
    except InvalidRequest:
        return [_parse_at(place, data) for place, data in enumerate(batch)]


def _parse_at(place: int, data: Mapping[str, Any]) -> Operation:
    try:
        return parse_operation(data)
    except InvalidRequest as error:
        field = error.fields.get("field")
        where = f"operations[{place}]" + (f".{field}" if field else "")
        what = error.message.removeprefix(f"{field}: ")  # the place names the field
        raise type(error)(f"{where}: {what}", field=where) from error


def invalid(error: Exception) -> InvalidRequest:
    """Say in this project's errors what msgspec found wrong.

    Args:
        error: what a decoder of a type of this module raised.

    Returns:
        The error, with the name of the field at fault in ``fields['field']`` if there is one.
    """
    text = str(error)
    if _SAME_ACCOUNT in text:
        return SameAccount(_SAME_ACCOUNT, field="target")
    if not isinstance(error, msgspec.ValidationError):
        return MalformedRequest(f"cannot be read: {text}")
    # A name or value of the caller's may be anywhere behind the first words, with anything in it.
    unknown = re.match(r"Object contains unknown field `(.*?)`", text, re.DOTALL)
    if unknown:
        return MalformedRequest(f"the field {unknown[1]!r} is unknown", field=unknown[1])
    missing = re.match(r"Object missing required field `(.*?)`", text)
    if missing:
        return InvalidRequest(f"the field {missing[1]!r} is missing", field=missing[1])
    what, field = _field_at_fault(text)
    if field == "type" and what.startswith("Invalid value "):
        what = f"{what[:100]}; expected one of {', '.join(_TYPES)}"
    return InvalidRequest(f"{field}: {what}", field=field) if field else InvalidRequest(text)


def _field_at_fault(text: str) -> tuple[str, str]:
    """Return what is wrong, and the name of the field, empty if there is none.

    They are looked for from the end: what is before them may be the caller's words, and many.
    """
    for _ in range(2):  # what we raise ourselves comes with a place of its own before msgspec's
        text, found, rest = text.rpartition(" - at `$")
        place = _PLACE.fullmatch(rest) if found else None
        if place is None:
            break
        if place[1]:
            return text, place[1]
    return "", ""


def outcome_dict(operation: Operation, outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as the dictionary that ``execute`` answers with, its own status told."""
    found: dict[str, Any] = {"request_id": getattr(operation, "request_id", None)}
    if isinstance(outcome, Done):
        found.update(status="ok", balance=outcome.balance, commit=outcome.commit)
    else:
        found.update(
            status="error",
            code=outcome.code,
            message=outcome.message,
            definite=outcome.definite,
            fields=outcome.fields,
        )
    return found


def outcome_dicts(requests: Sequence[Request], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the outcomes of a batch as the dictionaries of :func:`outcome_dict`, in its order."""
    return [
        outcome_dict(operation, outcome)
        for (_, operation), outcome in zip(requests, outcomes, strict=True)
    ]

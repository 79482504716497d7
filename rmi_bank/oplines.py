"""The lines of the bank's operation logs, in the formats of the systems it grew from.

Business log (``DATA_DIR/log/bank.business.N.log``), one line per operation that was done: money
moved, or a balance read. A refusal is no line, and neither is a request answered from what is
stored: so no operation has two. One has none if the reply to its commit was lost, since it was then
found stored, and who did it is not told; the journal has it::

    Timestamp:2021-10-31 13:18:18.005728 - OperationNumber: 8 - ClientID: 5
    - OperationType: Deposito - Account: 9 - Value: 299

(one line each in the file). ``Account`` is a transfer's source. ``Value`` is the amount in minor
units; ``N/A`` for ``Saldo``.

Data log (``DATA_DIR/log/bank.data.log``), one line per account and step::

    Timestamp:2021-10-31 16:05:13.640164 - OperationNumber: 1 - BusinessServerID: 1
    - OperationType: getlock - Account: 1 - Value: 0

``OperationType`` is ``getlock``, ``unlock`` (both with Value 0), ``commit`` or ``saldo`` (both with
the account's balance after it). ``BusinessServerID`` 0 is the data object itself.

Times are local, as in those systems, with microseconds always.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rmi_bank import operations as op

SALDO, DEPOSITO, SAQUE, TRANSFERENCIA = "Saldo", "Deposito", "Saque", "Transferencia"
GETLOCK, UNLOCK, COMMIT, DATA_SALDO = "getlock", "unlock", "commit", "saldo"

BusinessEntry = tuple[int, str, int, int | str]
"""(client, operation type, account, value)"""

DataEntry = tuple[int, str, Iterable[tuple[int, int]]]
"""(business object, operation type, [(account, value), ...]): a line for each account"""


def business_entry(request: op.Request) -> BusinessEntry | None:
    """Return what the business log says of an operation that was done; None: nothing."""
    (client, _), operation = request
    kind = type(operation)
    if kind is op.Transfer:
        return client, TRANSFERENCIA, operation.source, operation.amount  # type: ignore[union-attr]
    if kind is op.Deposit:
        return client, DEPOSITO, operation.account, operation.amount  # type: ignore[union-attr]
    if kind is op.Withdrawal:
        return client, SAQUE, operation.account, operation.amount  # type: ignore[union-attr]
    if kind is op.BalanceQuery:
        return client, SALDO, operation.account, "N/A"  # type: ignore[union-attr]
    return None


def business_lines(first: int, at: datetime, entries: Iterable[BusinessEntry]) -> list[str]:
    """Format a batch of the business log, for :class:`rmi_runtime.OperationLog`.

    Args:
        first: number of the first line.
        at: the time of all of them.
        entries: what the lines say.
    """
    start = _start(at)
    return [
        f"{start}{number} - ClientID: {client} - OperationType: {kind} - Account: {account} - "
        f"Value: {value}"
        for number, (client, kind, account, value) in enumerate(entries, first)
    ]


def data_lines(first: int, at: datetime, entries: Iterable[DataEntry]) -> list[str]:
    """Format a batch of the data log, as :func:`business_lines` does."""
    start = _start(at)
    lines: list[str] = []
    for business_id, kind, values in entries:
        said = f" - BusinessServerID: {business_id} - OperationType: {kind} - Account: "
        lines += [
            f"{start}{number}{said}{account} - Value: {value}"
            for number, (account, value) in enumerate(values, first + len(lines))
        ]
    return lines


def _start(at: datetime) -> str:
    return f"Timestamp:{at.isoformat(' ', 'microseconds')} - OperationNumber: "

"""The lines of the operation logs are the seeds', to the letter."""

from __future__ import annotations

from datetime import datetime

from rmi_bank import operations as op
from rmi_bank.oplines import business_entry, business_lines, data_lines

TELLER = op.Principal(4, "teller")


def test_a_business_line_is_as_the_seed_has_it() -> None:
    at = datetime(2021, 10, 31, 13, 18, 18, 13317)
    assert business_lines(9, at, [(4, "Saldo", 6, "N/A")]) == [
        "Timestamp:2021-10-31 13:18:18.013317 - OperationNumber: 9 - ClientID: 4 - "
        "OperationType: Saldo - Account: 6 - Value: N/A"
    ]


def test_a_data_line_is_as_the_seed_has_it() -> None:
    at = datetime(2021, 10, 31, 16, 5, 13, 640164)
    assert data_lines(1, at, [(1, "getlock", [(1, 0)])]) == [
        "Timestamp:2021-10-31 16:05:13.640164 - OperationNumber: 1 - BusinessServerID: 1 - "
        "OperationType: getlock - Account: 1 - Value: 0"
    ]


def test_microseconds_are_always_there() -> None:
    (line,) = data_lines(1, datetime(2021, 10, 31, 13, 18, 18), [(4, "saldo", [(6, 0)])])
    assert "13:18:18.000000 " in line


def test_the_lines_of_a_batch_are_numbered_from_the_first_on() -> None:
    lines = data_lines(7, datetime(2021, 10, 31), [(4, "commit", [(6, 1), (8, 2)])])
    assert [line.partition("OperationNumber: ")[2] for line in lines] == [
        "7 - BusinessServerID: 4 - OperationType: commit - Account: 6 - Value: 1",
        "8 - BusinessServerID: 4 - OperationType: commit - Account: 8 - Value: 2",
    ]


def test_the_four_operations_have_the_seeds_names() -> None:
    assert business_entry((TELLER, op.Deposit(9, 299, "r"))) == (4, "Deposito", 9, 299)
    assert business_entry((TELLER, op.Withdrawal(2, 146, "r"))) == (4, "Saque", 2, 146)
    assert business_entry((TELLER, op.Transfer(2, 3, 5, "r"))) == (4, "Transferencia", 2, 5)
    assert business_entry((TELLER, op.BalanceQuery(6))) == (4, "Saldo", 6, "N/A")
    assert business_entry((TELLER, op.OpenAccount(6, "r"))) is None

"""A bank of remote objects that loses and doubles nothing.

Everything that code outside this package uses is here; the errors are in ``rmi_bank.errors``.
"""

from rmi_bank import errors
from rmi_bank.business import BusinessObject, open_business, run_business
from rmi_bank.client import BankClient
from rmi_bank.data import DataObject, open_data, run_data
from rmi_bank.gateway_bank import BankGateway
from rmi_bank.nameserver import run_nameserver
from rmi_bank.operations import (
    BalanceQuery,
    Deposit,
    OpenAccount,
    Operation,
    Transfer,
    Withdrawal,
)
from rmi_bank.request_ids import new_request_id
from rmi_bank.stores.sqlite import SqliteLedger
from rmi_bank.sync_client import SyncBankClient

__all__ = [
    "BalanceQuery",
    "BankClient",
    "BankGateway",
    "BusinessObject",
    "DataObject",
    "Deposit",
    "OpenAccount",
    "Operation",
    "SqliteLedger",
    "SyncBankClient",
    "Transfer",
    "Withdrawal",
    "errors",
    "new_request_id",
    "open_business",
    "open_data",
    "run_business",
    "run_data",
    "run_nameserver",
]

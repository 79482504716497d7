"""Checkers: pure code that judges a history; none knows how the system under test works."""

from rmi_torture.checkers.bank_effects import check_books, check_effects
from rmi_torture.checkers.bank_order import check_bank_order
from rmi_torture.checkers.ledger import Ledger, Line
from rmi_torture.checkers.locks import check_locks, check_raw_commits
from rmi_torture.checkers.messages import check_messages, check_queue
from rmi_torture.checkers.search import Step, check_by_search, search
from rmi_torture.checkers.statements import check_statements
from rmi_torture.checkers.verdict import Verdict, all_valid

__all__ = [
    "Ledger",
    "Line",
    "Step",
    "Verdict",
    "all_valid",
    "check_bank_order",
    "check_books",
    "check_by_search",
    "check_effects",
    "check_locks",
    "check_messages",
    "check_queue",
    "check_raw_commits",
    "check_statements",
    "search",
]

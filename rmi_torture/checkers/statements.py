"""Each account's statement, as it was paged through after the run, against the whole journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rmi_torture.checkers.ledger import Ledger
from rmi_torture.checkers.verdict import Verdict


def check_statements(statements: Mapping[int, Sequence[int]], ledger: Ledger) -> Verdict:
    """Check that each statement has the account's own lines, each once, in order.

    The journal is put together from all statements: a line that only one of a transfer's two
    accounts shows, or that one shows twice, is a line of it like any other.

    Args:
        statements: account to the numbers of the lines on its statement, as they were shown.
        ledger: the journal as it was after the run.

    Returns:
        A verdict; its errors are ``missing`` (the other account's statement has the line),
        ``doubled``, ``foreign`` (a line of other accounts) and ``disordered``.
    """
    verdict = Verdict("statements").expect("missing", "doubled", "foreign", "disordered")
    due: dict[int, set[int]] = {account: set() for account in statements}
    for line in ledger.lines:
        for account in due.keys() & {line.debit, line.credit}:
            due[account].add(line.line)
    for account, shown in statements.items():
        verdict.checked += 1
        for number, count in Counter(shown).items():
            if count > 1:
                verdict.blame("doubled", f"account {account} shows line {number} {count} times")
        for number in sorted(due[account] - set(shown)):
            verdict.blame("missing", f"account {account} does not show line {number}")
        for number in sorted(set(shown) - due[account]):
            verdict.blame("foreign", f"account {account} shows line {number}, of other accounts")
        if list(shown) != sorted(shown):
            verdict.blame("disordered", f"account {account} does not show its lines in order")
    return verdict

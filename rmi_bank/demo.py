"""What a first start with ``--demo`` finds in the bank: ten accounts and five tellers."""

from __future__ import annotations

import json
from pathlib import Path

from rmi_bank.operations import CASH
from rmi_bank.rules import TELLER, Posting
from rmi_bank.stores import Ledger, NewToken, Record
from rmi_runtime import hash_token, new_token, write_private

DEMO_ACCOUNTS = range(1, 11)
DEMO_BALANCE = 1000
DEMO_CLIENTS = range(1, 6)
DEMO_TOKENS_FILE = "demo-tokens.json"


async def seed_demo(ledger: Ledger, data_dir: Path) -> bool:
    """Open the demonstration's accounts and make its tokens, if the store is empty.

    The file with the tokens (mode 0600) is whole and on disk before accounts and tokens are
    written, those all in one transaction. So a crash in between leaves an empty store, and the next
    start makes new tokens and replaces the file; it never leaves accounts without tokens, nor does
    it seed twice.

    Args:
        ledger: a store that nobody uses yet.
        data_dir: where :data:`DEMO_TOKENS_FILE` goes.

    Returns:
        False if the store was not empty: nothing was changed.
    """
    if ledger.commit_no or await ledger.tokens(0, 1):
        return False
    tokens = {client: new_token() for client in DEMO_CLIENTS}
    rows = [{"client": client, "token": token} for client, token in tokens.items()]
    write_private(data_dir / DEMO_TOKENS_FILE, json.dumps(rows, indent=1) + "\n")
    record = Record(
        postings=[Posting(CASH, account, DEMO_BALANCE) for account in DEMO_ACCOUNTS],
        opened=[(account, None) for account in DEMO_ACCOUNTS],
    )
    return await ledger.seed(
        record, [NewToken(hash_token(token), client, TELLER) for client, token in tokens.items()]
    )

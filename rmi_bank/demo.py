"""What a first start with ``--demo`` finds in the bank: ten accounts and five tellers."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rmi_bank.operations import CASH
from rmi_bank.rules import TELLER, Posting
from rmi_bank.stores import Ledger, NewToken, Record
from rmi_runtime import hash_token, new_token

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
    _write_private(data_dir / DEMO_TOKENS_FILE, json.dumps(rows, indent=1) + "\n")
    record = Record(
        postings=[Posting(CASH, account, DEMO_BALANCE) for account in DEMO_ACCOUNTS],
        opened=[(account, None) for account in DEMO_ACCOUNTS],
    )
    return await ledger.seed(
        record, [NewToken(hash_token(token), client, TELLER) for client, token in tokens.items()]
    )


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all, and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

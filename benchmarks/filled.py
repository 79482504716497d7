"""Ledgers of any size: ``python -m benchmarks.filled DIRECTORY --accounts 1000 --lines 100000``.

They have the real schema, chains and marks and outcomes included, as if every line had been a
transfer of its own, with a random request id; only that nobody had to wait for ten million
transfers. The rows are written in the order of their keys, without a sync before the end.
"""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import click

from rmi_bank.data import FILE_NAME
from rmi_bank.stores import schema
from rmi_bank.stores.books import is_marked
from rmi_runtime import hash_token

TOKEN = "benchmark-token"
OPENING = 10**9
CLIENT = 1
_BATCH = 1 << 16
_FIRST_OF_10 = 7


def fill(directory: Path, accounts: int, lines: int, seed: int = 1) -> None:
    """Make a data directory with a ledger in it.

    Args:
        directory: where; it is made, and must hold no ledger yet.
        accounts: how many, numbered from 1, each opened with :data:`OPENING` minor units.
        lines: journal lines: the openings, and random transfers of 1.
        seed: of the randomness.

    Raises:
        FileExistsError: there is a ledger.
    """
    if (directory / FILE_NAME).exists():
        raise FileExistsError(f"there is a ledger in {directory}: name another directory")
    directory.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(directory / FILE_NAME, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA wal_autocheckpoint=20000")
    schema.set_up(connection)
    random_ = random.Random(seed)
    balances = array("q", bytes(8 * (accounts + 1)))
    last_lines = array("q", bytes(8 * (accounts + 1)))
    balances[0] = -accounts * OPENING
    transfers = max(0, lines - accounts)
    parties = _write_journal(connection, accounts, transfers, random_, balances, last_lines)
    _write_outcomes(connection, accounts, parties)
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT OR REPLACE INTO accounts VALUES (?, ?, NULL, ?)",
        zip(itertools.count(), balances, last_lines, strict=False),
    )
    connection.execute(
        "INSERT INTO tokens (hash, client, role, created_at) VALUES (?, ?, 'teller', 0)",
        (hash_token(TOKEN), CLIENT),
    )
    total = accounts + transfers
    connection.execute(
        "UPDATE state SET commit_no = ?, folded_line = ?, indexed_outcome = ?",
        (total, total, transfers),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    tokens = directory / "demo-tokens.json"
    tokens.write_text(json.dumps([{"client": CLIENT, "token": TOKEN}]))
    tokens.chmod(0o600)


def _request_id(place: int, transfers: int) -> str:
    """Return the id at *place* in the order of all ids, spread evenly over the 64-bit numbers."""
    return f"{CLIENT}:{place * (2**64 - 1) // transfers:016x}"


def _stride(transfers: int) -> int:
    """Return a step that visits every place once before it repeats."""
    stride = int(transfers * 0.6180339887) | 1
    while _common(stride, transfers) != 1:
        stride += 2
    return stride


def _common(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


def _write_journal(
    connection: sqlite3.Connection,
    accounts: int,
    transfers: int,
    random_: random.Random,
    balances: array[int],
    last_lines: array[int],
) -> tuple[array[int], array[int]]:
    """Write the openings and the transfers; return the transfers' sources and targets."""
    at_us = time.time_ns() // 1000
    marks: list[tuple[int, int]] = []
    sources, targets = array("i"), array("i")

    def chained(account: int, line: int, change: int) -> int:
        before = last_lines[account]
        last_lines[account] = line
        balances[account] += change
        if account and is_marked(account, line):
            marks.append((account, line))
        return before

    def rows() -> Iterator[tuple[object, ...]]:
        for line in range(1, accounts + 1):
            before = last_lines[0]
            last_lines[0] = line
            yield line, line, at_us, 0, line, OPENING, None, before, chained(line, line, OPENING)
        for number in range(transfers):
            line = accounts + number + 1
            source = int(random_.random() * accounts) + 1
            target = int(random_.random() * (accounts - 1)) + 1
            if target >= source:
                target += 1
            sources.append(source)
            targets.append(target)
            before = chained(source, line, -1)
            yield line, line, at_us, source, target, 1, number + 1, before, chained(target, line, 1)

    _insert(connection, "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows())
    marks.sort()
    _insert(connection, "INSERT INTO marks VALUES (?, ?)", iter(marks))
    return sources, targets


def _write_outcomes(
    connection: sqlite3.Connection, accounts: int, parties: tuple[array[int], array[int]]
) -> None:
    sources, targets = parties
    transfers = len(sources)
    if not transfers:
        return
    stride = _stride(transfers)
    back = pow(stride, -1, transfers) if transfers > 1 else 0

    def outcomes() -> Iterator[tuple[object, ...]]:
        for number in range(transfers):
            request_id = _request_id(number * stride % transfers, transfers)
            print_ = f"transfer {sources[number]} {targets[number]} 1"
            yield number + 1, request_id, accounts + number + 1, print_, str(OPENING)

    def request_ids(first: bool) -> Iterator[tuple[object, ...]]:
        for place in range(transfers):
            if (place % 10 < _FIRST_OF_10) == first:
                yield _request_id(place, transfers), place * back % transfers + 1

    _insert(connection, "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?)", outcomes())
    # In order alone they would fill every page to the brim, which ids that come in any order never
    # do: the second pass leaves the pages as full as those, seven tenths.
    for first in (True, False):
        _insert(connection, "INSERT INTO request_ids VALUES (?, ?)", request_ids(first))


def _insert(connection: sqlite3.Connection, sql: str, rows: Iterator[tuple[object, ...]]) -> None:
    while batch := list(itertools.islice(rows, _BATCH)):
        connection.execute("BEGIN")
        connection.executemany(sql, batch)
        connection.execute("COMMIT")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--accounts", type=click.IntRange(2), default=1_000_000, show_default=True)
@click.option(
    "--lines",
    type=click.IntRange(0),
    default=10_000_000,
    show_default=True,
    help="Journal lines, openings too.",
)
def main(directory: Path, accounts: int, lines: int) -> None:
    """Make a data directory with a ledger of that size in it."""
    began_s = time.monotonic()
    try:
        fill(directory, accounts, lines)
    except OSError as error:
        raise click.ClickException(str(error)) from None
    size_mb = (directory / FILE_NAME).stat().st_size / 1e6
    print(f"{accounts:,} accounts, {lines:,} lines: {size_mb:,.0f} MB")
    print(f"in {time.monotonic() - began_s:.1f} s")


if __name__ == "__main__":
    main()

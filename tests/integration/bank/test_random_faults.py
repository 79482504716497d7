"""Clients of a whole bank in one process, while everything around them fails at random.

Connections break, callers give up, the store fails before and after it has written, the data object
and business objects are started anew, and strangers hold locks, for long, too. Afterwards the store
says what happened, and each answer that a client got must agree with it: what was answered is
stored just so, what was refused for certain is not there, and the journal is what the stored
outcomes ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from rmi_bank import BankClient, BankGateway
from rmi_bank.operations import Done, parse_operation
from rmi_bank.rounds import Rounds
from rmi_bank.rules import decode_result
from rmi_bank.stores import sqlite as sqlite_store
from rmi_runtime import Endpoints, Identity
from rmi_runtime.errors import RmiError
from tests.integration.bank.cluster import SERVICE_HANDSHAKE, BankCluster
from tests.support import eventually

ACCOUNTS: Final = range(1, 9)
BALANCE: Final = 1000
CLIENTS: Final = 8
CALLS: Final = 40
SERVICE_AS_CLIENT: Final = Identity("client", client=0, role="teller")
STORED_REFUSALS: Final = {"insufficient_funds", "unknown_account", "balance_limit"}

Answer = tuple[str, Any]
"""``("done", (balance, commit))`` or ``("refused", code)``."""


class FailingStore:
    """Stands between the store and its file, and fails as files do, while it may."""

    def __init__(self, rng: Random, write: Callable[..., None]) -> None:
        self.may_fail = False
        self._rng = rng
        self._write = write

    def __call__(self, connection: sqlite3.Connection, plan: Any) -> None:
        chance = self._rng.random() if self.may_fail else 1.0
        if chance < 0.05:
            raise _sqlite_error(sqlite3.SQLITE_FULL)
        if chance < 0.10:
            raise _sqlite_error(sqlite3.SQLITE_IOERR)
        self._write(connection, plan)
        if chance < 0.15:  # it is on disk, and nobody is told
            raise _sqlite_error(sqlite3.SQLITE_IOERR)


def _sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("injected")
    error.sqlite_errorcode = code
    return error


class Record:
    """What was asked, and what was answered."""

    def __init__(self) -> None:
        self.operations: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, Answer] = {}
        self.maybe: set[str] = set()  # a call with it ended so that nobody knows
        self._numbers = itertools.count(1)

    def new(self, rng: Random) -> dict[str, Any]:
        """Return a new operation."""
        source, target = rng.sample(ACCOUNTS, 2)
        amount = rng.choice([1, 5, 50, 900])
        operation = rng.choice(
            [
                {"type": "transfer", "source": source, "target": target, "amount": amount},
                {"type": "deposit", "account": source, "amount": amount},
                {"type": "withdrawal", "account": source, "amount": amount},
                {"type": "deposit", "account": 99, "amount": amount},
            ]
        )
        id = f"id{next(self._numbers)}"
        self.operations[id] = operation
        return {**operation, "request_id": id}

    def some(self, rng: Random) -> list[dict[str, Any]]:
        """Return a batch: new operations, and some that were asked before."""
        batch = [self.new(rng) for _ in range(rng.choice([1, 1, 2, 10]))]
        for id in rng.sample(sorted(self.operations), min(2, len(self.operations))):
            if all(operation["request_id"] != id for operation in batch):
                batch.append({**self.operations[id], "request_id": id})
        return batch

    def note(self, id: str, answer: Answer) -> None:
        """Take note of an answer: the first one is the only one."""
        assert self.answers.setdefault(id, answer) == answer, id

    def note_row(self, row: dict[str, Any]) -> None:
        """Take note of an answer in a batch."""
        id = row["request_id"]
        if row["status"] == "ok":
            self.note(id, ("done", (row["balance"], row["commit"])))
        elif row["code"] in STORED_REFUSALS:
            self.note(id, ("refused", row["code"]))
        elif not row["definite"]:
            self.maybe.add(id)


async def client(bank: BankCluster, record: Record, rng: Random) -> None:
    """Make calls, one after the other; give some of them up half-way."""
    for _ in range(CALLS // 10):
        timeout_s = rng.choice([0.2, 0.5, 2.0])
        async with BankClient(
            [bank.location], handshake=SERVICE_HANDSHAKE, timeout_s=timeout_s
        ) as asked:
            for _ in range(10):
                batch = record.some(rng)
                ids = {operation["request_id"] for operation in batch}
                patience_s = rng.choice([None, None, None, 0.005, 0.02])
                try:
                    async with asyncio.timeout(patience_s):
                        for row in await asked.execute(batch):
                            record.note_row(row)
                except TimeoutError:
                    record.maybe |= ids
                except RmiError as error:
                    if not error.definite:
                        record.maybe |= ids


async def gateway_clients(bank: BankCluster, record: Record, rng: Random) -> None:
    """Ask a gateway for single operations, many at once; give some of them up half-way."""

    async def one(row: dict[str, Any], patience_s: float | None) -> None:
        id = row["request_id"]
        try:
            async with asyncio.timeout(patience_s):
                done = await gateway.execute(SERVICE_AS_CLIENT, parse_operation(row))
        except TimeoutError:
            record.maybe.add(id)
        except RmiError as error:
            record.note_row(
                {**row, "status": "error", "code": error.code, "definite": error.definite}
            )
        else:
            record.note_row({**row, "status": "ok", **done})

    async with (
        bank.name_servers() as names,
        Endpoints(
            names, "bank.business.", policy="less_busy", handshake=SERVICE_HANDSHAKE, timeout_s=2.0
        ) as endpoints,
    ):
        gateway = BankGateway(endpoints)
        for _ in range(CALLS // 4):
            rows = [row for _ in range(5) for row in record.some(rng)]
            await asyncio.gather(*(one(row, rng.choice([None, None, 0.02, 0.3])) for row in rows))
        await gateway.aclose()
        assert gateway._alone == 0


async def hold(bank: BankCluster, rng: Random, enough: asyncio.Event) -> None:
    """Hold some accounts for long, again and again."""
    while not enough.is_set():
        with contextlib.suppress(RmiError, KeyError):  # the data object may be away
            async with bank.proxy("bank.data", timeout_s=2.0) as data:
                held = await data.lock(9, rng.sample(ACCOUNTS, rng.choice([1, 3])), [], 1.0)
                await asyncio.sleep(rng.uniform(0, 0.8))
                if rng.random() < 0.5:
                    await data.unlock(held["lease"])
        await asyncio.sleep(rng.uniform(0, 0.5))


async def trouble(
    bank: BankCluster, store: FailingStore, rng: Random, enough: asyncio.Event
) -> None:
    """Make trouble, of one kind after the other, until there is enough of it."""

    async def hang_up() -> None:
        part = bank.parts[rng.choice(list(bank.parts))]
        for connection in part.daemon.connections:
            if rng.random() < 0.5:
                connection.abort()

    async def start_anew() -> None:
        number = rng.randint(1, bank.businesses)
        await bank.stop(f"bank.business.{number}")
        await bank.start_business(number)

    async def start_data_anew() -> None:
        store.may_fail = False
        await bank.stop("bank.data")
        await bank.start_data()

    async def fail() -> None:
        store.may_fail = not store.may_fail

    for kind in itertools.cycle([hang_up, fail, hang_up, start_anew, fail, start_data_anew]):
        if enough.is_set():
            return
        await kind()
        await asyncio.sleep(rng.uniform(0, 0.2))


def nothing_waits(rounds: Rounds) -> bool:
    """Say whether *rounds* has answered everybody, and knows of nobody who holds anything."""
    return not (rounds._count or rounds._queue or rounds._overtaken or rounds._held_up)


def judge(record: Record, bank: BankCluster) -> None:
    """Compare what clients were told with what the store says."""
    bank.check_books()
    ids = list(record.operations)
    stored: dict[str, Answer] = {}
    for start in range(0, len(ids), 500):
        known = bank.ledger.known([f"0:{id}" for id in ids[start : start + 500]])
        for key, outcome in known.items():
            result = decode_result(outcome)
            done = isinstance(result, Done)
            stored[key.removeprefix("0:")] = (
                ("done", (result.balance, result.commit)) if done else ("refused", result.code)
            )
    assert {id: stored.get(id) for id in record.answers} == record.answers
    unheard = stored.keys() - record.answers.keys()
    assert unheard <= record.maybe, "a definite error is a promise"


def judge_journal(path: Path, balances: dict[int, int | None]) -> None:
    """See that the journal is what the outcomes ask for, each once, and leads to *balances*."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        outcomes = connection.execute(
            "SELECT outcome, request_id, operation, result FROM outcomes ORDER BY outcome"
        ).fetchall()
        lines = connection.execute(
            "SELECT outcome, debit, credit, amount FROM journal ORDER BY line"
        ).fetchall()
    assert len({request_id for _, request_id, _, _ in outcomes}) == len(outcomes)
    asked = []
    for number, _, operation, result in outcomes:
        kind, *rest = operation.split()
        if result.startswith("["):
            continue  # refused
        first, second, amount = {
            "transfer": lambda a: (int(a[0]), int(a[1]), int(a[2])),
            "deposit": lambda a: (0, int(a[0]), int(a[1])),
            "withdrawal": lambda a: (int(a[0]), 0, int(a[1])),
            "open": lambda a: (0, int(a[0]), int(a[1])),
        }[kind](rest)
        asked.append((number, first, second, amount))
    assert lines == asked
    reached = dict.fromkeys(balances, 0)
    for _, debit, credit, amount in lines:
        reached[debit] = reached.get(debit, 0) - amount
        reached[credit] += amount
        assert debit == 0 or reached[debit] >= 0
    assert {account: reached[account] for account in balances} == balances


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_fails_each_answer_is_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    store = FailingStore(Random(seed), sqlite_store._write)
    monkeypatch.setattr(sqlite_store, "_write", store)
    record = Record()
    options = {"call_timeout_s": 2.0, "lock_wait_s": 0.3}
    async with BankCluster(tmp_path, 3, business_options=options) as bank:
        await bank.open_accounts(*ACCOUNTS, balance=BALANCE)
        enough = asyncio.Event()
        troubled = asyncio.ensure_future(trouble(bank, store, Random(seed), enough))
        holding = asyncio.ensure_future(hold(bank, Random(f"{seed}/hold"), enough))
        clients = [client(bank, record, Random(f"{seed}/{n}")) for n in range(CLIENTS)]
        await asyncio.gather(*clients, gateway_clients(bank, record, Random(f"{seed}/http")))
        enough.set()
        await asyncio.gather(troubled, holding)
        store.may_fail = False
        for name, served in bank.objects.items():
            if "business" in name:
                await eventually(lambda rounds=served._changes: nothing_waits(rounds))
        for name in list(bank.parts):
            await bank.stop(name)
        await bank.start_data()  # what is on disk now is the truth
        judge(record, bank)
        kinds = {kind for kind, _ in record.answers.values()}
        assert kinds == {"done", "refused"}, "a run without either shows nothing"
        assert record.maybe
        balances = dict(zip(ACCOUNTS, bank.balances(*ACCOUNTS), strict=True))
    judge_journal(tmp_path / "bank.sqlite", balances)

"""Bugs of the data object: its locks, its store, its reads."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rmi_torture.planted.parts import part


def no_fencing() -> None:
    """A lease is good for ever: whoever once held the lock may commit."""
    table = part("rmi_bank.locks:LockTable")
    state = part("rmi_bank.locks:State")
    grant = table._grant
    given: dict[int, Any] = {}

    def remember(self: Any, ticket: Any, now_s: float) -> None:
        grant(self, ticket, now_s)
        given[ticket.lease] = ticket

    def held(self: Any, lease: int, owner: Any, *, now_s: float) -> Any:
        ticket = given.get(lease)
        if ticket is None or ticket.owner != owner:
            raise part("rmi_bank.errors:StaleLease")(f"nobody ever had lease {lease}")
        return ticket

    def begin_commit(self: Any, ticket: Any) -> None:
        if ticket.state is state.HELD:
            ticket.state = state.COMMITTING

    table._grant, table.held, table.begin_commit = remember, held, begin_commit


def lease_outlives_owner() -> None:
    """The end of a connection ends nothing, and anybody may use its lease."""
    table = part("rmi_bank.locks:LockTable")
    held = table.held

    def held_by_anybody(self: Any, lease: int, owner: Any, *, now_s: float) -> Any:
        ticket = self._leases.get(lease)
        return held(self, lease, owner if ticket is None else ticket.owner, now_s=now_s)

    table.held = held_by_anybody
    table.drop_owner = lambda self, owner, *, now_s: []


def epoch_stands_still() -> None:
    """A restart does not raise the epoch: leases are numbered from the beginning again."""
    schema = part("rmi_bank.stores.schema")
    set_up = schema.set_up

    def set_up_again(connection: Any) -> None:
        set_up(connection)
        connection.execute("UPDATE state SET epoch = 1")

    schema.set_up = set_up_again


def unlock_too_early() -> None:
    """The accounts are free as soon as a commit is handed to the store."""
    data = part("rmi_bank.data:DataObject")
    write = data._write

    def write_and_free(self: Any, ticket: Any, record: Any) -> Any:
        written = write(self, ticket, record)
        self._desk.release(ticket)
        return written

    data._write = write_and_free


def acknowledged_before_written() -> None:
    """A commit is answered when it is handed to the store's thread."""
    ledger = part("rmi_bank.stores.sqlite:SqliteLedger")
    sqlite = part("rmi_bank.stores.sqlite")
    tasks: set[Any] = set()

    async def write_later(self: Any, records: Any) -> Any:
        plan = self._books.plan(records, self._clock_us())
        self._books.apply(plan)
        task = asyncio.ensure_future(self._writer.run(sqlite._write, plan))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return plan.commits

    ledger._write_group = write_later


def synced_now_and_then() -> None:
    """SQLite syncs its log only when it folds it into the file."""
    schema = part("rmi_bank.stores.schema")
    set_up = schema.set_up

    def set_up_carelessly(connection: Any) -> None:
        set_up(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=60")

    schema.set_up = set_up_carelessly


def seen_before_written() -> None:
    """Balances show what is not on disk yet."""
    ledger = part("rmi_bank.stores.sqlite:SqliteLedger")
    sqlite = part("rmi_bank.stores.sqlite")

    async def show_then_write(self: Any, records: Any) -> Any:
        plan = self._books.plan(records, self._clock_us())
        self._books.apply(plan)
        await asyncio.sleep(0.05)
        await self._writer.run(sqlite._write, plan)
        return plan.commits

    ledger._write_group = show_then_write


def lost_update() -> None:
    """Of commits that are written together, the last one wins."""
    books = part("rmi_bank.stores.books:Books")
    record_type = part("rmi_bank.stores:Record")
    plan = books.plan

    def plan_last(self: Any, records: Any, at_us: int) -> Any:
        *early, last = list(records)
        return plan(self, [*(record_type((), r.outcomes, r.opened) for r in early), last], at_us)

    books.plan = plan_last


def transfer_in_two_halves() -> None:
    """A transfer is a withdrawal and then a deposit, each in a transaction of its own."""
    ledger = part("rmi_bank.stores.sqlite:SqliteLedger")
    record_type = part("rmi_bank.stores:Record")
    posting_type = part("rmi_bank.rules:Posting")
    commit = ledger.commit

    def commit_halves(self: Any, record: Any) -> Any:
        first, second = [], []
        for debit, credit, amount, cause in record.postings:
            if debit and credit:
                first.append(posting_type(debit, 0, amount, cause))
                second.append(posting_type(0, credit, amount, -1))
            else:
                first.append(posting_type(debit, credit, amount, cause))
        keys = {*record.balances, *(outcome[0] for outcome in record.outcomes)}
        halves = record_type(first, record.outcomes, record.opened), record_type(second)
        for half in halves:
            self.check(half, keys)
        written = commit(self, halves[0])
        if second:
            commit(self, halves[1]).add_done_callback(lambda done: done.exception())
        return written

    ledger.commit = commit_halves


def no_request_id_check() -> None:
    """What is known of a request id is not looked up."""
    part("rmi_bank.stores.sqlite:SqliteLedger").known = lambda self, request_ids, none_up_to=0: {}


def stale_read() -> None:
    """Balances come from a cache that is a fifth of a second old."""
    desk = part("rmi_bank.account_desk:AccountDesk")
    balances = desk.balances
    cache: dict[tuple[int, ...], tuple[float, Any]] = {}

    def balances_from_cache(self: Any, accounts: Any, business_id: int = 0) -> Any:
        key = tuple(accounts)
        at_s, answer = cache.get(key, (0.0, None))
        now_s = time.monotonic()
        if answer is None or now_s - at_s > 0.2:
            answer = balances(self, accounts, business_id)
            cache[key] = now_s, answer
        return answer

    for name, value in vars(balances).items():  # what makes it a remote method
        setattr(balances_from_cache, name, value)
    desk.balances = balances_from_cache

"""The data object (Pyro name ``bank.data``): the only owner of the bank's state.

A business object locks accounts and request ids, decides, and commits under the lease it got. The
data object decides nothing about money; it makes sure that a commit is made by who holds the lease,
touches nothing but what is locked, keeps the books' rules, and is on disk before anybody hears or
sees anything of it.

A commit, step by step: lease and postings are checked; its keys are kept for as long as it takes;
it is written, with others, in one transaction; memory moves on; its keys are freed; it is answered.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from rmi_bank import operations as op
from rmi_bank import rules
from rmi_bank.account_desk import BUSINESS_ID_MAX, AccountDesk
from rmi_bank.demo import seed_demo
from rmi_bank.lock_desk import LockDesk
from rmi_bank.locks import LEASE_S_MAX, State, Ticket
from rmi_bank.oplines import COMMIT, GETLOCK, UNLOCK, DataEntry, data_lines
from rmi_bank.request_ids import new_request_id
from rmi_bank.store_keeper import StoreKeeper
from rmi_bank.stores import Ledger, Record
from rmi_bank.stores.schema import LOG_PAGES_MAX
from rmi_bank.stores.sqlite import SqliteLedger
from rmi_bank.token_desk import TokenDesk
from rmi_bank.values import accounts_of, checked_int, checked_seconds, record_of, request_ids_of
from rmi_runtime import (
    TROUBLE,
    Identity,
    OperationLog,
    ServiceContext,
    Settings,
    allow,
    current_call,
    expose,
    run_service,
)
from rmi_runtime.errors import DeadlinePassed, InvalidRequest, Unavailable

log = logging.getLogger(__name__)

TICKETS_MAX = 4096
WAIT_S_MAX = 60.0
FILE_NAME = "bank.sqlite"

SWITCH_INTERVAL_S = 0.0001
"""How long the event loop may keep the interpreter from the store's thread (Python: 5 ms). A commit
needs the interpreter a dozen times, for microseconds each; with 5 ms a busy loop would make it wait
50 ms. Batches of transfers: 38,000 a second with this, 33,000 with five times as long."""


@expose
@allow("service")
class DataObject(AccountDesk, TokenDesk):
    """Accounts, journal, outcomes and tokens, for services only. Made by :func:`open_data`.

    Args:
        ledger: where it all is kept.
        op_log: gets a line per account and step, or None.
        lease_s: how long a lease lives.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        op_log: OperationLog[DataEntry] | None = None,
        *,
        lease_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._op_log = op_log
        self._desk = LockDesk(lease_s=lease_s, tickets_max=TICKETS_MAX, clock=clock)
        self._connections: set[int] = set()  # those whose end we want to hear of
        self._store = StoreKeeper(ledger, self._desk)

    def lock(
        self,
        business_id: int,
        accounts: Sequence[int],
        request_ids: Sequence[str] = (),
        wait_s: float = 5.0,
        lease_s: float = LEASE_S_MAX,
        patience_s: float = WAIT_S_MAX,
    ) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """Lock accounts and request ids, all or none, in the order of asking.

        Args:
            business_id: who asks, for the log.
            accounts: their numbers; they need not have been opened. Cash (0) takes no lock.
            request_ids: scoped by client (``"7:…"``).
            wait_s: how long to wait at most, 0 to 60; never longer than the caller waits for the
                answer: a lease that comes after that would be nobody's.
            lease_s: how long the lease shall live, if that is less than any may (setting).
            patience_s: when one and the same lease of another has kept us waiting for so long,
                itself or by those who wait for it, give up at once, and name what is held up; 0 to
                60.

        Returns:
            ``lease``; ``balances`` and ``owners``, in the order of *accounts*, None where there is
            none; ``outcomes``: for each request id that is known, ``[operation, result, commit]``;
            ``cash``: the cash account's balance; ``commit``: the commit number all this is as of.

        Raises:
            LockTimeout: not all were free in time, or *patience_s* has passed; then its fields
                ``accounts`` and ``request_ids`` name what is held.
            Overloaded: too many leases and waiting callers.
            Unavailable: the store is not open.
            InvalidRequest: an argument is of the wrong type or out of range.
        """
        checked_int("business_id", business_id, 0, BUSINESS_ID_MAX)
        wait_s = min(checked_seconds("wait_s", wait_s, WAIT_S_MAX), _caller_waits_s())
        lease_s = checked_seconds("lease_s", lease_s, LEASE_S_MAX)
        patience_s = checked_seconds("patience_s", patience_s, WAIT_S_MAX)
        account_list = accounts_of(accounts)
        id_list = request_ids_of(request_ids)
        if not account_list and not id_list:
            raise InvalidRequest("lock at least one account or request id", field="accounts")
        keys: list[int | str] = [*account_list, *id_list]
        ticket, turn = self._desk.acquire(
            self._caller(),
            keys,
            wait_s=wait_s,
            business_id=business_id,
            lease_s=lease_s,
            patience_s=patience_s,
        )
        if turn is None:
            return self._granted(ticket, account_list, id_list)
        return self._granted_later(ticket, turn, account_list, id_list)

    def commit(
        self,
        lease: int,
        postings: Sequence[Sequence[int]],
        outcomes: Sequence[Sequence[str]] = (),
        opened: Sequence[Sequence[int | None]] = (),
    ) -> int | Awaitable[int]:
        """Commit under a lease, all or nothing, and free what it locked.

        Args:
            lease: from :meth:`lock`, on the same connection.
            postings: ``[debit, credit, amount]``, or with a fourth value: the place in *outcomes*
                of the request that caused it. Accounts must be locked by the lease, or cash (0).
            outcomes: ``[request id, operation, result]``; request ids locked by the lease. The
                last two are written by :mod:`rmi_bank.rules`, and kept as they come.
            opened: ``[account, owner or None]``: accounts to open.

        Returns:
            The commit number, when it is on disk. With nothing to write, that of the last commit.

        Raises:
            StaleLease: the lease is stale, another connection's, or expired. No effect.
            InvalidRequest, InsufficientFunds, UnknownAccount, AccountExists, BalanceLimit: a rule
                of the books would be broken. No effect; the lease is still held.
            Conflict: a request id has an outcome already. No effect; the lease is still held.
            StoreFull: nothing could be written. No effect; the lease is gone.
            Interrupted: the store failed; nobody knows. Lock the same request ids again to see.
        """
        ticket = self._desk.held(checked_int("lease", lease, 0, 2**63 - 1), self._caller())
        record = record_of(postings, outcomes, opened)
        if not record:
            self._desk.release(ticket)
            return self._ledger.commit_no
        return asyncio.shield(self._write(ticket, record))  # who gives up does not take it back

    def unlock(self, lease: int) -> None:
        """Free what a lease locked, without any effect.

        Raises:
            StaleLease: as :meth:`commit`; then it locks nothing any more.
        """
        ticket = self._desk.held(checked_int("lease", lease, 0, 2**63 - 1), self._caller())
        self._desk.release(ticket)
        self._log(ticket.business_id, UNLOCK, [(a, 0) for a in ticket.keys if isinstance(a, int)])

    async def open_account(
        self,
        account: int,
        balance: int = 0,
        owner: int | None = None,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """Open an account, with *balance* minor units of cash on it.

        Args:
            account: its number.
            balance: minor units.
            owner: client whose it is, or None.
            request_id: to do it once however often it is asked; None makes one.

        Returns:
            ``{"request_id", "account", "balance", "commit"}``

        Raises:
            AccountExists: it has been opened before.
            RequestIdReused: the id belongs to another operation.
        """
        fields = {"account": account, "balance": balance, "owner": owner}
        request_id = new_request_id() if request_id is None else request_id
        operation = op.parse_operation({"type": "open", **fields, "request_id": request_id})
        requests = [(op.Principal(0, rules.ADMIN), operation)]
        accounts, ids = rules.keys(requests)
        ticket, turn = self._desk.acquire(self, [*accounts, *ids], wait_s=WAIT_S_MAX)
        try:
            if turn is not None:
                await turn
                self._desk.held(ticket.lease, self)  # the desk may have been shut since
            decision = rules.decide(requests, self._books(accounts, ids))
            if decision.changes:
                record = Record(decision.postings, decision.outcomes, decision.opened)
                decision.settle(await asyncio.shield(self._write(ticket, record)))
        finally:
            if ticket.state is not State.COMMITTING:
                self._desk.release(ticket)
        outcome = decision.results[0]
        if isinstance(outcome, op.Refused):
            raise outcome.to_error()
        return {**op.outcome_dict(operation, outcome), "account": account}

    def _caller(self) -> Hashable:
        """Return whose leases the present call may use; they end with its connection."""
        try:
            connection = current_call().connection
        except LookupError:
            return None
        if connection is None:
            return None
        if connection.over:  # as in a stock client's batch, which goes on without it
            raise Unavailable("the caller has hung up, so nothing can be locked for it")
        if connection.id not in self._connections:
            self._connections.add(connection.id)
            connection.on_close(partial(self._hung_up, connection.id))
        return connection.id

    def _hung_up(self, connection_id: int) -> None:
        self._connections.discard(connection_id)
        self._desk.drop_owner(connection_id)

    def _books(self, accounts: list[int], request_ids: list[str]) -> rules.Books:
        """Return the state of what has just been locked."""
        ledger = self._ledger
        owners = zip(accounts, ledger.owners(accounts), strict=True)
        return rules.Books(
            dict(zip(accounts, ledger.balances(accounts), strict=True)),
            {account: owner for account, owner in owners if owner is not None},
            ledger.known(request_ids),
            ledger.balances([op.CASH])[0] or 0,
            ledger.commit_no,
        )

    def _granted_later(
        self, ticket: Ticket, turn: asyncio.Future[None], accounts: list[int], ids: list[str]
    ) -> asyncio.Future[dict[str, Any]]:
        """Answer when *turn* comes. No coroutine: one that is never begun gives nothing back."""
        ledger = self._ledger
        try:
            # Looked up while others hold the keys; when its turn comes, only what is new is left.
            seen = ledger.last_outcome
            none_up_to = 0 if ledger.known(ids) else seen
        except BaseException:
            self._desk.release(ticket)
            raise
        answer = asyncio.get_running_loop().create_future()

        def come(turn: asyncio.Future[None]) -> None:
            try:
                turn.result()
                if _caller_waits_s() <= 0:
                    raise DeadlinePassed("its turn came after the caller's deadline")
                if not answer.done():
                    answer.set_result(self._granted(ticket, accounts, ids, none_up_to))
            except (Exception, asyncio.CancelledError) as error:
                if not answer.done():
                    answer.set_exception(error)

        def answered(answer: asyncio.Future[dict[str, Any]]) -> None:
            if answer.cancelled() or answer.exception() is not None:
                self._desk.release(ticket)

        turn.add_done_callback(come)
        answer.add_done_callback(answered)
        return answer

    def _granted(
        self, ticket: Ticket, accounts: list[int], request_ids: list[str], none_up_to: int = 0
    ) -> dict[str, Any]:
        ledger = self._ledger
        try:
            known = ticket.settled = ledger.known(request_ids, none_up_to)
            answer = {
                "lease": ticket.lease,
                "balances": ledger.balances(accounts),
                "owners": ledger.owners(accounts),
                "outcomes": known,
                "cash": ledger.balances([op.CASH])[0],
                "commit": ledger.commit_no,
            }
        except BaseException:
            self._desk.release(ticket)
            raise
        self._log(ticket.business_id, GETLOCK, zip(accounts, repeat(0)))
        return answer

    def _write(self, ticket: Ticket, record: Record) -> asyncio.Future[int]:
        self._ledger.check(record, ticket.keys, ticket.settled)
        written = self._ledger.commit(record)
        self._desk.begin_commit(ticket)
        written.add_done_callback(partial(self._committed, ticket, record))
        return written

    def _committed(self, ticket: Ticket, record: Record, written: asyncio.Future[int]) -> None:
        """Free what a commit locked, whatever became of the commit and of its caller."""
        failed = written.cancelled() or written.exception() is not None
        try:
            self._store.look()
            if not failed:
                self._log(ticket.business_id, COMMIT, (record.balances or {}).items())
        finally:
            self._desk.release(ticket)

    def _log(self, business_id: int, kind: str, values: Iterable[tuple[int, int]]) -> None:
        if self._op_log is not None:
            self._op_log.append([(business_id, kind, values)])


def _caller_waits_s() -> float:
    try:
        return current_call().remaining_s(WAIT_S_MAX)
    except LookupError:  # within the process nobody sets a deadline
        return WAIT_S_MAX


@asynccontextmanager
async def open_data(
    ledger: Ledger,
    op_log: OperationLog[DataEntry] | None = None,
    *,
    lease_s: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[DataObject]:
    """Open the store and make the data object; close the store on the way out.

    Args:
        ledger: the store, not opened yet.
        op_log: gets a line per account and step, or None.
        lease_s: how long a lease lives.
        clock: monotonic, in seconds.
    """
    data = DataObject(ledger, op_log, lease_s=lease_s, clock=clock)
    await data._store.start()
    try:
        yield data
    finally:
        await data._store.close()


async def run_data(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Run the service ``bank.data`` until it is told to stop.

    Args:
        settings: the settings in force.
        stop: set it to stop. None: SIGTERM, SIGINT and SIGHUP stop it.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    ledger = SqliteLedger(Path(settings.data_dir) / FILE_NAME, log_pages=LOG_PAGES_MAX)

    async def identify(token_hash: str) -> Identity | None:
        """Let admins call the data object themselves."""
        found = ledger.identify(token_hash)
        return None if found is None else Identity("client", *found)

    @asynccontextmanager
    async def build(context: ServiceContext) -> AsyncIterator[DataObject]:
        await context.refuse_second()
        with OperationLog(context.log_path, data_lines, limits=context.log_limits) as op_log:
            async with open_data(ledger, op_log, lease_s=settings.lock_lease_s) as data:
                if settings.demo:
                    await seed_demo(ledger, Path(settings.data_dir))
                context.identify = identify
                context.before_drain = data._store.leave
                context.tell(TROUBLE, data._store.trouble)
                yield data

    await run_service("bank.data", build, settings, stop=stop)


if __name__ == "__main__":
    raise SystemExit("this module is no command; the service is started with: rmi data")

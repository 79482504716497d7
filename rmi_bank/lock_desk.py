"""The lock table at work: its clock, its timer, and those who wait.

The decisions are :class:`rmi_bank.locks.LockTable`'s; this adds what it has not: a monotonic clock,
a timer that ends what has run out of time, and futures for the callers whose turn has not come.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Hashable, Iterable

from rmi_bank.errors import LockTimeout
from rmi_bank.locks import LEASE_S_MAX, Key, LockTable, State, Ticket
from rmi_runtime.errors import RmiError, Unavailable

log = logging.getLogger(__name__)


class LockDesk:
    """Locks with waiting callers, on the running event loop.

    Args:
        lease_s: how long a lease lives.
        tickets_max: most tickets, waiting and granted together.
        clock: never goes back, in seconds.

    Attributes:
        expired: leases that ran out of time so far: their holders were too slow.
        shut_by: the error of those who come while it is shut.
    """

    def __init__(self, *, lease_s: float, tickets_max: int, clock: Callable[[], float]) -> None:
        self.expired = 0
        self._lease_s = lease_s
        self._tickets_max = tickets_max
        self._clock = clock
        self._table: LockTable | None = None
        self.shut_by: RmiError = Unavailable("the store is not open: open_data() opens it")
        self._waiting: dict[int, asyncio.Future[None]] = {}  # by serial
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0

    def __len__(self) -> int:
        """Number of tickets, waiting and granted."""
        return len(self._table) if self._table else 0

    def open(self, epoch: int) -> None:
        """Begin with nothing locked. Leases of other epochs are worth nothing."""
        self._table = LockTable(epoch, lease_s=self._lease_s, tickets_max=self._tickets_max)

    def shut(self, error: RmiError) -> None:
        """Forget all leases; who waits gets *error*, and whoever comes later the same words."""
        self._table = None
        self.shut_by = error
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)

    def why_shut(self) -> RmiError:
        """Return a new error of the same kind and words as :attr:`shut_by`."""
        return type(self.shut_by)(self.shut_by.message)

    def acquire(
        self,
        owner: Hashable,
        keys: Iterable[Key],
        *,
        wait_s: float,
        business_id: int = 0,
        lease_s: float = LEASE_S_MAX,
        patience_s: float = math.inf,
    ) -> tuple[Ticket, asyncio.Future[None] | None]:
        """Ask for *keys*, all or none; see :meth:`LockTable.request`.

        Returns:
            The ticket, and None if it is granted; else a future that is done when it is, and fails
            with ``LockTimeout`` or ``Unavailable``. Whoever stops waiting must :meth:`release`.

        Raises:
            Overloaded: too many tickets.
            Unavailable: the desk is shut.
        """
        now_s = self._clock()
        table = self._open_table()
        ticket = table.request(
            owner,
            keys,
            now_s=now_s,
            wait_s=wait_s,
            business_id=business_id,
            lease_s=lease_s,
            patience_s=patience_s,
        )
        self._arm(min(ticket.ends_at_s, ticket.look_at_s))
        if ticket.state is State.HELD:
            return ticket, None
        future = asyncio.get_running_loop().create_future()
        self._waiting[ticket.serial] = future
        return ticket, future

    def held(self, lease: int, owner: Hashable) -> Ticket:
        """Return the ticket of a lease its owner may use now.

        Raises:
            StaleLease: it may not.
            Unavailable: the desk is shut.
        """
        return self._open_table().held(lease, owner, now_s=self._clock())

    def begin_commit(self, ticket: Ticket) -> None:
        """Keep its keys until :meth:`release`, whatever happens."""
        self._open_table().begin_commit(ticket)

    def release(self, ticket: Ticket) -> None:
        """End a ticket, in whatever state, and let the next ones in."""
        self._waiting.pop(ticket.serial, None)
        if self._table is not None:
            self._let_in(self._table.release(ticket, now_s=self._clock()))

    def drop_owner(self, owner: Hashable) -> None:
        """End all that an owner has or waits for, but for what is being committed.

        Who waits is cancelled: a stock client's calls are not given up when it hangs up, and the
        turn of a ticket that is over would never come.
        """
        table = self._table
        if table is None:
            return
        waiting = [self._waiting.pop(serial, None) for serial in table.serials(owner)]
        self._let_in(table.drop_owner(owner, now_s=self._clock()))
        for future in waiting:
            if future is not None:
                future.cancel()

    def _open_table(self) -> LockTable:
        if self._table is None:
            raise self.why_shut()
        return self._table

    def _let_in(self, granted: list[Ticket]) -> None:
        for ticket in granted:
            future = self._waiting.pop(ticket.serial, None)
            if future is not None and not future.done():
                future.set_result(None)
            # If it is done the caller was cancelled in this very turn, and releases the ticket.
            self._arm(ticket.ends_at_s)

    def _arm(self, at_s: float) -> None:
        """Have the timer ring at *at_s*, or before."""
        if self._timer is not None:
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._timer_at_s = at_s
        delay_s = max(0.0, at_s - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        table = self._table
        if table is None:
            return
        changes = table.expire(self._clock())
        for ticket in changes.timed_out:
            future = self._waiting.pop(ticket.serial, None)
            if future is not None and not future.done():
                future.set_exception(_too_long(ticket))
        for ticket in changes.expired:
            self.expired += 1
            log.warning(
                "lease %d of business object %d expired before it was committed or unlocked",
                ticket.lease,
                ticket.business_id,
            )
        self._let_in(changes.granted)
        next_end_s = table.next_end_s()
        if next_end_s is not None:
            self._arm(next_end_s)


def _too_long(ticket: Ticket) -> LockTimeout:
    """Return what somebody is told who has waited long enough."""
    if not ticket.held_up:
        return LockTimeout(
            f"{len(ticket.keys)} accounts and request ids were not free in time; try again"
        )
    accounts = sorted(key for key in ticket.held_up if isinstance(key, int))
    request_ids = sorted(key for key in ticket.held_up if isinstance(key, str))
    wanted = sorted(map(str, ticket.held_up & ticket.keys))
    return LockTimeout(
        f"{len(wanted)} accounts and request ids, {wanted[0]} among them, are held up by a lease "
        f"that is {ticket.patience_s:g} s old or older; try again, or go on without them",
        accounts=accounts,
        request_ids=request_ids,
    )

"""The lock table: who may commit on which accounts, and in which order they get the right.

Plain decisions: no socket, no clock (``now_s`` is handed in), no randomness.

A *ticket* asks for a set of keys, all or none. It joins the queue of every one of its keys in one
step, so two tickets stand in the same order in every queue they share: the waits-for graph has no
cycle (no deadlock), and nobody is ever overtaken on a key (strict FIFO, no starvation). A ticket is
granted when it stands at the front of all its queues; it then has a *lease*.

A lease is a fencing number: ``epoch << 32 | counter``. It rises with every grant, and the epoch
rises with every start of the data object, so a lease from before a restart is never valid again.
A lease dies with its owner's connection and after its time, except while it is being committed:
then it lives until the commit has ended, because accounts freed in the middle of a commit would
show, or worse lose, what that commit writes.

Keys are account numbers and request ids alike. Locking a request id makes two attempts at one
request wait for each other, so that the second one sees the first one's outcome.

Whoever waits keeps others from all its keys, also from those that are free. That is short as long
as leases are; so a ticket may have *patience*: when one and the same lease has kept it waiting for
so long, it gives up, and is told what such leases hold, to go on without. With whoever waits for
such a lease, and would go on waiting, it has no more patience than with the lease itself.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field

from rmi_bank.errors import StaleLease
from rmi_runtime.errors import Overloaded

Key = int | str

EPOCH_MAX = 2**31 - 1
"""A lease fits in 63 bits: the epoch has 31 of them, the counter 32."""

LEASE_S_MAX = 300.0
"""Longest life of a lease that can be asked for."""

HELD_UP_MAX = 4096
"""So many keys that are held for long are enough to be told of at once."""

_COUNTER_BITS = 32
_ENDS_SPARE = 1024  # out-of-date ends kept before they are swept out
_LOOK_S_MIN = 0.01  # how often somebody without any patience looks again


class State(enum.Enum):
    """Where a ticket stands."""

    WAITING = "waiting"
    HELD = "held"
    COMMITTING = "committing"
    OVER = "over"


@dataclass(eq=False, slots=True)
class Ticket:
    """One request for keys, from the queue to the release.

    Attributes:
        owner: whose lease it is (or will be); anything hashable.
        keys: what it locks.
        lease: the fencing number, 0 until granted.
        state: where it stands.
        ends_at_s: when it gives up waiting, or, once granted, when the lease expires.
        blocked: on how many of its keys somebody stands in front of it.
        serial: order of arrival.
        business_id: for whom the owner asks; only told, never compared.
        settled: those of its request ids that had an outcome when it was granted.
        lease_s: how long its lease shall live at most.
        patience_s: how long a lease may have been held that keeps it waiting, itself or by others
            who wait for it.
        since_s: when it was granted.
        look_at_s: when to look next for a lease that has been held for longer.
        held_up: what such leases hold, and who waits for them, when it gave up because of them.
    """

    owner: Hashable
    keys: frozenset[Key]
    ends_at_s: float
    serial: int
    business_id: int = 0
    lease: int = 0
    state: State = State.WAITING
    blocked: int = 0
    settled: Collection[str] = ()
    lease_s: float = LEASE_S_MAX
    patience_s: float = math.inf
    since_s: float = 0.0
    look_at_s: float = math.inf
    held_up: frozenset[Key] = frozenset()


@dataclass(slots=True)
class Changes:
    """What a step of the lock table led to.

    Attributes:
        granted: tickets that now hold their keys, in order of arrival.
        timed_out: tickets that gave up waiting, for good or to go on without what is held up.
        expired: leases that ran out of time.
    """

    granted: list[Ticket] = field(default_factory=list)
    timed_out: list[Ticket] = field(default_factory=list)
    expired: list[Ticket] = field(default_factory=list)


class LockTable:
    """All-or-none locks on sets of keys, with FIFO queues and fenced leases.

    Args:
        epoch: number of this start, 1 to :data:`EPOCH_MAX`, higher than that of any start before.
        lease_s: how long a lease lives from its grant, unless less was asked for.
        tickets_max: most tickets, waiting and granted together.
    """

    def __init__(self, epoch: int, *, lease_s: float = 10.0, tickets_max: int = 4096) -> None:
        if not 1 <= epoch <= EPOCH_MAX:
            raise ValueError(f"the epoch must be 1 to {EPOCH_MAX}, not {epoch}")
        self._base = epoch << _COUNTER_BITS
        self._granted_count = 0
        self._serial = 0
        self._lease_s = lease_s
        self._tickets_max = tickets_max
        self._front: dict[Key, Ticket] = {}  # who is served on a key: holds it, or is next to
        self._behind: dict[Key, deque[Ticket]] = {}  # who waits behind the front; never empty
        self._leases: dict[int, Ticket] = {}
        self._owners: dict[Hashable, dict[int, Ticket]] = {}  # owner -> serial -> ticket
        self._tickets: dict[int, Ticket] = {}  # serial -> ticket, those over taken out
        self._ends: list[tuple[float, int]] = []  # heap of (when, serial); some are out of date

    def __len__(self) -> int:
        """Number of tickets, waiting and granted."""
        return len(self._tickets)

    @property
    def waiting(self) -> int:
        """Number of tickets that wait."""
        return len(self._tickets) - len(self._leases)

    def request(
        self,
        owner: Hashable,
        keys: Iterable[Key],
        *,
        now_s: float,
        wait_s: float,
        business_id: int = 0,
        lease_s: float = LEASE_S_MAX,
        patience_s: float = math.inf,
    ) -> Ticket:
        """Ask for *keys*, all or none.

        Args:
            owner: who asks; :meth:`drop_owner` ends everything of one owner.
            keys: at least one; repeated ones count once.
            now_s: the present, on a clock that never goes back.
            wait_s: how long to wait at most; 0 is granted at once or not at all, by the next
                :meth:`expire`.
            business_id: kept on the ticket.
            lease_s: how long the lease shall live, if that is less than any may.
            patience_s: when to stop waiting for a lease that has been held for so long; looked at
                each time that this has passed.

        Returns:
            The ticket, HELD if all its keys were free, else WAITING.

        Raises:
            Overloaded: there are too many tickets.
            ValueError: no keys.
        """
        if len(self._tickets) >= self._tickets_max:
            raise Overloaded(
                f"{len(self._tickets)} lock requests are waiting or granted, which is the bound; "
                "try again later",
                tickets_max=self._tickets_max,
            )
        self._serial += 1
        ticket = Ticket(owner, frozenset(keys), now_s + wait_s, self._serial, business_id)
        ticket.lease_s = min(lease_s, self._lease_s)
        if not ticket.keys:
            raise ValueError("a lock needs at least one key")
        blocked = 0
        if self._front.keys().isdisjoint(ticket.keys):
            self._front.update(dict.fromkeys(ticket.keys, ticket))
        else:
            blocked = self._queue(ticket)
        self._tickets[ticket.serial] = ticket
        self._owners.setdefault(owner, {})[ticket.serial] = ticket
        ticket.blocked = blocked
        if blocked:
            self._watch(ticket, ticket.ends_at_s)
            ticket.patience_s = patience_s
            self._look_later(ticket, now_s)
        else:
            self._grant(ticket, now_s)
        return ticket

    def _queue(self, ticket: Ticket) -> int:
        """Put *ticket* in the queues of all its keys; return on how many it has to wait."""
        front, behind = self._front, self._behind
        blocked = 0
        for key in ticket.keys:
            if front.setdefault(key, ticket) is not ticket:
                blocked += 1
                queue = behind.get(key)
                if queue is None:
                    behind[key] = deque((ticket,))
                else:
                    queue.append(ticket)
        return blocked

    def held(self, lease: int, owner: Hashable, *, now_s: float) -> Ticket:
        """Return the ticket of a lease that its owner may commit or unlock now.

        Raises:
            StaleLease: unknown, another owner's, expired, or being committed already.
        """
        ticket = self._leases.get(lease)
        if ticket is None or ticket.owner != owner:
            raise StaleLease(
                f"lease {lease} is not one this connection holds: it has expired, was committed or "
                "unlocked, belongs to another connection, or is from before a restart; lock again",
                lease=lease,
            )
        if ticket.state is State.COMMITTING:
            raise StaleLease(f"lease {lease} is being committed already", lease=lease)
        if now_s >= ticket.ends_at_s:
            raise StaleLease(f"lease {lease} has expired; lock again", lease=lease)
        return ticket

    def begin_commit(self, ticket: Ticket) -> None:
        """Keep a held ticket's keys, whatever happens, until :meth:`release`."""
        if ticket.state is not State.HELD:
            raise ValueError(f"a ticket that is {ticket.state.value} cannot be committed")
        ticket.state = State.COMMITTING

    def release(self, ticket: Ticket, *, now_s: float) -> list[Ticket]:
        """End *ticket*, in whatever state: unlock, end of a commit, or a caller that gave up.

        Returns:
            The tickets granted by that. Ending a ticket twice, or one of another table, is
            harmless.
        """
        if self._tickets.get(ticket.serial) is not ticket:
            return []
        return self._end([ticket], now_s)

    def serials(self, owner: Hashable) -> list[int]:
        """Return the serials of all tickets of an owner, in order of arrival."""
        return list(self._owners.get(owner, ()))

    def drop_owner(self, owner: Hashable, *, now_s: float) -> list[Ticket]:
        """End all tickets of an owner that is gone, except those being committed.

        Returns:
            The tickets granted by that, all of other owners.
        """
        tickets = self._owners.get(owner, {})
        return self._end([t for t in tickets.values() if t.state is not State.COMMITTING], now_s)

    def expire(self, now_s: float) -> Changes:
        """End what has run out of time at *now_s*."""
        changes = Changes()
        over: dict[int, Ticket] = {}
        while self._ends and self._ends[0][0] <= now_s:
            ticket = self._ending(heapq.heappop(self._ends))
            # Its wait and its lease may end at the same moment: then it is met twice.
            if ticket is None or ticket.serial in over:
                continue
            waiting = ticket.state is State.WAITING
            if waiting and now_s < ticket.ends_at_s:
                ticket.held_up = self._held_up(ticket, now_s)
                if not ticket.held_up:
                    self._look_later(ticket, now_s)
                    continue
            (changes.timed_out if waiting else changes.expired).append(ticket)
            over[ticket.serial] = ticket
        changes.granted = self._end(list(over.values()), now_s)
        return changes

    def next_end_s(self) -> float | None:
        """Return when :meth:`expire` has something to do next at the earliest, or None."""
        while self._ends:
            if self._ending(self._ends[0]) is not None:
                return self._ends[0][0]
            heapq.heappop(self._ends)
        return None

    def _look_later(self, ticket: Ticket, now_s: float) -> None:
        ticket.look_at_s = now_s + max(ticket.patience_s, _LOOK_S_MIN)
        if ticket.look_at_s < ticket.ends_at_s:
            self._watch(ticket, ticket.look_at_s)

    def _held_up(self, ticket: Ticket, now_s: float) -> frozenset[Key]:
        """Return what those hold, or wait for, with whom *ticket* has no patience any more.

        All of their accounts, since whoever goes on without one of them may want another next; of
        the request ids only those of *ticket*. The oldest leases first, and no more of them than
        are needed for :data:`HELD_UP_MAX` keys. A commit is no matter of patience: it is up to the
        disk.
        """
        found: set[Key] = set()
        for front in sorted(self._fronts(ticket), key=lambda front: front.lease or math.inf):
            if self._lasts(front, ticket.patience_s, now_s):
                found |= {key for key in front.keys if type(key) is int or key in ticket.keys}
            if len(found) >= HELD_UP_MAX:
                break
        return frozenset(found)

    def _fronts(self, ticket: Ticket) -> set[Ticket]:
        return {self._front[key] for key in ticket.keys}

    def _lasts(self, front: Ticket, patience_s: float, now_s: float) -> bool:
        """Say whether *front* is a lease held for so long, or waits for one with more patience.

        Who has no more patience than that will be out of the way as soon.
        """
        seen: set[Ticket] = set()
        ahead = {front}
        while ahead:
            one = ahead.pop()
            if one.state is State.HELD and one.since_s + patience_s <= now_s:
                return True
            if one.state is State.WAITING and one.patience_s > patience_s and one not in seen:
                seen.add(one)
                ahead |= self._fronts(one)
        return False

    def _watch(self, ticket: Ticket, at_s: float) -> None:
        heapq.heappush(self._ends, (at_s, ticket.serial))
        if len(self._ends) > 2 * len(self._tickets) + _ENDS_SPARE:
            self._ends = [end for end in self._ends if self._ending(end) is not None]
            heapq.heapify(self._ends)

    def _ending(self, end: tuple[float, int]) -> Ticket | None:
        """Return the ticket that ends or looks then; None if it does neither any more."""
        ticket = self._tickets.get(end[1])
        if ticket is None or ticket.state is State.COMMITTING:
            return None
        looks = ticket.state is State.WAITING and ticket.look_at_s == end[0]
        return ticket if looks or ticket.ends_at_s == end[0] else None

    def _grant(self, ticket: Ticket, now_s: float) -> None:
        self._granted_count += 1
        ticket.lease = self._base + self._granted_count
        ticket.state = State.HELD
        ticket.since_s = now_s
        ticket.ends_at_s = now_s + ticket.lease_s
        self._leases[ticket.lease] = ticket
        self._watch(ticket, ticket.ends_at_s)

    def _end(self, tickets: list[Ticket], now_s: float) -> list[Ticket]:
        """Take *tickets* out of all queues, and grant what has come to the front everywhere.

        Grants are made only when all of them are out, so that none goes to one that ends too.
        """
        front, behind = self._front, self._behind
        forward: list[Ticket] = []
        for ticket in tickets:
            self._forget(ticket)
            if not behind:  # nobody waits for anything
                for key in ticket.keys:
                    del front[key]
                continue
            for key in ticket.keys:
                queue = behind.get(key)
                if front[key] is not ticket:
                    assert queue is not None
                    queue.remove(ticket)
                elif queue is None:
                    del front[key]
                else:
                    follower = front[key] = queue.popleft()
                    follower.blocked -= 1
                    if not follower.blocked:
                        forward.append(follower)
                if queue is not None and not queue:
                    del behind[key]
        granted = [ticket for ticket in forward if ticket.state is State.WAITING]
        granted.sort(key=lambda ticket: ticket.serial)
        for ticket in granted:
            self._grant(ticket, now_s)
        return granted

    def _forget(self, ticket: Ticket) -> None:
        ticket.state = State.OVER
        del self._tickets[ticket.serial]
        self._leases.pop(ticket.lease, None)
        owned = self._owners[ticket.owner]
        del owned[ticket.serial]
        if not owned:
            del self._owners[ticket.owner]

"""One round of operations: lock all they touch, decide, commit once.

What fails definitely is tried again until the deadline: the lock took too long, the lease was lost,
the data object was away. A commit whose reply never came is *in doubt*. Then the same request ids
are locked again, which waits for the commit if it is still under way; whatever the outcomes are
then is the truth, and what is not among them is decided anew. So no operation is done twice and
none is reported done that was not.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rmi_bank import rules
from rmi_bank.errors import BalanceLimit, LockTimeout, StaleLease, StoreFull
from rmi_bank.locks import Key
from rmi_bank.operations import BalanceQuery, Done, Outcome, Refused, Request
from rmi_runtime.errors import (
    Conflict,
    DeadlinePassed,
    Draining,
    Indefinite,
    Interrupted,
    Overloaded,
    RmiError,
    Unavailable,
)

PAUSE_S_MIN = 0.002
PAUSE_S_MAX = 0.1

_REPLY_S = 0.5  # how much longer than the lock itself may wait its reply may take

LEASE_S = 2.5
"""Longest life of the leases asked for. They are needed for milliseconds; but if this process is
frozen meanwhile, the others wait so long for its accounts, and for whatever they have gathered with
operations on these. Whoever was only slow locks again."""

UNLOCK_S = 1.0
"""Longest wait for an unlock, also when the deadline has passed: else accounts would stay locked
until the lease ends by itself."""

PATIENCE_S = 0.25
"""How long one lease of another may keep a round from its accounts, in seconds: a hundred times
what one takes. Then the round goes on without what that holds (:mod:`rmi_bank.held_up`)."""

_PASSING = (StaleLease, LockTimeout, Overloaded, Unavailable, Draining, DeadlinePassed, StoreFull)
"""Definite failures that another try may not meet."""

_PASSING_COMMITS = (*_PASSING, BalanceLimit, Conflict)
"""The same for commits: there the rules may decide otherwise on the next state."""


class Unfinished(Exception):
    """A round has ended with an error, but some of its operations had an outcome before.

    Args:
        error: what came of the others.
        on_record: those outcomes, by the place of the operation in the round.
    """

    def __init__(self, error: RmiError, on_record: Mapping[int, Outcome]) -> None:
        super().__init__(str(error))
        self.error = error
        self.on_record = on_record


class DataCaller(Protocol):
    """How the data object is called; :class:`rmi_runtime.Endpoints` fits."""

    async def call(
        self,
        method: str,
        *args: Any,
        timeout_s: float | None = None,
        repeatable: bool = False,
        late: Callable[[Any], None] | None = None,
    ) -> Any:
        """Call a method of the data object; *late* takes what nobody waits for any more."""


class Execution:
    """Carries out rounds of operations against the data object.

    Args:
        data: how it is called. Lock and commit must go through one connection, as long as it
            stands.
        business_id: who we are, for its log.
        lock_wait_s: longest wait for a lock before it is asked for again.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        data: DataCaller,
        business_id: int,
        *,
        lock_wait_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._data = data
        self._business_id = business_id
        self._lock_wait_s = lock_wait_s
        self._clock = clock
        self._giving_back: set[asyncio.Future[None]] = set()

    async def change(
        self, requests: Sequence[Request], deadline_s: float, patience_s: float = PATIENCE_S
    ) -> tuple[list[Outcome], list[int]]:
        """Do *requests*, in their order.

        Args:
            requests: for whom, and what.
            deadline_s: by the clock; when to give up.
            patience_s: how long one lease of another may keep them from their accounts.

        Returns:
            One outcome per request, and the places of those that were done now (neither refused nor
            known before).

        Raises:
            Unavailable, LockTimeout, Overloaded, StoreFull: nothing was done. If it is a
                ``LockTimeout`` that names what somebody holds for long, there is time left to go on
                without it.
            Interrupted: nobody knows; ask again with the same request ids.
            Unfinished: one of these, but some of the request ids have an outcome on record.
        """
        accounts, request_ids = rules.keys(requests)
        in_doubt: Indefinite | None = None
        on_record: dict[int, Outcome] = {}
        pause_s = PAUSE_S_MIN
        while True:
            failure: RmiError
            try:
                patience = patience_s if in_doubt is None else self._lock_wait_s
                grant = await self._lock(accounts, request_ids, deadline_s, patience)
            except (*_PASSING, Indefinite) as error:
                if in_doubt is None and "accounts" in error.fields:
                    raise
                failure = error
            except RmiError as error:
                if in_doubt is None:
                    raise
                raise _given_up(error, in_doubt, on_record) from error
            else:
                in_doubt = None  # what it did is in the outcomes, or it never will be
                try:
                    decision = await self._decide(requests, accounts, grant)
                    on_record = _on_record(requests, grant["outcomes"], decision.results)
                    await self._commit(grant["lease"], decision, deadline_s)
                    return decision.results, decision.done
                except Indefinite as error:
                    failure = in_doubt = error
                except _PASSING_COMMITS as error:
                    failure = error
            if self._clock() + pause_s >= deadline_s:
                raise _given_up(failure, in_doubt, on_record) from failure
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def read(self, requests: Sequence[Request], deadline_s: float) -> list[Outcome]:
        """Read balances, all as of one commit number.

        Args:
            requests: balance queries only.
            deadline_s: by the clock; when to give up.

        Returns:
            One outcome per request.

        Raises:
            Unavailable, Overloaded: as they say.
        """
        accounts, _ = rules.keys(requests)
        try:
            found = await self._data.call(
                "balances",
                accounts,
                self._business_id,
                timeout_s=self._left_s(deadline_s),
                repeatable=True,
            )
        except Indefinite as error:
            raise Unavailable(f"no balances in time: {error.message}") from error
        balances = dict(zip(accounts, found["balances"], strict=True))
        owners = dict(zip(accounts, found["owners"], strict=True))
        outcomes: list[Outcome] = []
        for principal, operation in requests:
            account = operation.account  # type: ignore[union-attr]
            try:
                if balances[account] is None:
                    raise rules.unknown_account(account)
                rules.check_reader(principal, account, owners[account])
                outcomes.append(Done(balances[account], found["commit"]))
            except RmiError as error:
                outcomes.append(Refused.from_error(error))
        return outcomes

    async def probe(self, keys: Sequence[Key], wait_s: float) -> None:
        """Lock keys and free them again.

        Args:
            keys: accounts and request ids.
            wait_s: how long to wait for them at most.

        Raises:
            LockTimeout: they were not free in time, or one lease has been held for so long that
                it names which of them that holds.
            RmiError: nobody knows.
        """
        grant = await self._data.call(
            "lock",
            self._business_id,
            [key for key in keys if isinstance(key, int)],
            [key for key in keys if isinstance(key, str)],
            wait_s,
            LEASE_S,
            PATIENCE_S,
            timeout_s=wait_s + _REPLY_S,
            late=self._give_back,
        )
        await self._unlock(grant["lease"])

    async def _lock(
        self, accounts: list[int], request_ids: list[str], deadline_s: float, patience_s: float
    ) -> dict[str, Any]:
        left_s = self._left_s(deadline_s)
        wait_s = min(self._lock_wait_s, max(left_s - _REPLY_S, left_s / 2))
        grant: dict[str, Any] = await self._data.call(
            "lock",
            self._business_id,
            accounts,
            request_ids,
            wait_s,
            LEASE_S,
            patience_s,
            timeout_s=left_s,
            late=self._give_back,
        )
        return grant

    def _give_back(self, grant: dict[str, Any]) -> None:
        """Unlock what was granted when nobody waited for it any more.

        The connection lives on, so nothing else would end such a lease before its time.
        """
        task = asyncio.ensure_future(self._unlock(grant["lease"]))
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)

    async def _decide(
        self, requests: Sequence[Request], accounts: list[int], grant: dict[str, Any]
    ) -> rules.Decision:
        """Decide under a lease, which is freed if there is nothing to commit."""
        try:
            decision = rules.decide(requests, _books(accounts, grant))
        except Exception:
            await self._unlock(grant["lease"])
            raise
        if not decision.changes:
            await self._unlock(grant["lease"])
        return decision

    async def _commit(self, lease: int, decision: rules.Decision, deadline_s: float) -> None:
        if not decision.changes:
            return
        try:
            number = await self._data.call(
                "commit",
                lease,
                decision.postings,
                decision.outcomes,
                decision.opened,
                timeout_s=self._left_s(deadline_s),
            )
        except StaleLease:
            raise
        except RmiError as error:
            if error.definite:
                await self._unlock(lease)
            raise
        decision.settle(number)

    async def _unlock(self, lease: int) -> None:
        """Free what was locked. If that fails, the lease ends by itself."""
        with contextlib.suppress(RmiError):
            await self._data.call("unlock", lease, timeout_s=UNLOCK_S)

    def _left_s(self, deadline_s: float) -> float:
        return max(0.001, deadline_s - self._clock())


def _books(accounts: list[int], grant: dict[str, Any]) -> rules.Books:
    owners = zip(accounts, grant["owners"], strict=True)
    return rules.Books(
        dict(zip(accounts, grant["balances"], strict=True)),
        {account: owner for account, owner in owners if owner is not None},
        {key: rules.Known(*known) for key, known in grant["outcomes"].items()},
        grant["cash"],
        grant["commit"],
    )


def _on_record(
    requests: Sequence[Request], known: Mapping[str, Any], results: Sequence[Outcome]
) -> dict[int, Outcome]:
    """Return the outcomes among *results* that were there before, by place."""
    if not known:
        return {}
    return {
        place: results[place]
        for place, (principal, operation) in enumerate(requests)
        if not isinstance(operation, BalanceQuery)
        and rules.scoped(principal.client, operation.request_id) in known
    }


def _given_up(
    failure: RmiError, in_doubt: Indefinite | None, on_record: Mapping[int, Outcome]
) -> RmiError | Unfinished:
    """Return what to end with; it is definite only if certainly nothing was done."""
    error: RmiError
    if in_doubt is not None:
        error = Interrupted(
            f"no answer came to a commit ({in_doubt.message}), and the data object could not be "
            "asked again in time; ask again with the same request ids"
        )
    elif isinstance(failure, (LockTimeout, Overloaded, StoreFull, Unavailable)):
        error = failure
    else:
        error = Unavailable(f"nothing was done before the deadline: {failure.message}")
    return Unfinished(error, on_record) if on_record else error

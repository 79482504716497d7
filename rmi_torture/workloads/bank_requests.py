"""Which operations the bank's clients ask for: chosen by a seed, hot accounts on purpose."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

TRIES_MAX = 6
"""How often one request id is tried while nobody knows its end."""

REPEATED = 0.02
"""Share of the acknowledged requests that are asked again, for the same answer."""

REUSED = 0.01
"""Share of them whose id is used again for another amount, which must be refused."""

HOT = 0.5
"""Share of the choices that fall on the two hottest accounts."""

AMOUNT_MAX = 400


@dataclass(frozen=True, slots=True)
class Wish:
    """An operation that a client wants done.

    Attributes:
        f: ``deposit``, ``withdrawal``, ``transfer`` or ``balance``.
        asked: its arguments, with the request id.
        tries: how often it has been tried without an answer.
    """

    f: str
    asked: dict[str, Any]
    tries: int = 0

    def as_batch_item(self) -> dict[str, Any]:
        """Return it as ``execute`` and ``POST /bank/batches`` take it."""
        return {"type": self.f, **self.asked}


class Requests:
    """An endless list of wishes of one client; those without an answer come again.

    Args:
        rng: chooses.
        name: of the client; its request ids begin with it.
        accounts: to choose from, the hottest first.
    """

    def __init__(self, rng: Random, name: str, accounts: Sequence[int]) -> None:
        self._rng = rng
        self._name = name
        self._accounts = accounts
        self._count = 0
        self._again: deque[Wish] = deque()

    def next(self, reads: bool = True) -> Wish:
        """Return the next wish.

        Args:
            reads: it may be a balance.
        """
        if self._again:
            return self._again.popleft()
        return self._new(reads)

    def _new(self, reads: bool) -> Wish:
        rng = self._rng
        f = rng.choices(_KINDS, _WEIGHTS if reads else _WEIGHTS_WITHOUT_READS)[0]
        account = self._account()
        if f == "balance":
            return Wish(f, {"account": account})
        self._count += 1
        asked: dict[str, Any] = {
            "amount": rng.randint(1, AMOUNT_MAX),
            "request_id": f"{self._name}-{self._count}",
        }
        if f == "transfer":
            target = self._account()
            while target == account:
                target = self._account()
            asked |= {"source": account, "target": target}
        else:
            asked["account"] = account
        return Wish(f, asked)

    def _account(self) -> int:
        if self._rng.random() < HOT:
            return self._rng.choice(self._accounts[:2])
        return self._rng.choice(self._accounts)

    def answered(self, wish: Wish) -> None:
        """Note that *wish* was fulfilled; now and then it, or its id, is asked with again."""
        if wish.f == "balance" or wish.tries:
            return
        chance = self._rng.random()
        if chance < REPEATED:
            self._again.append(Wish(wish.f, wish.asked, TRIES_MAX))
        elif chance < REPEATED + REUSED:
            another = {**wish.asked, "amount": wish.asked["amount"] + 1}
            self._again.append(Wish(wish.f, another, TRIES_MAX))

    def unanswered(self, wish: Wish) -> None:
        """Note that nobody knows what became of *wish*: it is asked again, with its id."""
        if wish.f != "balance" and wish.tries < TRIES_MAX:
            self._again.append(Wish(wish.f, wish.asked, wish.tries + 1))

    @property
    def in_doubt(self) -> int:
        """How many wishes wait to be asked again."""
        return len(self._again)


_KINDS = ("transfer", "deposit", "withdrawal", "balance")
_WEIGHTS = (60, 14, 14, 12)
_WEIGHTS_WITHOUT_READS = (70, 15, 15, 0)

"""What one caller hands in to be carried out: operations, and where their outcomes go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rmi_bank import rules
from rmi_bank.locks import Key
from rmi_bank.operations import Outcome, Request


@dataclass(slots=True, eq=False)
class Parcel:
    """One caller's operations.

    Attributes:
        requests: in order.
        deadline_s: until when the caller waits, by the monotonic clock.
        answer: where the outcomes go.
        form: what the caller wants them as.
        loose: the operations have nothing to do with each other, and one that is held up may be
            refused by itself.
        size: how many operations the caller handed in.
        over: it was answered, or there was nobody to answer.
        held_up: it has waited for what was held, or does.
        returns: how often it came back from there.
    """

    requests: list[Request]
    deadline_s: float
    answer: asyncio.Future[Any]
    form: Callable[[list[Outcome]], Any]
    loose: bool = False
    size: int = field(init=False)
    over: bool = False
    held_up: bool = False
    returns: int = 0

    def __post_init__(self) -> None:
        self.size = len(self.requests)

    def needed(self) -> list[Key]:
        """Return the keys of all that must be locked for it."""
        accounts, request_ids = rules.keys(self.requests)
        return [*accounts, *request_ids]

    def leave_out(self, keys: Collection[Key], outcome: Outcome) -> None:
        """Go on without the operations that need one of *keys*; their outcome is *outcome*."""
        out = [not set(_keys(request)).isdisjoint(keys) for request in self.requests]
        self.requests = [one for one, left in zip(self.requests, out, strict=True) if not left]
        self.form = partial(_merged, self.form, out, outcome)

    def settle(self, outcomes: list[Outcome]) -> None:
        """Answer it, if somebody still waits."""
        self.over = True
        if not self.answer.done():
            try:
                self.answer.set_result(self.form(outcomes))
            except Exception as error:
                self.answer.set_exception(error)

    def fail(self, error: Exception) -> None:
        """Answer it with *error*, if somebody still waits."""
        self.over = True
        if not self.answer.done():
            self.answer.set_exception(error)


def _keys(request: Request) -> list[Key]:
    accounts, request_ids = rules.keys([request])
    return [*accounts, *request_ids]


def _merged(
    form: Callable[[list[Outcome]], Any], out: list[bool], outcome: Outcome, rest: list[Outcome]
) -> Any:
    """Put *outcome* in the places of those that were left out."""
    others = iter(rest)
    return form([outcome if left else next(others) for left in out])

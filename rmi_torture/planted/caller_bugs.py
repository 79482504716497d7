"""Bugs of those who call the data object: business objects and the gateway."""

from __future__ import annotations

import itertools
import time
from typing import Any

from rmi_torture.planted.parts import part


def decided_on_old_balances() -> None:
    """A business object decides on the balances it saw a moment ago."""
    execution = part("rmi_bank.execution")
    books = execution._books
    cache: dict[int, tuple[float, int]] = {}

    def books_of_yesterday(accounts: Any, grant: Any) -> Any:
        found = books(accounts, grant)
        now_s = time.monotonic()
        for account, balance in found.balances.items():
            at_s, held = cache.get(account, (0.0, balance))
            if now_s - at_s < 0.1:
                found.balances[account] = held
            else:
                cache[account] = now_s, balance
        return found

    execution._books = books_of_yesterday


def doubt_called_refusal() -> None:
    """A commit without an answer is reported as certainly not done, and not asked for again."""
    execution = part("rmi_bank.execution:Execution")
    errors = part("rmi_runtime.errors")
    refused = part("rmi_bank.operations:Refused")
    decide = execution._decide

    async def decide_once(self: Any, requests: Any, *others: Any) -> Any:
        try:
            return await decide(self, requests, *others)
        except errors.Indefinite as error:
            refusal = refused.from_error(errors.Unavailable(f"surely not done: {error.message}"))
            return [refusal] * len(requests), []

    execution._decide = decide_once


def another_payload_taken() -> None:
    """A request id that has an outcome is answered with it, whatever is asked with the id."""
    decider = part("rmi_bank.rules:_Decider")
    decider._check_same = staticmethod(lambda operation, now, before: None)


def repeat_answered_anew() -> None:
    """A repeated request is answered with the present balance, not with its outcome."""
    decider = part("rmi_bank.rules:_Decider")
    done = part("rmi_bank.rules:Done")
    change = decider._change

    def change_or_look(self: Any, principal: Any, operation: Any) -> Any:
        answer = change(self, principal, operation)
        known = self._books.outcomes.get(f"{principal[0]}:{operation.request_id}")
        if known is None or not isinstance(answer, done):
            return answer
        account = getattr(operation, "account", None) or operation.source
        return done(self._balances[account], self._books.commit)

    decider._change = change_or_look


def retried_without_id() -> None:
    """The gateway asks again for what may have happened, under new request ids."""
    gateway = part("rmi_bank.gateway_bank:BankGateway")
    op = part("rmi_bank.operations")
    errors = part("rmi_runtime.errors")
    structs = part("msgspec.structs")
    numbers = itertools.count(time.time_ns())

    async def send(self: Any, requests: Any, loose: bool = False) -> Any:
        for _ in range(5):
            try:
                packed = await self._endpoints.call("execute_packed", op.pack_batch(requests))
                return op.unpack_outcomes(packed)
            except errors.Indefinite:
                requests = [
                    (principal, _renamed(structs, operation, next(numbers)))
                    for principal, operation in requests
                ]
        raise errors.Unavailable("five tries")

    gateway._send = send


def _renamed(structs: Any, operation: Any, number: int) -> Any:
    if not hasattr(operation, "request_id"):
        return operation
    return structs.replace(operation, request_id=f"again-{number}")

"""A bank that is right by construction, and the history that concurrent clients have of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from rmi_torture.checkers import Ledger, Line
from rmi_torture.history import Event, Operation, operations

OPENING = 1000
ACCOUNTS = (1, 2, 3)


@dataclass
class Simulation:
    """Clients take turns: begin something, have it happen at some later moment, hear of it later.

    Attributes:
        events: the history.
        lines: the journal.
        opening: request ids of the opening postings.
    """

    seed: int
    clients: int = 4
    events: list[Event] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    opening: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.balances = dict.fromkeys(ACCOUNTS, 0)
        self.commit = 0
        self.now = 0
        self.count = 0
        for account in ACCOUNTS:
            self.opening.append(f"open-{account}")
            self.balances[account] = OPENING
            self._post(0, account, OPENING, f"open-{account}")

    def _post(self, debit: int, credit: int, amount: int, request_id: str) -> int:
        self.commit += 1
        self.lines.append(Line(len(self.lines) + 1, self.commit, debit, credit, amount, request_id))
        return self.commit

    def _event(self, process: int, kind: str, f: str, value: Any, error: Any = None) -> None:
        self.now += 1
        self.events.append(Event(len(self.events), self.now, process, kind, f, value, error))

    def run(self, steps: int) -> Simulation:
        """Let the clients do so many things, each in three moments that interleave."""
        stages: dict[int, tuple[str, dict[str, Any], Any]] = {}
        while steps or stages:
            process = self.rng.randrange(self.clients)
            if process not in stages:
                if steps:
                    steps -= 1
                    stages[process] = self._begin(process)
                continue
            f, asked, effect = stages[process]
            if effect is None:
                stages[process] = (f, asked, self._happen(f, asked))
                continue
            del stages[process]
            kind, got, error = effect
            self._event(process, kind, f, {**asked, **got}, error)
        return self

    def _begin(self, process: int) -> tuple[str, dict[str, Any], Any]:
        f = self.rng.choice(("deposit", "withdrawal", "transfer", "balance", "balances"))
        source, target = self.rng.sample(ACCOUNTS, 2)
        self.count += 1
        asked: dict[str, Any] = {"account": source}
        if f == "balances":
            asked = {"accounts": list(ACCOUNTS)}
        elif f != "balance":
            asked |= {"amount": self.rng.randint(1, 900), "request_id": f"r{self.count}"}
        if f == "transfer":
            asked["source"], asked["target"] = asked.pop("account"), target
        self._event(process, "invoke", f, asked)
        return f, asked, None

    def _happen(self, f: str, asked: dict[str, Any]) -> Any:
        if f == "balance":
            return "ok", {"balance": self.balances[asked["account"]], "commit": self.commit}, None
        if f == "balances":
            return "ok", {"balances": dict(self.balances), "commit": self.commit}, None
        amount = asked["amount"]
        source = asked.get("source", asked.get("account"))
        if f != "deposit" and self.balances[source] < amount:
            fields = {"account": source, "balance": self.balances[source], "amount": amount}
            error = {"code": "insufficient_funds", "message": "", "fields": fields}
            return "fail", {}, error
        debit, credit = {
            "deposit": (0, source),
            "withdrawal": (source, 0),
            "transfer": (source, asked.get("target", 0)),
        }[f]
        for account, change in ((debit, -amount), (credit, amount)):
            if account:
                self.balances[account] += change
        commit = self._post(debit, credit, amount, asked["request_id"])
        if self.rng.random() < 0.1:
            return "info", {}, {"code": "connection_lost", "message": "", "fields": {}}
        return "ok", {"balance": self.balances[source], "commit": commit}, None

    def operations(self) -> list[Operation]:
        """Return the history, paired."""
        return operations(self.events)

    def ledger(self) -> Ledger:
        """Return the journal, replayed."""
        return Ledger(self.lines)

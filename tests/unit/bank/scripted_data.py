"""A data object that goes wrong as a script says, with a clock that is ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rmi_bank.errors import StaleLease
from rmi_bank.execution import LEASE_S, Execution
from rmi_bank.operations import BalanceQuery, Deposit, Principal, Request
from rmi_runtime.errors import ConnectionLost, RmiError

TELLER = Principal(1, "teller")
DEPOSIT: list[Request] = [(TELLER, Deposit(1, 5, "r"))]
READ: list[Request] = [(TELLER, BalanceQuery(1))]
Step = RmiError | Callable[["Data"], None]


class Data:
    """A data object of one account. *script* says how the next calls of a method go wrong.

    An error is raised without effect; ``lost`` does the work first and loses the reply.
    """

    def __init__(self, **script: list[RmiError | str]) -> None:
        self.script = script
        self.balance = 100
        self.outcomes: dict[str, list[Any]] = {}
        self.commits = 0
        self.leases: set[int] = set()
        self.calls: list[str] = []
        self.now_s = 0.0

    async def call(
        self,
        method: str,
        *args: Any,
        timeout_s: float | None = None,
        repeatable: bool = False,
        late: Callable[[Any], None] | None = None,
    ) -> Any:
        assert timeout_s is None or timeout_s > 0
        assert repeatable is (method == "balances"), "a lock or a commit may have happened"
        self.calls.append(method)
        self.now_s += 0.01
        wrong = self.script[method].pop(0) if self.script.get(method) else None
        if isinstance(wrong, RmiError):
            raise wrong
        result = getattr(self, method)(*args)
        if wrong == "lost":
            raise ConnectionLost("the reply will not come")
        return result

    def lock(
        self,
        business_id: int,
        accounts: Any,
        request_ids: Any,
        wait_s: float,
        lease_s: float,
        patience_s: float = 60,
    ) -> Any:
        assert wait_s >= 0
        assert patience_s > 0
        assert 0 < lease_s <= LEASE_S
        lease = len(self.calls)
        self.leases = {lease}  # whoever locks again has lost the lease before
        return {
            "lease": lease,
            "balances": [self.balance],
            "owners": [None],
            "outcomes": {key: self.outcomes[key] for key in request_ids if key in self.outcomes},
            "cash": -self.balance,
            "commit": self.commits,
        }

    def commit(self, lease: int, postings: Any, outcomes: Any, opened: Any) -> int:
        self.unlock(lease)
        self.commits += 1
        for debit, _, amount, _ in postings:
            self.balance += amount if debit == 0 else -amount
        for key, *rest in outcomes:
            assert key not in self.outcomes
            self.outcomes[key] = [*rest, self.commits]
        return self.commits

    def unlock(self, lease: int) -> None:
        if lease not in self.leases:
            raise StaleLease("stale")
        self.leases.remove(lease)

    def balances(self, accounts: Any, business_id: int) -> Any:
        return {"commit": self.commits, "balances": [self.balance], "owners": [None]}

    def execution(self) -> Execution:
        return Execution(self, 1, clock=lambda: self.now_s)

"""Good requests to ``/bank/*``, for tests to send as they are or to break."""

from __future__ import annotations

TRANSFER = {"source": 1, "target": 2, "amount": 10}
CHANGES = {
    "/bank/deposits": {"account": 1, "amount": 10},
    "/bank/withdrawals": {"account": 1, "amount": 10},
    "/bank/transfers": TRANSFER,
}
BODIES = {
    **CHANGES,
    "/bank/accounts": {"account": 9},
    "/bank/batches": {"operations": [{"type": "transfer", **TRANSFER}]},
}

"""The peer of the gateway: transfers over HTTP with FastAPI, asyncpg and PostgreSQL.

Written as its users would write it well: uvicorn with uvloop and httptools in one process, no
access log; a pool of connections with prepared statements; one transaction per transfer, which
keeps the idempotency key, locks both rows in the order of their numbers, checks the balance, moves
the money and writes a journal line; tokens looked up by hash and remembered for a second.

    DATABASE_URL=postgresql://... python benchmarks/peers/transfers_on_postgres.py ACCOUNTS TOKEN

makes the tables, prints ``ready PORT``, and serves until it is told to stop.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg
import uvicorn
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

POOL_SIZE = int(os.environ.get("POOL_SIZE", "32"))
OPENING = 10**9

SCHEMA = """
CREATE TABLE accounts (account bigint PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
CREATE TABLE journal (
    line bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    debit bigint NOT NULL, credit bigint NOT NULL, amount bigint NOT NULL, request_id text
);
CREATE TABLE outcomes (
    request_id text PRIMARY KEY, operation text NOT NULL, balance bigint
);
CREATE TABLE tokens (hash text PRIMARY KEY, client bigint NOT NULL, role text NOT NULL);
"""

# Of two requests with one key that run side by side, the second waits here for the first.
CLAIM = "INSERT INTO outcomes VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true"
KNOWN = "SELECT operation, balance FROM outcomes WHERE request_id = $1"
LOCK = """
SELECT account, balance FROM accounts WHERE account = ANY($1::bigint[]) ORDER BY account FOR UPDATE
"""
MOVE = """
WITH debited AS (UPDATE accounts SET balance = balance - $3 WHERE account = $1),
     credited AS (UPDATE accounts SET balance = balance + $3 WHERE account = $2),
     written AS (INSERT INTO journal (debit, credit, amount, request_id) VALUES ($1, $2, $3, $4))
UPDATE outcomes SET balance = $5 WHERE request_id = $4
"""


class Transfer(BaseModel):
    """Body of a transfer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: Annotated[int, Field(ge=1, le=2**53)]
    target: Annotated[int, Field(ge=1, le=2**53)]
    amount: Annotated[int, Field(ge=1, le=10**15)]


class Refused(Exception):
    """The transfer cannot be done; nothing is kept of it."""

    def __init__(self, status: int, code: str) -> None:
        self.status = status
        self.code = code


pool: asyncpg.Pool
known_tokens: dict[str, tuple[float, int]] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the pool while the service runs."""
    global pool
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=POOL_SIZE, max_size=POOL_SIZE
    ) as pool:
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(Refused)
async def refused(request: Any, error: Refused) -> JSONResponse:
    """Answer a refusal."""
    return JSONResponse({"code": error.code}, error.status)


async def client_of(authorization: str) -> int:
    """Return the client whose token it is."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
    hashed = hashlib.sha256(token.encode()).hexdigest()
    now = time.monotonic()
    known = known_tokens.get(hashed)
    if known is None or known[0] < now:
        client = await pool.fetchval("SELECT client FROM tokens WHERE hash = $1", hashed)
        if client is None:
            raise HTTPException(403)
        known = known_tokens[hashed] = (now + 1.0, client)
    return known[1]


@app.post("/bank/transfers", status_code=201)
async def transfer(
    body: Transfer,
    authorization: Annotated[str, Header()] = "",
    idempotency_key: Annotated[str, Header(min_length=1, max_length=200)] = ...,  # type: ignore
) -> JSONResponse:
    """Move money once per key."""
    client = await client_of(authorization)
    if body.source == body.target:
        raise Refused(422, "same_account")
    request_id = f"{client}:{idempotency_key}"
    operation = f"transfer {body.source} {body.target} {body.amount}"
    async with pool.acquire() as connection, connection.transaction():
        balance = await move(connection, body, request_id, operation)
    return JSONResponse({"request_id": idempotency_key, "balance": balance}, 201)


async def move(connection: Any, body: Transfer, request_id: str, operation: str) -> int:
    """Do it inside a transaction; return the source's balance."""
    if not await connection.fetchval(CLAIM, request_id, operation):
        known = await connection.fetchrow(KNOWN, request_id)
        if known["operation"] != operation:
            raise Refused(422, "request_id_reused")
        return int(known["balance"])
    rows = await connection.fetch(LOCK, [body.source, body.target])
    balances = {row["account"]: row["balance"] for row in rows}
    if len(balances) < 2:
        raise Refused(404, "unknown_account")
    balance = int(balances[body.source]) - body.amount
    if balance < 0:
        raise Refused(409, "insufficient_funds")
    await connection.execute(MOVE, body.source, body.target, body.amount, request_id, balance)
    return balance


async def prepare(accounts: int, token: str) -> None:
    """Make the tables and fill them."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute("DROP TABLE IF EXISTS accounts, journal, outcomes, tokens")
    await connection.execute(SCHEMA)
    await connection.execute(
        "INSERT INTO accounts SELECT g, $1 FROM generate_series(1, $2) AS g", OPENING, accounts
    )
    hashed = hashlib.sha256(token.encode()).hexdigest()
    await connection.execute("INSERT INTO tokens VALUES ($1, 1, 'teller')", hashed)
    await connection.execute("VACUUM ANALYZE accounts")
    await connection.execute("CHECKPOINT")
    await connection.close()


def main() -> None:
    """Prepare, then serve."""
    asyncio.run(prepare(int(sys.argv[1]), sys.argv[2]))
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"ready {sock.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()

"""Clients of the bank over Pyro, each in a process of its own.

``python -m benchmarks.bank_clients batches NAME_SERVER TOKEN ACCOUNTS`` prints ``ready``; for each
line that tells for how many seconds to run it runs, and prints what it has measured as one line of
JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import uvloop

from benchmarks.helpers import start_helper
from rmi_bank import BankClient
from rmi_runtime import NameServers, SyncProxy

BATCH = 1000
IN_FLIGHT = 4
WARM_UP = 200


def transfer(chance: random.Random, accounts: int) -> dict[str, Any]:
    """Return one random transfer with a random request id."""
    source = int(chance.random() * accounts) + 1
    return {
        "type": "transfer",
        "source": source,
        "target": source % accounts + 1,
        "amount": 1,
        "request_id": f"{chance.getrandbits(64):016x}",
    }


async def _batches(name_server: str, token: str, accounts: int) -> None:
    """Keep some batches of transfers under way."""
    chance = random.Random()
    async with BankClient([name_server], token=token, timeout_s=30) as bank:

        async def keep_sending(until_s: float) -> tuple[int, int]:
            done = batches = 0
            while time.perf_counter() < until_s:
                operations = [transfer(chance, accounts) for _ in range(BATCH)]
                outcomes = await bank.execute(operations)
                done += sum(outcome["status"] == "ok" for outcome in outcomes)
                batches += 1
            return done, batches

        await keep_sending(time.perf_counter() + 0.2)
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            began_s = time.perf_counter()
            until_s = began_s + float(line)
            found = await asyncio.gather(*[keep_sending(until_s) for _ in range(IN_FLIGHT)])
            seconds = time.perf_counter() - began_s
            done = sum(one for one, _ in found)
            print(json.dumps({"per_s": done / seconds, "done": done}), flush=True)


def _one_at_a_time(name_server: str, token: str, accounts: int) -> None:
    """Do one transfer after the other, as a plain script does."""
    chance = random.Random()
    uri = asyncio.run(_find(name_server, "bank.business.1"))
    with SyncProxy(uri, handshake={"token": token}) as business:

        def once() -> float:
            source = int(chance.random() * accounts) + 1
            key = f"{chance.getrandbits(64):016x}"
            began_s = time.perf_counter()
            business.transfer(source, source % accounts + 1, 1, key)
            return time.perf_counter() - began_s

        for _ in range(WARM_UP):
            once()
        print("ready", flush=True)
        while line := sys.stdin.readline():
            until_s = time.perf_counter() + float(line)
            took: list[float] = []
            while time.perf_counter() < until_s:
                took.append(once())
            took.sort()
            p50_us, p99_us = (took[len(took) * part // 100] * 1e6 for part in (50, 99))
            found = {"p50_us": p50_us, "p99_us": p99_us, "count": len(took)}
            print(json.dumps(found), flush=True)


async def _find(name_server: str, name: str) -> str:
    async with NameServers([name_server]) as names:
        return await names.lookup(name)


class BankClientProcess:
    """One of these processes.

    Args:
        arguments: as on the command line.
    """

    def __init__(self, *arguments: str) -> None:
        self._process = start_helper("benchmarks.bank_clients", *arguments)
        try:
            if self._line() != "ready":
                raise RuntimeError(f"{arguments} did not get ready")
        except BaseException:
            self._process.kill()
            raise

    def __enter__(self) -> BankClientProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # nobody waits for what it measures
            self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def run(self, seconds: float) -> dict[str, Any]:
        """Let it run; return what it measured."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended early")
        return line.strip()


def main(arguments: list[str]) -> None:
    """Be the client that the arguments name."""
    kind, name_server, token, accounts = arguments
    if kind == "batches":
        uvloop.run(_batches(name_server, token, int(accounts)))
    else:
        _one_at_a_time(name_server, token, int(accounts))


if __name__ == "__main__":
    main(sys.argv[1:])

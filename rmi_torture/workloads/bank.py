"""The bank: transfers, deposits, withdrawals and balances, singly and in batches, HTTP and Pyro.

Every operation of a batch is one of the history, by a process of its own: they are begun together
and answered together.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from rmi_bank import BankClient
from rmi_runtime.errors import RmiError, Unavailable
from rmi_torture.checkers import Line
from rmi_torture.http_client import HttpClient
from rmi_torture.kept import Kept
from rmi_torture.workloads.bank_requests import Requests, Wish
from rmi_torture.workloads.base import PAUSE_S, Process, Setting

DEMO_ACCOUNTS = range(1, 11)
DEMO_BALANCE = 1000
OPENED = range(101, 131)
OPENED_BALANCE = 20_000
CLIENT = 1
PAGE = 1000
COLLECT_S = 300.0
FULL_READ_PAUSE_S = 0.2

_TELLS = ("balance", "commit")


class BankWorkload:
    """See the module.

    Args:
        setting: where it runs.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._token = setting.system.tokens()[CLIENT]
        self._accounts = [*DEMO_ACCOUNTS, *OPENED]
        self._initial = dict.fromkeys(DEMO_ACCOUNTS, DEMO_BALANCE)
        self._own = {""}  # the demonstration's opening lines have no request id
        self._https: list[HttpClient] = []
        self._bank = BankClient(
            [setting.system.name_server],
            token=self._token,
            timeout_s=setting.timeout_s,
            ssl=setting.system.ssl,
        )

    async def prepare(self) -> None:
        """Open more accounts."""
        await self._bank.__aenter__()
        system = self._setting.system
        handshake = {"cluster_key": system.cluster_key()}
        admin = BankClient([system.name_server], handshake=handshake, timeout_s=30, ssl=system.ssl)
        async with admin:
            for account in OPENED:
                await admin.open_account(
                    account, OPENED_BALANCE, request_id=f"torture-open-{account}"
                )
                self._initial[account] = OPENED_BALANCE
                self._own.add(f"torture-open-{account}")

    def clients(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Return the steps of all clients: singles and batches over both wires, and full reads."""
        steps: list[Callable[[], Awaitable[None]]] = []
        for number in range(self._setting.concurrency):
            steps.append(self._single(f"h{number}", "HTTP", self._http_single()))
            steps.append(self._single(f"p{number}", "Pyro", self._pyro_single))
        for number in range(max(1, self._setting.concurrency // 2)):
            steps.append(self._batches(f"hb{number}", "HTTP batch", self._http_batch()))
            steps.append(self._batches(f"pb{number}", "Pyro batch", self._bank.execute))
        steps.append(self._full_reads("HTTP batch", self._http_batch()))
        steps.append(self._full_reads("Pyro batch", self._bank.execute))
        return steps

    def _requests(self, name: str) -> Requests:
        return Requests(self._setting.rng(name), name, self._accounts)

    def _http(self) -> HttpClient:
        client = HttpClient(
            self._setting.system.url,
            self._token,
            timeout_s=self._setting.timeout_s,
            ssl=self._setting.system.ssl,
        )
        self._https.append(client)
        return client

    def _single(
        self, name: str, way: str, ask: Callable[[Wish], Awaitable[Mapping[str, Any]]]
    ) -> Callable[[], Awaitable[None]]:
        requests = self._requests(name)
        process = Process(self._setting, way)

        async def step() -> None:
            wish = requests.next()
            process.invoke(wish.f, wish.asked)
            try:
                answer = await ask(wish)
            except Exception as error:
                if not process.raised(wish.f, wish.asked, error):
                    requests.unanswered(wish)
                if not isinstance(error, RmiError) or error.http_status >= 500:
                    await asyncio.sleep(PAUSE_S)
                return
            process.ok(wish.f, wish.asked, _told(answer))
            requests.answered(wish)

        return step

    def _http_single(self) -> Callable[[Wish], Awaitable[Mapping[str, Any]]]:
        http = self._http()

        async def ask(wish: Wish) -> Mapping[str, Any]:
            if wish.f == "balance":
                answer = await http.request("GET", f"/bank/accounts/{wish.asked['account']}")
            else:
                body = dict(wish.asked)
                key = body.pop("request_id")
                answer = await http.request("POST", f"/bank/{wish.f}s", body, key=key)
            answer.raise_for_problem()
            found: Mapping[str, Any] = answer.body
            return found

        return ask

    async def _pyro_single(self, wish: Wish) -> Mapping[str, Any]:
        asked, bank = wish.asked, self._bank
        if wish.f == "balance":
            return {"balance": await bank.balance(asked["account"])}
        amount, key = asked["amount"], asked["request_id"]
        if wish.f == "transfer":
            return await bank.transfer(asked["source"], asked["target"], amount, request_id=key)
        change = bank.deposit if wish.f == "deposit" else bank.withdraw
        return await change(asked["account"], amount, request_id=key)

    def _http_batch(self) -> Callable[[list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]]:
        http = self._http()

        async def ask(operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
            answer = await http.request("POST", "/bank/batches", {"operations": operations})
            answer.raise_for_problem()
            outcomes: list[dict[str, Any]] = answer.body["outcomes"]
            return outcomes

        return ask

    def _batches(
        self,
        name: str,
        way: str,
        ask: Callable[[list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]],
    ) -> Callable[[], Awaitable[None]]:
        requests = self._requests(name)
        processes = [Process(self._setting, way) for _ in range(self._setting.batch)]

        async def step() -> None:
            wishes = [requests.next() for _ in processes]
            for process, wish in zip(processes, wishes, strict=True):
                process.invoke(wish.f, wish.asked)
            pairs = list(zip(processes, wishes, strict=True))
            try:
                outcomes = await ask([wish.as_batch_item() for wish in wishes])
            except Exception as error:
                for process, wish in pairs:
                    if not process.raised(wish.f, wish.asked, error):
                        requests.unanswered(wish)
                await asyncio.sleep(PAUSE_S)
                return
            for (process, wish), outcome in zip(pairs, outcomes, strict=True):
                _settle(process, wish, outcome, requests)

        return step

    def _full_reads(
        self, way: str, ask: Callable[[list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]]
    ) -> Callable[[], Awaitable[None]]:
        process = Process(self._setting, way)
        asked = {"accounts": self._accounts}
        batch = [{"type": "balance", "account": account} for account in self._accounts]

        async def step() -> None:
            process.invoke("balances", asked)
            try:
                outcomes = await ask(batch)
            except Exception as error:
                process.raised("balances", asked, error)
            else:
                self._end_full_read(process, asked, outcomes)
            await asyncio.sleep(FULL_READ_PAUSE_S)

        return step

    def _end_full_read(
        self, process: Process, asked: Mapping[str, Any], outcomes: list[dict[str, Any]]
    ) -> None:
        bad = next((outcome for outcome in outcomes if outcome["status"] != "ok"), None)
        if bad is not None:
            process.failed("balances", asked, bad["code"], True, {}, bad["message"])
            return
        balances = {
            str(account): outcome["balance"]
            for account, outcome in zip(self._accounts, outcomes, strict=True)
        }
        process.ok("balances", asked, {"balances": balances, "commit": outcomes[0]["commit"]})

    async def collect(self) -> Kept:
        """Read the journal: all lines of all accounts."""
        lines: set[Line] = set()
        statements: dict[int, list[int]] = {account: [] for account in self._accounts}
        waiting = list(self._accounts)

        async def read() -> None:
            while waiting:
                account = waiting.pop()
                after: int | None = 0
                while after is not None:
                    page = await self._page(account, after)
                    lines.update(map(_line, page["lines"]))
                    statements[account] += [line["line"] for line in page["lines"]]
                    after = page["next"]

        async with asyncio.timeout(COLLECT_S):
            await asyncio.gather(*(read() for _ in range(4)))
        return Kept(self._initial, self._own, lines, statements=statements)

    async def _page(self, account: int, after: int) -> dict[str, Any]:
        for tries in itertools.count():
            try:
                return await self._bank.statement(account, after, PAGE)
            except RmiError as error:
                if tries >= 20:
                    raise Unavailable(f"the journal cannot be read: {error.message}") from error
                await asyncio.sleep(PAUSE_S)
        raise AssertionError

    async def close(self) -> None:
        """Hang up."""
        for http in self._https:
            http.close()
        await self._bank.__aexit__(None, None, None)


def _settle(process: Process, wish: Wish, outcome: Mapping[str, Any], requests: Requests) -> None:
    if outcome["status"] == "ok":
        process.ok(wish.f, wish.asked, _told(outcome))
        requests.answered(wish)
        return
    definite = process.failed(
        wish.f,
        wish.asked,
        outcome["code"],
        outcome["definite"],
        outcome["fields"],
        outcome["message"],
    )
    if not definite:
        requests.unanswered(wish)


def _told(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: answer[key] for key in _TELLS if key in answer}


def _line(shown: Mapping[str, Any]) -> Line:
    return Line(
        shown["line"],
        shown["commit"],
        shown["debit"],
        shown["credit"],
        shown["amount"],
        shown["request_id"],
    )

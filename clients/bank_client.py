"""Fires concurrent requests at the bank's load-balanced HTTP entry, some with fake tokens.

Every request that moves money carries an ``Idempotency-Key`` made here, so it may be sent again
when no answer came; its effect happens once. At the end the books must balance:

    sum before + deposits - withdrawals = sum after

Exits with 0 if they do, every operation was answered, none with a failure of the bank (status 5xx),
and exactly the fake tokens were Forbidden.
Run it alone: money that others move meanwhile does not fit the sum.
"""

from __future__ import annotations

import _venv  # noqa: F401  # isort: skip
import asyncio
import json
import random
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx
from _common import (
    DEFAULT_URL,
    IS_IT_THERE,
    Seconds,
    WholeRange,
    demo_tokens,
    gateway_url,
    give_up,
    json_of,
    not_a_gateway,
    run,
    what_it_said,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

KINDS = ("balance", "deposit", "withdrawal", "transfer")
ROUTES = {"deposit": "deposits", "withdrawal": "withdrawals", "transfer": "transfers"}
AMOUNT_MAX = 300
ACCOUNTS_MAX = 1_000_000
RETRY_PAUSE_S_MAX = 1.0


@dataclass(frozen=True)
class Job:
    """One request to be made."""

    kind: str
    account: int
    target: int
    amount: int
    token: str
    fake: bool
    key: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Report:
    """What came of all requests."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    deposited: int = 0
    withdrawn: int = 0
    forbidden_fake: int = 0
    forbidden_real: int = 0
    fakes: int = 0
    retries: int = 0
    unanswered: int = 0
    before: int = 0
    after: int = 0
    elapsed_s: float = 0.0

    @property
    def balanced(self) -> bool:
        """True if the books balance."""
        return self.before + self.deposited - self.withdrawn == self.after

    @property
    def forbidden_as_due(self) -> bool:
        """True if exactly the fake tokens were refused."""
        return self.forbidden_fake == self.fakes and self.forbidden_real == 0

    @property
    def failed(self) -> int:
        """How many requests the bank answered with a failure of its own."""
        return sum(n for (_, code), n in self.statuses.items() if httpx.codes.is_server_error(code))

    @property
    def ok(self) -> bool:
        """True if all is as it should be."""
        return self.balanced and self.forbidden_as_due and not self.unanswered and not self.failed

    def percentile_ms(self, share: float) -> float:
        """Return the latency in milliseconds that *share* of the requests did not exceed."""
        if not self.seconds:
            return 0.0
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "ok": self.ok,
            "requests": len(self.seconds),
            "elapsed_s": round(self.elapsed_s, 3),
            "statuses": {f"{kind} {code}": n for (kind, code), n in sorted(self.statuses.items())},
            "latency_ms": {
                name: round(self.percentile_ms(share), 2)
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
            },
            "fake_tokens": self.fakes,
            "forbidden": self.forbidden_fake + self.forbidden_real,
            "retries": self.retries,
            "unanswered": self.unanswered,
            "failed": self.failed,
            "books": {
                "before": self.before,
                "deposits": self.deposited,
                "withdrawals": self.withdrawn,
                "after": self.after,
                "balanced": self.balanced,
            },
        }


def make_jobs(
    requests: int, fake_every: int, tokens: list[str], accounts: list[int], rng: random.Random
) -> list[Job]:
    """Return the requests to be made, in order."""
    jobs = []
    for number in range(1, requests + 1):
        source, target = rng.sample(accounts, 2)
        fake = fake_every > 0 and number % fake_every == 0
        jobs.append(
            Job(
                kind=rng.choice(KINDS),
                account=source,
                target=target,
                amount=rng.randint(1, AMOUNT_MAX),
                token=f"fake-{rng.getrandbits(64):x}" if fake else rng.choice(tokens),
                fake=fake,
            )
        )
    return jobs


def request_of(job: Job) -> dict[str, Any]:
    """Return the arguments of the HTTP request for *job*."""
    headers = {"Authorization": f"Bearer {job.token}"}
    if job.kind == "balance":
        return {"method": "GET", "url": f"/bank/accounts/{job.account}", "headers": headers}
    if job.kind == "transfer":
        body = {"source": job.account, "target": job.target, "amount": job.amount}
    else:
        body = {"account": job.account, "amount": job.amount}
    headers["Idempotency-Key"] = job.key
    return {
        "method": "POST",
        "url": f"/bank/{ROUTES[job.kind]}",
        "headers": headers,
        "json": body,
    }


class Load:
    """Makes the requests, a bounded number at a time, and writes down what came of them."""

    def __init__(self, http: httpx.AsyncClient, report: Report, patience_s: float) -> None:
        self.http = http
        self.report = report
        self.patience_s = patience_s
        self.why_not = ""
        self.told = False

    async def send(self, job: Job) -> httpx.Response | None:
        """Send one request, again with the same key while nobody answers; None past patience."""
        deadline = time.monotonic() + self.patience_s
        pause_s = 0.05
        while True:
            try:
                answer = await self.http.request(**request_of(job))
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    return answer
                self.why_not = answer.text
            except httpx.RequestError as error:
                self.why_not = str(error) or type(error).__name__
            if time.monotonic() + pause_s > deadline:
                return None
            self._tell()
            self.report.retries += 1
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_PAUSE_S_MAX)

    def _tell(self) -> None:
        """Say, once, that nobody has answered yet: to wait in silence looks like hanging."""
        if not self.told and not self.report.seconds:
            self.told = True
            print(
                f"no answer from {self.http.base_url} yet ({self.why_not}); trying for "
                f"{self.patience_s:g} s; {IS_IT_THERE}",
                file=sys.stderr,
            )

    async def do(self, job: Job) -> None:
        """Make one request and count its outcome."""
        report = self.report
        began = time.perf_counter()
        answer = await self.send(job)
        report.seconds.append(time.perf_counter() - began)
        report.fakes += job.fake
        if answer is None:
            report.unanswered += 1
            return
        report.statuses[job.kind, answer.status_code] += 1
        if answer.status_code == httpx.codes.FORBIDDEN:
            report.forbidden_fake += job.fake
            report.forbidden_real += not job.fake
        elif answer.status_code == httpx.codes.CREATED:
            report.deposited += job.amount if job.kind == "deposit" else 0
            report.withdrawn += job.amount if job.kind == "withdrawal" else 0

    async def run(self, jobs: list[Job], concurrency: int, progress: Progress) -> None:
        """Make all requests."""
        task = progress.add_task("requests", total=len(jobs))
        waiting = iter(jobs)

        async def worker() -> None:
            for job in waiting:
                await self.do(job)
                progress.advance(task)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(concurrency)))
        self.report.elapsed_s = time.perf_counter() - began

    async def total(self, accounts: list[int], token: str) -> int:
        """Return the sum of the balances of *accounts*."""
        balances = []
        for account in accounts:
            answer = await self.send(Job("balance", account, account, 1, token, fake=False))
            if answer is None:
                give_up(
                    f"the bank does not answer at {self.http.base_url} ({self.why_not}); "
                    f"{IS_IT_THERE}"
                )
            if answer.status_code != httpx.codes.OK:
                said = what_it_said(answer)
                give_up(f"the balance of account {account} cannot be read: {said}")
            try:
                balances.append(int(json_of(answer)["balance"]))
            except (KeyError, TypeError, ValueError):
                not_a_gateway(answer)
        return sum(balances)


def show(report: Report, console: Console) -> None:
    """Print the report for a person."""
    table = Table(title="Outcomes", title_justify="left")
    table.add_column("Operation")
    for heading in ("Status", "Requests"):
        table.add_column(heading, justify="right")
    table.add_column("Meaning")
    for (kind, code), count in sorted(report.statuses.items()):
        meaning = httpx.codes.get_reason_phrase(code).capitalize()
        table.add_row(kind, str(code), str(count), meaning)
    console.print(table)
    latency = Table(title="Latency, ms", title_justify="left")
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    for name, _ in shares:
        latency.add_column(name, justify="right")
    latency.add_row(*(f"{report.percentile_ms(share):.1f}" for _, share in shares))
    console.print(latency)
    rate = len(report.seconds) / report.elapsed_s if report.elapsed_s else 0.0
    console.print(
        f"{len(report.seconds)} requests in {report.elapsed_s:.2f} s ({rate:.0f}/s), "
        f"{report.retries} sent again, {report.unanswered} never answered, "
        f"{report.failed} failed at the bank"
    )
    console.print(
        f"Forbidden: {report.forbidden_fake} of {report.fakes} fake tokens, "
        f"{report.forbidden_real} real ones"
    )
    verdict = "the books balance" if report.balanced else "THE BOOKS DO NOT BALANCE"
    sign = "=" if report.balanced else "≠"
    console.print(
        f"{report.before} + {report.deposited} deposited - {report.withdrawn} withdrawn "
        f"{sign} {report.after}: {verdict}"
    )


def parse_accounts(context: click.Context, option: click.Parameter, text: str) -> list[int]:
    """Read ``1-10`` or ``1,2,7`` as a list of account numbers."""
    try:
        accounts: list[int] = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last or first) + 1)
            if len(accounts) + len(numbers) > ACCOUNTS_MAX:
                raise click.BadParameter(f"at most {ACCOUNTS_MAX} accounts")
            accounts.extend(numbers)
    except (ValueError, OverflowError):
        raise click.BadParameter("expected account numbers such as 1-10 or 1,2,7") from None
    if len(set(accounts)) < 2:
        raise click.BadParameter("at least two accounts are needed, to move money between them")
    return sorted(set(accounts))


async def attack(options: dict[str, Any], progress: Progress) -> Report:
    """Make the requests and return what came of them."""
    tokens = list(demo_tokens(options["data_dir"]).values())
    rng = random.Random(options["seed"])
    concurrency: int = options["concurrency"]
    accounts: list[int] = options["accounts"]
    jobs = make_jobs(options["requests"], options["fake_every"], tokens, accounts, rng)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    report = Report()
    async with httpx.AsyncClient(base_url=options["url"], timeout=30.0, limits=limits) as http:
        load = Load(http, report, options["patience_s"])
        report.before = await load.total(accounts, tokens[0])
        with progress:
            await load.run(jobs, concurrency, progress)
        report.after = await load.total(accounts, tokens[0])
    return report


@click.command(help=__doc__)
@click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    callback=gateway_url,
    help="The HTTP gateway.",
)
@click.option("--requests", default=200, show_default=True, type=WholeRange(1), help="How many.")
@click.option(
    "--concurrency", default=20, show_default=True, type=WholeRange(1, 1000), help="At a time."
)
@click.option(
    "--fake-every",
    default=10,
    show_default=True,
    type=WholeRange(0),
    help="Every so many requests one has a fake token; 0 for none.",
)
@click.option(
    "--data-dir",
    default=Path("var"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the demonstration's tokens are.",
)
@click.option(
    "--accounts",
    default="1-10",
    show_default=True,
    callback=parse_accounts,
    help="Between which money moves; 1,2,7 for single ones.",
)
@click.option("--seed", default=None, type=int, help="Makes the same requests again.")
@click.option(
    "--patience-s",
    default=60.0,
    show_default=True,
    type=Seconds(0),
    help="For so long a request is sent again while nobody answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def main(as_json: bool, **options: Any) -> None:
    """Run the script."""
    console = Console()
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    report = asyncio.run(attack(options, progress))
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        show(report, console)
    raise SystemExit(0 if report.ok else 1)


if __name__ == "__main__":
    run(main)

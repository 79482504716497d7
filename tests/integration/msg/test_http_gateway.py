"""The gateway over a real bank and real messages: every service, its sockets, its files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from rmi_bank import run_business, run_data, run_nameserver
from rmi_msg import message_id, run_facade, run_gateway, run_logger, run_messages
from rmi_runtime import NameServers, Proxy, Settings, errors, load_or_create_cluster_key
from tests.ports import free_ports
from tests.support import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


class System:
    """All services in this process' event loop, each stopped by its own event."""

    def __init__(self, data_dir: Path) -> None:
        first = free_ports(2)
        self.settings = Settings(
            data_dir=data_dir,
            ns=(f"127.0.0.1:{first}",),
            http=f"127.0.0.1:{first + 1}",
            demo=True,
            call_timeout_s=3.0,
            stop_wait_s=3.0,
        )
        self._running: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    @property
    def url(self) -> str:
        return f"http://{self.settings.http}"

    def start(self, name: str) -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(self._service(name, stop), name=name)
        self._running[name] = (stop, task)

    async def stop(self, name: str) -> None:
        stop, task = self._running.pop(name)
        stop.set()
        async with asyncio.timeout(20):
            await task

    async def close(self) -> None:
        for name in reversed(list(self._running)):
            await self.stop(name)

    def _service(self, name: str, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        kind, _, number = name.partition(" ")
        if kind == "names":
            return run_nameserver(self.settings, stop=stop)
        if kind == "data":
            return run_data(self.settings, stop=stop)
        if kind == "gateway":
            return run_gateway(self.settings, stop=stop)
        run: Any = {
            "business": run_business,
            "logger": run_logger,
            "facade": run_facade,
            "messages": run_messages,
        }[kind]
        return run(self.settings, int(number), stop=stop)


@dataclass
class Client:
    """A client of the running system."""

    system: System
    http: httpx.AsyncClient
    tokens: dict[int, str]

    def auth(self, client: int = 1) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[client]}"}

    async def balance(self, account: int) -> int:
        response = await self.http.get(f"/bank/accounts/{account}", headers=self.auth())
        assert response.status_code == 200, response.text
        return response.json()["balance"]

    async def change(self, path: str, body: object, **headers: str) -> httpx.Response:
        sent = {**self.auth(), **headers}
        return await self.http.post(f"/bank/{path}", json=body, headers=sent)

    async def ready(self) -> bool:
        try:
            return (await self.http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """Run the whole system once for all tests of this module."""
    data_dir = tmp_path_factory.mktemp("gateway")
    system = System(data_dir)
    names = ["names", "data", "business 1", "business 2", "logger 1", "logger 2", "messages 1"]
    for name in [*names, "facade 1", "gateway"]:
        system.start(name)
    async with httpx.AsyncClient(base_url=system.url, timeout=20) as http:
        made = Client(system, http, {})
        try:
            await eventually(made.ready)
            tokens = json.loads((data_dir / "demo-tokens.json").read_text())
            made.tokens = {entry["client"]: entry["token"] for entry in tokens}
            yield made
        finally:
            await http.aclose()
            await system.close()


async def test_money_moves_once_and_the_statement_tells(client: Client) -> None:
    before = await client.balance(1), await client.balance(2)
    body = {"source": 1, "target": 2, "amount": 30}
    for _ in range(3):
        response = await client.change("transfers", body, **{"Idempotency-Key": "rent"})
        assert response.status_code == 201, response.text
        assert response.json()["request_id"] == "rent"
        assert response.json()["balance"] == before[0] - 30
    assert (await client.balance(1), await client.balance(2)) == (before[0] - 30, before[1] + 30)
    url = "/bank/accounts/2/statement?limit=1000"
    lines = (await client.http.get(url, headers=client.auth())).json()["lines"]
    of_rent = [line for line in lines if "rent" in line["request_id"]]
    assert [(line["debit"], line["credit"], line["amount"]) for line in of_rent] == [(1, 2, 30)]
    assert set(of_rent[0]) == {*("line", "commit", "at", "debit", "credit", "amount", "request_id")}


async def test_deposits_and_withdrawals_change_the_balance(client: Client) -> None:
    before = await client.balance(3)
    assert (await client.change("deposits", {"account": 3, "amount": 7})).status_code == 201
    response = await client.change("withdrawals", {"account": 3, "amount": 5})
    assert response.json()["balance"] == await client.balance(3) == before + 2


async def test_the_same_key_for_another_payload_is_422_and_changes_nothing(client: Client) -> None:
    key = {"Idempotency-Key": "once"}
    await client.change("deposits", {"account": 4, "amount": 1}, **key)
    before = await client.balance(4)
    response = await client.change("deposits", {"account": 4, "amount": 2}, **key)
    assert (response.status_code, response.json()["code"]) == (422, "request_id_reused")
    assert await client.balance(4) == before


async def test_more_than_there_is_is_409(client: Client) -> None:
    before = await client.balance(5)
    response = await client.change("withdrawals", {"account": 5, "amount": before + 1})
    assert (response.status_code, response.json()["code"]) == (409, "insufficient_funds")
    assert await client.balance(5) == before


async def test_unknown_accounts_are_404(client: Client) -> None:
    response = await client.http.get("/bank/accounts/4711", headers=client.auth())
    assert (response.status_code, response.json()["code"]) == (404, "unknown_account")
    for body in ({"source": 1, "target": 4711}, {"source": 4711, "target": 1}):
        response = await client.change("transfers", {**body, "amount": 1})
        assert (response.status_code, response.json()["code"]) == (404, "unknown_account")
    response = await client.http.get("/bank/accounts/4711/statement", headers=client.auth())
    assert response.status_code == 404


async def test_a_fake_token_is_forbidden_and_none_is_asked_for_one(client: Client) -> None:
    url = "/bank/accounts/1"
    response = await client.http.get(url, headers={"Authorization": "Bearer fake"})
    assert (response.status_code, response.json()["title"]) == (403, "Forbidden")
    response = await client.http.get(url)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_a_teller_opens_no_accounts(client: Client) -> None:
    assert (await client.change("accounts", {"account": 99})).status_code == 403


async def ask_data(client: Client, method: str, *args: object) -> Any:
    """Call the data object as `rmi token` does: with the cluster key."""
    settings = client.system.settings
    handshake = {"cluster_key": load_or_create_cluster_key(settings.data_dir)}
    async with NameServers(settings.ns, handshake=handshake) as names:
        uri = await names.lookup("bank.data")
    async with Proxy(uri, handshake=handshake) as data:
        return await data._call(method, args)


async def new_token(client: Client, number: int, role: str) -> dict[str, str]:
    """Make a token; return the header that shows it."""
    token = (await ask_data(client, "token_create", number, role))["token"]
    return {"Authorization": f"Bearer {token}"}


async def test_an_admin_opens_an_account_for_a_customer_who_sees_only_that(client: Client) -> None:
    admin = await new_token(client, 70, "admin")
    customer = await new_token(client, 71, "customer")
    body = {"account": 71, "balance": 50, "owner": 71}
    opened = await client.http.post("/bank/accounts", json=body, headers=admin)
    assert (opened.status_code, opened.json()) == (201, {"account": 71, "balance": 50})
    again = await client.http.post("/bank/accounts", json=body, headers=admin)
    assert (again.status_code, again.json()["code"]) == (409, "account_exists")
    mine = await client.http.get("/bank/accounts/71", headers=customer)
    assert mine.json() == {"account": 71, "balance": 50}
    for path in ("/bank/accounts/1", "/bank/accounts/1/statement"):
        refused = await client.http.get(path, headers=customer)
        assert (refused.status_code, refused.json()["code"]) == (403, "another_account"), path
    body = {"source": 1, "target": 71, "amount": 1}
    taken = await client.http.post("/bank/transfers", json=body, headers=customer)
    assert (taken.status_code, taken.json()["code"]) == (403, "another_account")
    body = {"source": 71, "target": 1, "amount": 1}
    given = await client.http.post("/bank/transfers", json=body, headers=customer)
    assert given.status_code == 201


async def test_a_revoked_token_is_forbidden_within_seconds(client: Client) -> None:
    made = await ask_data(client, "token_create", 72, "teller")
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert (await client.http.get("/bank/accounts/1", headers=headers)).status_code == 200
    await ask_data(client, "token_revoke", made["id"])

    async def forbidden() -> bool:
        return (await client.http.get("/bank/accounts/1", headers=headers)).status_code == 403

    await eventually(forbidden)


async def test_a_batch_answers_for_each(client: Client) -> None:
    operations = [
        {"type": "deposit", "account": 6, "amount": 10, "request_id": "batch-1"},
        {"type": "transfer", "source": 6, "target": 4711, "amount": 1},
        {"type": "withdrawal", "account": 6, "amount": 10**15},
        {"type": "balance", "account": 6},
    ]
    response = await client.change("batches", {"operations": operations})
    outcomes = response.json()["outcomes"]
    assert [o["status"] for o in outcomes] == ["ok", "error", "error", "ok"]
    assert [o.get("code") for o in outcomes[1:3]] == ["unknown_account", "insufficient_funds"]
    assert outcomes[3]["balance"] == await client.balance(6)


async def test_transfers_at_once_lose_and_double_nothing(client: Client) -> None:
    accounts = range(1, 11)
    before = sum([await client.balance(account) for account in accounts])

    async def transfer(n: int) -> int:
        body = {"source": n % 10 + 1, "target": (n + 3) % 10 + 1, "amount": 1}
        return (await client.change("transfers", body)).status_code

    assert set(await asyncio.gather(*(transfer(n) for n in range(200)))) == {201}
    assert sum([await client.balance(account) for account in accounts]) == before


async def test_the_seeds_ten_messages(client: Client) -> None:
    for n in range(1, 11):
        response = await client.http.post("/", data={"msg": f"msg{n}"})
        assert (response.status_code, response.text) == (200, f"POST request b'msg=msg{n}'")
    expected = {(message_id(f"msg{n}"), f"msg{n}") for n in range(1, 11)}

    async def all_consumed() -> bool:
        kept, consumed = (await client.http.get("/?msg=HELLO")).json()
        assert expected <= {tuple(pair) for pair in kept}
        return expected <= {tuple(pair) for pair in consumed}

    await eventually(all_consumed)


async def test_messages_are_kept_once_per_key_and_read_in_pages(client: Client) -> None:
    ids = []
    for n in range(5):
        for _ in range(2):
            headers = {"Idempotency-Key": f"message {n}"}
            response = await client.http.post(
                "/messages", json={"text": f"text {n}"}, headers=headers
            )
            assert response.status_code == 201
        ids.append(response.json()["id"])
    other = await client.http.post("/messages", json={"text": "x"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "request_id_reused")
    found, after = [], None
    while True:
        query = {"limit": "2"} if after is None else {"limit": "2", "after": after}
        page = (await client.http.get("/messages", params=query)).json()
        assert len(page["messages"]) <= 2
        found += [message["id"] for message in page["messages"]]
        after = page["next"]
        if after is None:
            break
    assert [id for id in found if id in ids] == ids
    assert len(found) == len(set(found))


async def test_a_cursor_that_nobody_gave_out_is_422(client: Client) -> None:
    for path in ("/messages", "/messages/consumed"):
        response = await client.http.get(path, params={"after": "no cursor"})
        assert (response.status_code, response.json()["field"]) == (422, "after")


async def test_the_status_page_knows_every_service(client: Client) -> None:
    def names(services: list[dict[str, Any]]) -> set[str]:
        return {row["name"] for row in services if row["state"] == "ready"}

    async def complete() -> bool:
        services = (await client.http.get("/status")).json()["services"]
        return names(services) >= {
            *("Pyro.NameServer", "bank.data", "bank.business.1", "bank.business.2"),
            *("msg.logger.1", "msg.logger.2", "msg.facade.1", "msg.messages.1", "gateway"),
        }

    await eventually(complete)
    text = (await client.http.get("/metrics")).text
    assert 'rmi_service_up{service="bank.data"} 1.0' in text
    assert 'route="/bank/transfers",status="201"' in text


async def test_a_large_body_is_413_and_a_large_message_422(client: Client) -> None:
    response = await client.http.post("/messages", json={"text": "a" * 1_048_577})
    assert response.status_code == 413
    response = await client.http.post("/messages", json={"text": "a" * 262_145})
    assert response.status_code == 422


async def test_a_port_in_use_is_told(client: Client) -> None:
    with pytest.raises(errors.Unavailable, match="cannot listen for HTTP"):
        await run_gateway(client.system.settings, stop=asyncio.Event())


async def test_requests_survive_the_loss_of_a_business_object(client: Client) -> None:
    before = await client.balance(7)
    await client.system.stop("business 1")
    for _ in range(10):
        assert (await client.change("deposits", {"account": 7, "amount": 1})).status_code == 201
    assert await client.balance(7) == before + 10
    client.system.start("business 1")


async def test_without_any_business_object_it_is_503_in_time_and_not_ready(client: Client) -> None:
    await eventually(client.ready)
    for name in ("business 1", "business 2"):
        await client.system.stop(name)
    key = {"Idempotency-Key": "patience"}
    response = await client.change("deposits", {"account": 8, "amount": 1}, **key)
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert response.json()["definite"] is True
    not_ready = await eventually(lambda: _not_ready(client))
    assert "business object" in not_ready.json()["detail"]
    client.system.start("business 1")
    client.system.start("business 2")
    await eventually(client.ready)
    assert (await client.change("deposits", {"account": 8, "amount": 1}, **key)).status_code == 201


async def test_without_the_data_object_it_is_not_ready(client: Client) -> None:
    await client.system.stop("data")
    not_ready = await eventually(lambda: _not_ready(client))
    assert "data object" in not_ready.json()["detail"]
    client.system.start("data")
    await eventually(client.ready)


async def test_without_any_logger_it_is_not_ready(client: Client) -> None:
    for name in ("logger 1", "logger 2"):
        await client.system.stop(name)
    not_ready = await eventually(lambda: _not_ready(client))
    assert "logger" in not_ready.json()["detail"]
    client.system.start("logger 1")
    client.system.start("logger 2")
    await eventually(client.ready)


async def _not_ready(client: Client) -> httpx.Response | None:
    response = await client.http.get("/readyz")
    return response if response.status_code == 503 else None


async def test_a_gateway_that_is_stopped_answers_what_is_under_way(client: Client) -> None:
    before = await client.balance(9)
    requests = [
        asyncio.create_task(client.change("deposits", {"account": 9, "amount": 1}))
        for _ in range(20)
    ]
    await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
    await client.system.stop("gateway")
    results = await asyncio.gather(*requests, return_exceptions=True)
    statuses = [result.status_code for result in results if isinstance(result, httpx.Response)]
    assert set(statuses) == {201}
    with pytest.raises(httpx.ConnectError):
        await client.http.get("/healthz")
    client.system.start("gateway")
    await eventually(client.ready)
    # What was begun was answered, and what was not answered was not begun.
    assert await client.balance(9) == before + len(statuses)

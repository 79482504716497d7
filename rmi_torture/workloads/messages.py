"""The messages: posts with and without keys, repeated posts, paged reads; and what was consumed.

Now and then a key that has its message is used for another text: that must be refused.
Over HTTP a post may have no key: then it is not repeated when nobody knows its end. Over Pyro every
post has its id.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

from rmi_msg import MessageGateway
from rmi_runtime import Endpoints, NameServers
from rmi_runtime.errors import Conflict, RmiError, Unavailable
from rmi_torture.http_client import HttpClient
from rmi_torture.kept import Kept
from rmi_torture.workloads.base import PAUSE_S, Process, Setting

PAGE = 1000
REPEATED = 0.03
REUSED = 0.01
KEYED = 0.7
TRIES_MAX = 8
READ_PAUSE_S = 0.3
COLLECT_S = 300.0
NO_MORE_S = 25.0
"""How long to wait for another message to be consumed: two leases of claims, and some."""

Page = Mapping[str, Any]
Fetch = Callable[[str | None], Awaitable[Page]]


class _Poster:
    """What one client posts; what got no answer comes again, if it has a key."""

    def __init__(self, rng: Random, name: str, keyed: float) -> None:
        self._rng = rng
        self._name = name
        self._keyed = keyed
        self._count = 0
        self._again: deque[tuple[dict[str, Any], int]] = deque()

    def next(self) -> tuple[dict[str, Any], int]:
        """Return what to post, and how often it was tried before."""
        if self._again:
            return self._again.popleft()
        self._count += 1
        name = f"{self._name}-{self._count}"
        asked = {"text": f"text {name} {self._rng.randrange(10**9)}"}
        if self._rng.random() < self._keyed:
            asked["key"] = f"key-{name}"
        return asked, 0

    def ended(self, asked: dict[str, Any], tries: int, outcome: str) -> None:
        """Note how it ended: ``ok``, ``fail`` or ``info``."""
        if "key" not in asked or tries >= TRIES_MAX:
            return
        if outcome == "info":
            self._again.append((asked, tries + 1))
        elif outcome == "ok" and not tries:
            chance = self._rng.random()
            if chance < REPEATED:
                self._again.append((asked, TRIES_MAX))
            elif chance < REPEATED + REUSED:
                self._again.append(({**asked, "text": f"not {asked['text']}"}, TRIES_MAX))


class MessagesWorkload:
    """See the module.

    Args:
        setting: where it runs.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._names = NameServers([setting.system.name_server], ssl=setting.system.ssl)
        # A facade on another host, as in a system with TLS, takes no strangers.
        known = {"cluster_key": setting.system.cluster_key()}
        self._facades = Endpoints(
            self._names,
            "msg.facade.",
            handshake="hello" if setting.system.ssl is None else known,
            timeout_s=setting.timeout_s,
        )
        self._gateway = MessageGateway(self._facades)
        self._https: list[HttpClient] = []

    async def prepare(self) -> None:
        """Find the facade."""
        await self._facades.__aenter__()
        await self._facades.ready(30)

    def clients(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Return the steps of all clients: posters over both wires, and readers."""
        steps: list[Callable[[], Awaitable[None]]] = []
        for number in range(self._setting.concurrency):
            steps.append(self._http_poster(f"h{number}"))
        for number in range(self._setting.batch):
            steps.append(self._pyro_poster(f"p{number}"))
        steps += self._readers()
        return steps

    def _readers(self) -> list[Callable[[], Awaitable[None]]]:
        http = self._http()

        async def over_http(after: str | None) -> Page:
            query = f"?limit={PAGE}" + ("" if after is None else f"&after={after}")
            answer = await http.request("GET", f"/messages{query}")
            answer.raise_for_problem()
            page: Page = answer.body
            return page

        return [
            self._reader("read", "HTTP", over_http),
            self._reader("read", "Pyro", lambda after: self._gateway.page(after, PAGE)),
        ]

    def _http(self) -> HttpClient:
        client = HttpClient(
            self._setting.system.url,
            timeout_s=self._setting.timeout_s,
            ssl=self._setting.system.ssl,
        )
        self._https.append(client)
        return client

    def _http_poster(self, name: str) -> Callable[[], Awaitable[None]]:
        http = self._http()

        async def post(asked: Mapping[str, Any]) -> str:
            key = asked.get("key")
            answer = await http.request("POST", "/messages", {"text": asked["text"]}, key=key)
            answer.raise_for_problem()
            return str(answer.body["id"])

        return self._poster(name, "HTTP", KEYED, post)

    def _pyro_poster(self, name: str) -> Callable[[], Awaitable[None]]:
        async def post(asked: Mapping[str, Any]) -> str:
            id_ = str(asked["key"])
            word = await self._gateway.post(str(asked["text"]), id_)
            if word == "other":
                raise Conflict(f"{id_} has another text")
            return id_

        return self._poster(name, "Pyro", 1.0, post)

    def _poster(
        self, name: str, way: str, keyed: float, post: Callable[[Mapping[str, Any]], Awaitable[str]]
    ) -> Callable[[], Awaitable[None]]:
        poster = _Poster(self._setting.rng(name), name, keyed)
        process = Process(self._setting, way)

        async def step() -> None:
            asked, tries = poster.next()
            process.invoke("post", asked)
            try:
                id_ = await post(asked)
            except Exception as error:
                definite = process.raised("post", asked, error)
                poster.ended(asked, tries, "fail" if definite else "info")
                await asyncio.sleep(PAUSE_S)
                return
            process.ok("post", asked, {"id": id_})
            poster.ended(asked, tries, "ok")

        return step

    def _reader(self, f: str, way: str, fetch: Fetch) -> Callable[[], Awaitable[None]]:
        process = Process(self._setting, way)

        async def step() -> None:
            process.invoke(f, {})
            began_s = time.monotonic()
            try:
                rows = await _read_all(fetch)
            except Exception as error:
                process.raised(f, {}, error)
                rows = []
            else:
                process.ok(f, {}, {"ids": [row["id"] for row in rows]})
            # The more there is, the seldomer it is all read.
            await asyncio.sleep(READ_PAUSE_S + 3 * (time.monotonic() - began_s))

        return step

    async def collect(self) -> Kept:
        """Read all messages, wait until they are consumed, and read that."""
        async with asyncio.timeout(COLLECT_S):
            rows = await _read_all(_stubborn(lambda after: self._gateway.page(after, PAGE)))
            consumed = await self._all_consumed(len(rows))
        kept = Kept(messages=[(row["id"], row["text"]) for row in rows])
        for row in consumed:
            kept.consumed.setdefault(row["by"], []).append(row["id"])
        return kept

    async def _all_consumed(self, expected: int) -> list[Mapping[str, Any]]:
        """Read what was consumed, when it is all or nothing has been added for a long while."""
        count, since_s = -1, 0.0
        while True:
            consumed = await _read_all(_stubborn(lambda after: self._gateway.consumed(after, PAGE)))
            if len(consumed) > count:
                count, since_s = len(consumed), time.monotonic()
            if count >= expected or time.monotonic() - since_s > NO_MORE_S:
                return consumed
            await asyncio.sleep(1.0)

    async def close(self) -> None:
        """Hang up."""
        for http in self._https:
            http.close()
        await self._gateway.aclose()
        await self._facades.__aexit__(None, None, None)
        await self._names.aclose()


class QueueWorkload(MessagesWorkload):
    """Producers, and readers of what was consumed."""

    def _readers(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._reader("consumed", "Pyro", lambda after: self._gateway.consumed(after, PAGE))]


async def _read_all(fetch: Fetch) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    after: str | None = None
    while True:
        page = await fetch(after)
        rows += page["messages"]
        after = page["next"]
        if after is None:
            return rows


def _stubborn(fetch: Fetch) -> Fetch:
    """Fetch pages, and try again when that fails."""

    async def try_on(after: str | None) -> Page:
        last: RmiError | None = None
        for _ in range(20):
            try:
                return await fetch(after)
            except RmiError as error:
                last = error
                await asyncio.sleep(PAUSE_S)
        raise Unavailable(f"what is there cannot be read: {last}") from last

    return try_on

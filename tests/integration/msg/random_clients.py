"""Clients that post and read at random, over HTTP and over Pyro, and note what they are told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final

import httpx
from Pyro5.errors import DaemonError

from rmi_msg import keyed_message_id, message_id
from rmi_runtime import Endpoints, Proxy, errors
from tests.integration.msg.asked import Reader, Record, Told
from tests.support import eventually

TEXTS: Final = [
    "plain",
    "two\nlines",
    "ünï \U0001f600",
    "nul \0",
    "\u202ertl",
    "x" * 600,
    "a=b&c%41+d",
]

BAD_POSTS: Final[list[tuple[object, ...]]] = [
    ("",),
    (7,),
    ("x" * 262_145,),
    ("text", "new\nline"),
    ("text", ""),
]
BAD_PAGES: Final[list[tuple[object, ...]]] = [(None, 0), (None, 1001), ("x" * 201, 1), ("-1", 1)]
BAD_REQUESTS: Final[list[tuple[str, str, dict[str, Any]]]] = [
    ("POST", "/messages", {"json": {"text": ""}}),
    ("POST", "/messages", {"json": {"text": "t", "more": 1}}),
    ("POST", "/messages", {"json": {"text": "t"}, "headers": {"Idempotency-Key": ""}}),
    ("POST", "/", {"data": {"message": "t"}}),
    ("GET", "/messages?limit=0", {}),
    ("GET", "/messages?after=" + "9" * 201, {}),
]


class Teller:
    """Makes messages to post: new ones, and some that were posted before.

    Args:
        rng: picks them.
        numbers: shared by all, for texts and ids of their own.
    """

    def __init__(self, rng: Random, numbers: Iterable[int]) -> None:
        self.rng = rng
        self._numbers = iter(numbers)

    def text(self) -> str:
        """Return a text that nobody else posts."""
        return f"{next(self._numbers)} {self.rng.choice(TEXTS)}"

    def pair(self, known: list[tuple[str, str]]) -> tuple[str, str]:
        """Return a key and a text: of late, new, or a known key with another text."""
        chance = self.rng.random()
        if known and chance < 0.5:
            key, text = self.rng.choice(known[-20:])
            return (key, text) if chance < 0.4 else (key, self.text())
        pair = f"key {next(self._numbers)}", self.text()
        known.append(pair)
        return pair


def told_by(error: errors.RmiError) -> Told:
    """Return what an error says came of a post; the caller did nothing wrong."""
    assert error.code not in ("internal", "invalid", "malformed", "error"), repr(error)
    return "refused" if error.definite else "maybe"


class PyroClient:
    """A client of the facades, and now and then of a logger.

    Args:
        facades, loggers: where they are.
        handshake: a service's.
        record: takes note.
        teller: makes messages.
        known: keys and texts that some client has posted.
    """

    def __init__(
        self,
        facades: Endpoints,
        loggers: Endpoints,
        handshake: object,
        record: Record,
        teller: Teller,
        known: list[tuple[str, str]],
    ) -> None:
        self._facades = facades
        self._loggers = loggers
        self._handshake = handshake
        self._record = record
        self._teller = teller
        self._known = known
        self._messages, self._consumed = Reader(), Reader()
        self.readers = {"messages": self._messages, "consumed": self._consumed}

    async def step(self) -> None:
        """Do something, with much or little patience."""
        rng = self._teller.rng
        act = rng.choice(
            [
                self._post,
                self._post_unnamed,
                self._post_many,
                self._put,
                self._read,
                self._read,
                self._err,
            ]
        )
        await act(rng.choice([0.01, 0.05, 0.5, 1.5]))

    async def settle(self) -> None:
        """Post something until it is answered, and again: nothing goes wrong any more."""
        text = self._teller.text()
        id = message_id(text)

        async def answered() -> bool:
            try:
                [word] = await self._facades.call("post_many", [(id, text)])
            except errors.RmiError:
                return False
            self._record.note(id, text, "kept")
            return bool(word == "same")

        await eventually(answered)

    async def _call(self, method: str, *args: object, timeout_s: float) -> Any:
        """Call; sometimes give up, which may be at any time. Then nobody knows what came of it."""
        rng = self._teller.rng
        try:
            async with asyncio.timeout(rng.choice([None, None, None, 0.002, 0.02])):
                return await self._facades.call(
                    method, *args, timeout_s=timeout_s, repeatable=rng.random() < 0.5
                )
        except TimeoutError:
            raise errors.CallTimeout("the caller gave up") from None

    async def _post(self, patience_s: float) -> None:
        key, text = self._teller.pair(self._known)
        id = keyed_message_id(key)
        try:
            assert await self._call("post", text, id, timeout_s=patience_s) == {"id": id}
        except errors.RmiError as error:
            reused = error.code == "message_id_reused"
            self._record.note(id, text, "other" if reused else told_by(error))
        else:
            self._record.note(id, text, "kept")

    async def _post_unnamed(self, patience_s: float) -> None:
        text = self._teller.text()
        # Without an id of its own a post must not be made again.
        try:
            id = (await self._facades.call("post", text, timeout_s=patience_s))["id"]
        except errors.RmiError as error:
            self._record.note_unnamed(text, None, told_by(error))
        else:
            self._record.note_unnamed(text, id, "kept")

    async def _post_many(self, patience_s: float) -> None:
        count = self._teller.rng.choice([1, 5, 40])
        pairs = [self._teller.pair(self._known) for _ in range(count)]
        messages = [(keyed_message_id(key), text) for key, text in pairs]
        try:
            words = await self._call("post_many", messages, timeout_s=patience_s)
            # To the facade it may be the same because its own first try was not answered.
            words = ["kept" if word == "same" else word for word in words]
        except errors.RmiError as error:
            words = [told_by(error)] * count
        for (id, text), word in zip(messages, words, strict=True):
            self._record.note(id, text, word)

    async def _put(self, patience_s: float) -> None:
        """Post to one logger: nobody tries another one if it fails."""
        views = self._loggers.view()
        if not views:
            return
        uri = self._teller.rng.choice(views).uri
        pairs = [self._teller.pair(self._known) for _ in range(2)]
        messages = [(keyed_message_id(key), text) for key, text in pairs]
        told: Sequence[Told]
        try:
            async with Proxy(uri, handshake=self._handshake, timeout_s=patience_s) as logger:
                told = await logger.put_many(messages)
        except errors.RmiError as error:
            told = [told_by(error)] * 2
        except DaemonError:  # another service has its port by now
            told = ["refused"] * 2
        for (id, text), word in zip(messages, told, strict=True):
            self._record.note(id, text, word)

    async def _read(self, patience_s: float) -> None:
        rng = self._teller.rng
        method = rng.choice(["page", "consumed"])
        reader = self._messages if method == "page" else self._consumed
        if rng.random() < 0.1:
            reader.begin_anew()
        promised = list(self._record.kept) if method == "page" else []
        try:
            limit = rng.choice([1, 10, 100, 1000])
            page = await self._call(method, reader.after, limit, timeout_s=patience_s)
        except errors.RmiError as error:
            told_by(error)
        else:
            reader.take(page, promised)

    async def _err(self, patience_s: float) -> None:
        rng = self._teller.rng
        method = rng.choice(["post", "page", "consumed"])
        args = rng.choice(BAD_POSTS if method == "post" else BAD_PAGES)
        try:
            found = await self._facades.call(method, *args, timeout_s=patience_s)
        except errors.InvalidRequest:
            pass
        except errors.RmiError as error:
            told_by(error)
        else:
            raise AssertionError(f"{method}{args} was answered with {found}")


class HttpClient:
    """A client of the gateways.

    Args:
        urls: base URLs; each request goes to one of them at random.
        record, teller, known: as for :class:`PyroClient`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        record: Record,
        teller: Teller,
        known: list[tuple[str, str]],
    ) -> None:
        self._urls = urls
        self._record = record
        self._teller = teller
        self._known = known
        self._messages, self._consumed = Reader(), Reader()
        self.readers = {"messages": self._messages, "consumed": self._consumed}
        self.http = httpx.AsyncClient()

    async def step(self) -> None:
        """Do something, with much or little patience."""
        act = self._teller.rng.choice(
            [
                self._post,
                self._post,
                self._post_unnamed,
                self._form,
                self._read,
                self._all,
                self._err,
            ]
        )
        await act()

    async def settle(self) -> None:
        """Post and read everything: nothing goes wrong any more."""

        async def answered() -> bool:
            found = []
            for url in self._urls:
                found.append(await self.http.post(f"{url}/", data={"msg": "the end"}))
                found.append(await self.http.get(f"{url}/"))
            assert all(answer.status_code in (200, 503) for answer in found)
            return all(answer.status_code == 200 for answer in found)

        await eventually(answered)
        self._record.note(message_id("the end"), "the end", "kept")

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response | Told:
        """Return the answer if it is one; else what a post with such an end came to."""
        rng = self._teller.rng
        patience_s = rng.choice([0.01, 0.1, 0.5, 3.0, 3.0])
        try:
            async with asyncio.timeout(patience_s):
                answer = await self.http.request(
                    method, rng.choice(self._urls) + path, timeout=None, **options
                )
        except httpx.ConnectError:
            return "refused"
        except (httpx.TransportError, TimeoutError):
            return "maybe"
        if answer.status_code < 500:
            return answer
        problem = answer.json()
        assert answer.status_code == 503, problem
        assert method == "POST" or problem["definite"]
        return "refused" if problem["definite"] else "maybe"

    async def _post(self) -> None:
        key, text = self._teller.pair(self._known)
        id = keyed_message_id(key)
        headers = {"Idempotency-Key": key}
        answer = await self._ask("POST", "/messages", json={"text": text}, headers=headers)
        if isinstance(answer, str):
            self._record.note(id, text, answer)
        elif answer.status_code == 422:
            assert answer.json()["code"] == "request_id_reused", answer.text
            self._record.note(id, text, "other")
        else:
            assert (answer.status_code, answer.json()) == (201, {"id": id})
            self._record.note(id, text, "kept")

    async def _post_unnamed(self) -> None:
        text = self._teller.text()
        answer = await self._ask("POST", "/messages", json={"text": text})
        if isinstance(answer, str):
            self._record.note_unnamed(text, None, answer)
        else:
            assert answer.status_code == 201, answer.text
            self._record.note_unnamed(text, answer.json()["id"], "kept")

    async def _form(self) -> None:
        text = self._teller.text()
        for _ in range(self._teller.rng.choice([1, 1, 2])):
            answer = await self._ask("POST", "/", data={"msg": text})
            if isinstance(answer, str):
                self._record.note(message_id(text), text, answer)
            else:
                assert answer.status_code == 200, answer.text
                self._record.note(message_id(text), text, "kept")

    async def _read(self) -> None:
        rng = self._teller.rng
        kind, path = rng.choice([("messages", ""), ("consumed", "/consumed")])
        reader = self.readers[kind]
        promised = list(self._record.kept) if kind == "messages" else []
        parameters: dict[str, Any] = {"limit": rng.choice([1, 10, 100, 1000])}
        if reader.after is not None:
            parameters["after"] = reader.after
        answer = await self._ask("GET", f"/messages{path}", params=parameters)
        if not isinstance(answer, str):
            assert answer.status_code == 200, answer.text
            reader.take(answer.json(), promised)

    async def _all(self) -> None:
        promised = list(self._record.kept)
        answer = await self._ask("GET", "/?msg=HELLO")
        if not isinstance(answer, str):
            assert answer.status_code == 200, answer.text
            messages, consumed = answer.json()
            missed = set(promised) - {id for id, _ in messages}
            assert not missed, f"acknowledged before, but not in the list: {missed}"
            for seen, found in ((self._messages, messages), (self._consumed, consumed)):
                pairs = [[row["id"], row["text"]] for row in seen.seen[: len(found)]]
                assert found[: len(pairs)] == pairs, "what was read has changed"

    async def _err(self) -> None:
        method, path, options = self._teller.rng.choice(BAD_REQUESTS)
        answer = await self._ask(method, path, **options)
        if not isinstance(answer, str):
            assert answer.status_code in (400, 422), answer.text


Client = PyroClient | HttpClient


async def keep_asking(client: Client, until: asyncio.Event) -> None:
    """Let a client do one thing after the other."""
    while not until.is_set():
        await client.step()


def numbers() -> Iterable[int]:
    """Return what numbers all that clients make."""
    return itertools.count(1)

"""Requests that are answered without the framework, as it would have, on a raw socket."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from rmi_bank import BankGateway
from rmi_bank.errors import LockTimeout
from rmi_bank.operations import Done, Refused, pack_outcomes, unpack_batch
from rmi_msg import MessageGateway
from rmi_msg.gateway_app import gateway_app
from rmi_runtime import errors
from rmi_runtime.http import Answer, HttpProblem
from rmi_runtime.http.direct import DirectRoute, DirectRoutes
from tests.integration.msg.http_raw import BOTH_EVENT_LOOPS, Place, head, serving
from tests.support import eventually
from tests.unit.msg.http_fakes import Gateway

pytestmark = BOTH_EVENT_LOOPS

TELLER = "Authorization: Bearer teller-1"
JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
KEY = "Idempotency-Key: k"
MOVE = b'{"source":1,"target":2,"amount":10}'
CASH = b'{"account":1,"amount":10}'


def post(path: str, body: bytes, *lines: str) -> bytes:
    return head("POST", path, *lines, f"Content-Length: {len(body)}") + body


class Refuses:
    """An ASGI application that nobody should come to."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError(f"{scope['method']} {scope['path']} came to the application")


REQUESTS = {
    "transfer": ("/bank/transfers", MOVE, TELLER, JSON, KEY),
    "deposit": ("/bank/deposits", CASH, TELLER, JSON, KEY),
    "withdrawal": ("/bank/withdrawals", CASH, TELLER, JSON, KEY),
    "a media type with its character set": (
        *("/bank/transfers", MOVE, TELLER, KEY),
        "Content-Type: Application/JSON; charset=UTF-8",
    ),
    "message": ("/messages", b'{"text":"hello"}', JSON, KEY),
    "message without a text": ("/messages", b'{"text":""}', JSON, KEY),
    "form": ("/", b"msg=hello", FORM),
    "form with another field": ("/", b"msg=hello&to=me", FORM),
    "form as JSON": ("/", b'{"msg":"hello"}', JSON),
    "no token": ("/bank/transfers", MOVE, JSON, KEY),
    "another scheme": ("/bank/transfers", MOVE, "Authorization: Basic dGVsbGVy", JSON, KEY),
    "fake token": ("/bank/transfers", MOVE, "Authorization: Bearer fake", JSON, KEY),
    "fake token of strange bytes": (
        *("/bank/transfers", MOVE, "Authorization: Bearer t\xfcr", JSON, KEY),
    ),
    "long token": ("/bank/transfers", MOVE, "Authorization: Bearer " + "x" * 600, JSON, KEY),
    "another's account": ("/bank/transfers", MOVE, "Authorization: Bearer customer-2", JSON, KEY),
    "empty key": ("/bank/transfers", MOVE, TELLER, JSON, "Idempotency-Key: "),
    "long key": ("/bank/transfers", MOVE, TELLER, JSON, "Idempotency-Key: " + "k" * 201),
    "strange key": ("/bank/transfers", MOVE, TELLER, JSON, "Idempotency-Key: \xe9"),
    "no media type": ("/bank/transfers", MOVE, TELLER, KEY),
    "another media type": ("/bank/transfers", MOVE, TELLER, FORM, KEY),
    "a compressed body": ("/bank/transfers", MOVE, TELLER, JSON, KEY, "Content-Encoding: gzip"),
    "a compressed form": ("/", b"msg=hello", FORM, "Content-Encoding: br"),
    "a body as it is": ("/bank/transfers", MOVE, TELLER, JSON, KEY, "Content-Encoding: Identity"),
    "no body": ("/bank/transfers", b"", TELLER, JSON, KEY),
    "no JSON": ("/bank/transfers", b"{", TELLER, JSON, KEY),
    "no UTF-8": ("/bank/transfers", b'{"source":"\xff"}', TELLER, JSON, KEY),
    "a missing field": ("/bank/transfers", b'{"source":1,"amount":1}', TELLER, JSON, KEY),
    "an unknown field": ("/bank/transfers", MOVE[:-1] + b',"to":3}', TELLER, JSON, KEY),
    "a name twice": ("/bank/transfers", MOVE[:-1] + b',"source":2}', TELLER, JSON, KEY),
    "no amount": ("/bank/transfers", MOVE.replace(b"10", b"NaN"), TELLER, JSON, KEY),
    "the same account": (
        *("/bank/transfers", b'{"source":1,"target":1,"amount":1}'),
        *(TELLER, JSON, KEY),
    ),
    "too little money": ("/bank/transfers", MOVE.replace(b"10", b"5000"), TELLER, JSON, KEY),
    "unknown account": ("/bank/deposits", CASH.replace(b"1", b"77", 1), TELLER, JSON, KEY),
}


async def asked(request: bytes, door: str, prepare: Callable[[Gateway], None]) -> Any:
    """Return the answer through one of the doors, and what came of it."""
    gateway = Gateway()
    prepare(gateway)
    app = Refuses() if door == "direct" else gateway.app
    async with gateway.http, serving(app, gateway.app.direct) as place:
        if door != "direct":
            first, _, rest = request.partition(b" HTTP/1.1")
            request = first + b"?door=other HTTP/1.1" + rest  # no longer exactly the route's path
        answer = await place.ask(request)
        answer.headers.pop("date")
        counted = set(gateway.metrics._series)
        assert place.server.under_way == 0
    return answer, gateway.bank.balances, gateway.messages.texts, counted


def without_new_ids(body: bytes) -> Any:
    """Return *body* without the ids that the gateway makes when it is given no key."""
    try:
        document = json.loads(body)
    except ValueError:
        return body
    return {name: value for name, value in document.items() if name != "request_id"}


@pytest.mark.parametrize("request_parts", REQUESTS.values(), ids=REQUESTS)
async def test_both_doors_answer_alike(request_parts: tuple[Any, ...]) -> None:
    request = post(*request_parts)
    (direct, *effects), (other, *other_effects) = [
        await asked(request, door, lambda gateway: None) for door in ("direct", "framework")
    ]
    assert direct.status == other.status
    assert direct.headers.items() == other.headers.items()
    assert without_new_ids(direct.body) == without_new_ids(other.body)
    assert effects == other_effects


FAILURES = {
    "insides": RuntimeError("secret words"),
    "unavailable": errors.Unavailable("10.0.0.1 does not answer"),
    "overloaded": errors.Overloaded("busy"),
    "full": errors.StoreFull("no room"),
    "lost": errors.ConnectionLost("cut"),
    "locked": LockTimeout("slow"),
    "a problem": HttpProblem(418, "teapot", "short and stout", headers={"Retry-After": "9"}),
    "somebody's cancellation": asyncio.CancelledError(),
}


@pytest.mark.parametrize("error", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("path", ["/bank/transfers", "/messages"])
async def test_both_doors_tell_of_failures_alike(path: str, error: BaseException) -> None:
    def break_it(gateway: Gateway) -> None:
        gateway.bank.error = gateway.messages.error = error  # type: ignore[assignment]

    body = MOVE if "bank" in path else b'{"text":"hello"}'
    request = post(path, body, TELLER, JSON, KEY)
    direct, *_ = await asked(request, "direct", break_it)
    assert b"secret" not in direct.body
    other, *_ = await asked(request, "framework", break_it)
    if isinstance(error, asyncio.CancelledError):  # which ends the task that the framework is in
        assert (direct.status, direct.problem["code"]) == (500, "internal")
        assert (other.status, other.problem["code"]) == (500, "internal")
        return
    assert (direct.status, direct.body) == (other.status, other.body)
    assert direct.headers.items() == other.headers.items()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_the_frameworks(method: str) -> None:
    gateway = Gateway()
    async with gateway.http, serving(gateway.app, gateway.app.direct) as place:
        connection = await place.connect()
        await connection.send(head(method, "/bank/transfers"))
        answer = await connection.answer(bodiless=method == "HEAD")
        assert answer.status == (204 if method == "OPTIONS" else 405)
        assert answer.headers["allow"] == "OPTIONS, POST"


class Hurried:
    """Services that are called under a time limit, as real ones are while they are connected to."""

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        if method == "identify":
            return {"client": 1, "role": "teller"}
        if method == "execute_packed":
            return pack_outcomes([Done(5, 7) for _ in unpack_batch(args[0])])
        assert method == "post_many"
        return ["new"] * len(args[0])


async def test_what_direct_responders_await_has_tasks_of_its_own() -> None:
    bodies = {
        **dict.fromkeys(["/bank/deposits", "/bank/withdrawals"], CASH),
        **{"/bank/transfers": MOVE, "/messages": b'{"text":"hello"}', "/": b"msg=hello"},
    }
    bank, messages = BankGateway(Hurried()), MessageGateway(Hurried())  # type: ignore[arg-type]
    routes = gateway_app(bank, messages, Gateway().pages).direct
    assert {path for _, path in routes} == {path.encode() for path in bodies}
    async with serving(Refuses(), routes) as place:
        for path, body in bodies.items():
            answer = await place.ask(post(path, body, TELLER, FORM if path == "/" else JSON))
            assert answer.status == (200 if path == "/" else 201), path
    await bank.aclose()
    await messages.aclose()


class HeldUp(Hurried):
    """The same, when somebody holds for long what operations need that do not come alone."""

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        answer = await super().call(method, *args, **options)
        if method != "execute_packed" or not args[1]:
            return answer
        return pack_outcomes([Refused.from_error(LockTimeout("")) for _ in unpack_batch(args[0])])


async def test_what_is_held_up_and_sent_alone_has_a_task_of_its_own() -> None:
    held_up = HeldUp()
    bank, messages = BankGateway(held_up), MessageGateway(held_up)  # type: ignore[arg-type]
    app = gateway_app(bank, messages, Gateway().pages)
    async with serving(Refuses(), app.direct) as place:
        answer = await place.ask(post("/bank/transfers", MOVE, TELLER, JSON, KEY))
    assert answer.status == 201, answer.body
    await bank.aclose()
    await messages.aclose()


class Responder:
    """A direct responder that can be held up; it answers with what it was sent."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.hold: asyncio.Future[None] | None = None
        self.answered: list[int] = []

    async def __call__(self, headers: Any, body: bytes) -> Answer:
        self.seen.append(body)
        if body == b"wait":
            self.hold = asyncio.get_running_loop().create_future()
            await self.hold
        if body == b"step back":
            await asyncio.sleep(0)
        if body == b"fail":
            raise RuntimeError("secret words")
        return Answer(body, media_type="text/plain")

    @property
    def routes(self) -> DirectRoutes:
        route = DirectRoute("POST", "/direct", self, lambda *facts: self.answered.append(facts[2]))
        return {(b"POST", b"/direct"): route}

    async def held(self) -> None:
        await eventually(lambda: self.hold is not None)


async def bodies(connection: Any, count: int) -> list[bytes]:
    return [(await connection.answer()).body for _ in range(count)]


async def test_answers_come_in_order_whatever_waits_and_whoever_gives_them() -> None:
    responder = Responder()
    async with serving(direct=responder.routes) as place:
        connection = await place.connect()
        sent = [b"wait", b"at once", b"step back", b"again"]
        await connection.send(
            *(post("/direct", body) for body in sent), head("GET", "/three"), post("/direct", b"z")
        )
        await responder.held()
        assert responder.seen == [b"wait"]
        responder.hold.set_result(None)
        assert await bodies(connection, 4) == sent
        assert b"/three" in (await connection.answer()).body
        assert await bodies(connection, 1) == [b"z"]
        assert responder.answered == [200] * 5


async def test_a_thousand_pipelined_requests_need_no_thousand_frames() -> None:
    responder = Responder()
    async with serving(direct=responder.routes) as place:
        connection = await place.connect()
        sent = [b"%d" % n for n in range(1000)]
        await connection.send(*(post("/direct", body) for body in sent))
        assert await bodies(connection, 1000) == sent


async def test_a_failure_is_told_without_its_words_and_the_connection_goes_on(caplog) -> None:
    responder = Responder()
    async with serving(direct=responder.routes) as place:
        connection = await place.connect()
        answer = await (await connection.send(post("/direct", b"fail"))).answer()
        assert (answer.status, answer.problem["code"]) == (500, "internal")
        assert b"secret" not in answer.body
        assert "secret words" in caplog.text
        assert (await (await connection.send(post("/direct", b"on"))).answer()).body == b"on"
        assert responder.answered == [500, 200]


async def test_who_is_awaited_and_is_cancelled_does_not_leave_the_client_waiting() -> None:
    responder = Responder()
    async with serving(direct=responder.routes) as place:
        connection = await place.connect()
        await connection.send(post("/direct", b"wait"))
        await responder.held()
        responder.hold.cancel()
        assert (await connection.answer()).status == 500


async def test_work_under_way_ends_though_its_client_is_gone() -> None:
    responder = Responder()
    async with serving(direct=responder.routes) as place:
        connection = await place.connect()
        await connection.send(post("/direct", b"wait"))
        await responder.held()
        assert place.server.under_way == 1
        hard = struct.pack("ii", 1, 0)  # a reset: the client does not even listen any more
        sock = connection.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
        connection.writer.transport.abort()
        await eventually(lambda: not place.server.connections)
        responder.hold.set_result(None)
        await eventually(lambda: place.server.under_way == 0)
        assert responder.answered == [200]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_close_comes_after_the_answer_and_what_follows_it_is_not_done(version: str) -> None:
    responder = Responder()
    async with serving(direct=responder.routes) as place:
        connection = await place.connect()
        last = post("/direct", b"last", "Connection: close").replace(b"1.1", version.encode(), 1)
        await connection.send(last, post("/direct", b"more"))
        answer = await connection.answer()
        assert (answer.body, answer.headers["connection"]) == (b"last", "close")
        assert await connection.rest() == b""
        assert responder.seen == [b"last"]


async def test_nonsense_behind_a_request_is_told_after_its_answer() -> None:
    responder = Responder()
    async with serving(direct=responder.routes) as place:
        connection = await place.connect()
        await connection.send(post("/direct", b"good"), b"NONSENSE\r\n\r\n")
        assert [(await connection.answer()).status for _ in "12"] == [200, 400]
        assert await connection.rest() == b""


async def test_draining_waits_for_direct_answers() -> None:
    responder = Responder()
    async with serving(direct=responder.routes) as place:
        connection = await place.connect()
        await connection.send(post("/direct", b"wait"))
        await responder.held()
        drained = asyncio.create_task(place.server.drain(10))
        await eventually(lambda: place.server.draining)
        responder.hold.set_result(None)
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await drained


async def test_bounds_hold_in_front_of_direct_responders() -> None:
    responder = Responder()
    async with serving(direct=responder.routes, body_size_bytes_max=4) as place:
        assert (await _refused(place, post("/direct", b"fives"))) == 413
        assert (await _refused(place, post("/direct", b"", "Expect: miracles"))) == 417
        assert responder.seen == []


async def _refused(place: Place, request: bytes) -> int:
    return (await place.ask(request)).status

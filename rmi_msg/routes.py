"""The messages over HTTP: the seed's interface at ``/``, and ``/messages``.

These routes are open, as the seed's are: whoever reaches the port may post and read messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Protocol

import falcon
import falcon.asgi
import msgspec

from rmi_msg.checks import (
    CURSOR_CHARS_MAX,
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
    TEXT_SIZE_BYTES_MAX,
    check_after,
    check_text,
)
from rmi_msg.ids import keyed_message_id, message_id, new_message_id
from rmi_runtime import errors
from rmi_runtime.http import (
    FORM_MEDIA_TYPE,
    Answer,
    HeadersByName,
    HttpProblem,
    JsonBody,
    Parameter,
    Route,
    check_media_type,
    describe,
    direct,
    form_fields,
    idempotency_key,
    invalid,
    malformed,
    problem_of,
    query_fields,
    whole_number,
)

STREAM_PAGE_MESSAGES: Final = 500
"""Messages that ``GET /`` fetches at a time; it never holds more."""

_FORM_AGAIN: Final = "sent again, the same text is kept once"
_KEYED: Final = "sent again with the same Idempotency-Key, it is kept once"
_UNKEYED: Final = (
    "look for its id among the messages before it is sent again; with an Idempotency-Key it could "
    "be sent again at once"
)

_encode = msgspec.json.Encoder().encode

Page = Mapping[str, Any]
FetchPage = Callable[[str | None, int], Awaitable[Page]]

_PAGING = (
    Parameter(
        "after",
        "start behind this place: the `next` of the page before",
        {"type": "string", "minLength": 1, "maxLength": CURSOR_CHARS_MAX},
    ),
    Parameter(
        "limit",
        "messages on the page",
        {
            "type": "integer",
            "minimum": 1,
            "maximum": PAGE_LIMIT_MAX,
            "default": PAGE_LIMIT_DEFAULT,
        },
    ),
)


class Messages(Protocol):
    """What these routes need of the messages; :class:`rmi_msg.MessageGateway` has it."""

    async def post(self, text: str, id: str) -> str:
        """Keep a message; return ``new``, ``same`` (kept before), or ``other`` (text differs)."""

    async def page(self, after: str | None, limit: int) -> Page:
        """Return messages in order of arrival, and where to go on."""

    async def consumed(self, after: str | None, limit: int) -> Page:
        """Return what a messages service has consumed, and where to go on."""


class MessageBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a message: its text, of at most 262,144 bytes of UTF-8."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_SIZE_BYTES_MAX)]


class FormBody(msgspec.Struct, forbid_unknown_fields=True):
    """Fields of the seed's form."""

    msg: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_SIZE_BYTES_MAX)]


class Posted(msgspec.Struct):
    """A message that is kept."""

    id: str


class KeptMessage(msgspec.Struct):
    """A message, when it came and through which logger."""

    id: str
    text: str
    received_at: str
    logger: str


class ConsumedMessage(msgspec.Struct):
    """A message, when it was consumed and by which messages service."""

    id: str
    text: str
    consumed_at: str
    by: str


class KeptPage(msgspec.Struct):
    """A page of messages; *next* is the ``after`` of the next page, or null."""

    messages: list[KeptMessage]
    next: str | None


class ConsumedPage(msgspec.Struct):
    """A page of consumed messages; *next* is the ``after`` of the next page, or null."""

    messages: list[ConsumedMessage]
    next: str | None


_Pair = Annotated[list[str], msgspec.Meta(min_length=2, max_length=2)]


class Seed:
    """The seed's interface: a form in, everything out."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    @describe(
        summary="Post a message as a form",
        body=FormBody,
        body_media_type=FORM_MEDIA_TYPE,
        media_type="text/plain; charset=utf-8",
        problems=(415, 422),
        text="The id derives from the text: the same text again is the same message.",
    )
    @direct
    async def on_post(self, headers: HeadersByName, body: bytes) -> Answer:
        """Keep the form's message."""
        check_media_type(headers, FORM_MEDIA_TYPE)
        fields = form_fields(body)
        for name in fields:
            if name != "msg":
                raise malformed(f"nobody knows the form field {name[:80]!r}", field=name[:80])
        if "msg" not in fields:
            raise invalid("msg", "is missing; send a form body such as msg=hello")
        text = check_text(fields["msg"], "msg")
        await _post(self._messages, text, message_id(text), _FORM_AGAIN)
        return Answer(f"POST request {body!r}".encode(), media_type=falcon.MEDIA_TEXT)

    @describe(
        summary="All messages, and all that a messages service has consumed",
        answer=Annotated[list[list[_Pair]], msgspec.Meta(min_length=2, max_length=2)],
        parameters=(Parameter("msg", "taken, as the seed does, and not used", {"type": "string"}),),
        text="A list of two lists of [id, text] pairs, sent page by page.",
    )
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Stream both lists."""
        query_fields(req)
        # The first pages come before the status: once it is sent, only a cut can tell of a failure.
        kept = await self._messages.page(None, STREAM_PAGE_MESSAGES)
        consumed = await self._messages.consumed(None, STREAM_PAGE_MESSAGES)
        resp.content_type = falcon.MEDIA_JSON
        resp.stream = self._both(kept, consumed)

    async def _both(self, kept: Page, consumed: Page) -> AsyncIterator[bytes]:
        yield b"["
        async for part in _pairs(kept, self._messages.page):
            yield part
        yield b","
        async for part in _pairs(consumed, self._messages.consumed):
            yield part
        yield b"]"


class AllMessages:
    """The messages that are kept."""

    _body: JsonBody[MessageBody] = JsonBody(MessageBody)

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    @describe(
        summary="Post a message",
        body=MessageBody,
        status=201,
        answer=Posted,
        keyed=True,
        problems=(415, 422),
        text="With an Idempotency-Key, the same request again is the same message.",
    )
    @direct
    async def on_post(self, headers: HeadersByName, body: bytes) -> Answer:
        """Keep a message."""
        key = idempotency_key(headers)
        asked = self._body.read(headers, body)
        if key is None:
            id, if_unknown = new_message_id(), _UNKEYED
        else:
            id, if_unknown = keyed_message_id(key), _KEYED
        await _post(self._messages, check_text(asked.text), id, if_unknown)
        return Answer(_encode({"id": id}), 201)

    @describe(
        summary="A page of the messages, in order of arrival",
        answer=KeptPage,
        parameters=_PAGING,
        problems=(422,),
    )
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Show a page."""
        resp.data = _encode(await self._messages.page(*_paging(req)))


class Consumed:
    """The messages that were consumed."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    @describe(
        summary="A page of what a messages service, picked at random, has consumed",
        answer=ConsumedPage,
        parameters=_PAGING,
        problems=(422,),
    )
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Show a page."""
        resp.data = _encode(await self._messages.consumed(*_paging(req)))


def message_routes(messages: Messages) -> list[Route]:
    """Return the routes of the messages.

    Args:
        messages: usually a :class:`rmi_msg.MessageGateway`.
    """
    return [
        Route("/", Seed(messages)),
        Route("/messages", AllMessages(messages)),
        Route("/messages/consumed", Consumed(messages)),
    ]


async def _post(messages: Messages, text: str, id: str, if_unknown: str) -> None:
    """Keep a message; *if_unknown* says what to do if nobody knows whether it is kept."""
    try:
        found = await messages.post(text, id)
    except errors.RmiError as error:
        problem = problem_of(error, id=id)
        if problem.status == 503 and not error.definite:
            problem.detail = f"it is not known whether this was kept; {if_unknown}"
        raise problem from error
    if found == "other":
        raise HttpProblem(
            422,
            "request_id_reused",
            "this Idempotency-Key was used for a message with another text; that one stays",
            id=id,
        )


def _paging(req: falcon.asgi.Request) -> tuple[str | None, int]:
    fields = query_fields(req)
    limit = whole_number(fields, "limit", default=PAGE_LIMIT_DEFAULT, low=1, high=PAGE_LIMIT_MAX)
    return check_after(fields.get("after")), limit


async def _pairs(page: Page, fetch: FetchPage) -> AsyncIterator[bytes]:
    """Yield the JSON list of [id, text] pairs of *page* and all that follow it."""
    yield b"["
    separator = b""
    while True:
        messages = page["messages"]
        if messages:
            pairs = _encode([(message["id"], message["text"]) for message in messages])
            yield separator + pairs[1:-1]
            separator = b","
        after = page["next"]
        if after is None:
            break
        page = await fetch(after, STREAM_PAGE_MESSAGES)
    yield b"]"

"""``/`` and ``/messages*``: the seed's words to the byte, keys, pages and streams."""

from __future__ import annotations

import json
import uuid

import pytest

from rmi_msg import keyed_message_id, message_id
from rmi_msg.errors import LogBegunAnew
from rmi_runtime import errors
from tests.unit.msg.http_fakes import Gateway, assert_problem, gateway

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": ""}
OPEN = {"Authorization": ""}


async def post_form(g: Gateway, body: bytes):
    return await g.post("/", raw=body, headers=FORM)


async def test_the_seeds_form_is_answered_with_the_seeds_words() -> None:
    async with gateway() as g:
        response = await post_form(g, b"msg=msg1")
        assert response.status_code == 200
        assert response.text == "POST request b'msg=msg1'"
        assert response.headers["content-type"].startswith("text/plain")
        assert g.messages.texts == {"487e0156-a04c-5aeb-b42c-52c752bc2dd7": "msg1"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"msg=a+b%26c", "a b&c"),
        (b"msg=%D1%82%D0%B5%D0%BA%D1%81%D1%82", "текст"),
        ("msg=текст".encode(), "текст"),
        (b"msg=a%3Db", "a=b"),
        (b"msg='quoted'", "'quoted'"),
    ],
)
async def test_the_text_is_the_decoded_form_field_and_the_echo_is_raw(
    body: bytes, text: str
) -> None:
    async with gateway() as g:
        response = await post_form(g, body)
        assert response.text == f"POST request {body!r}"
        assert g.messages.texts == {message_id(text): text}


async def test_the_same_form_again_is_the_same_message() -> None:
    async with gateway() as g:
        for _ in range(2):
            assert (await post_form(g, b"msg=msg1")).status_code == 200
        assert len(g.messages.texts) == 1


@pytest.mark.parametrize("body", [b"", b"msg=", b"msg=" + b"a" * 300_000])
async def test_a_form_without_a_message_or_with_too_long_a_one_is_422(body: bytes) -> None:
    async with gateway() as g:
        document = (await post_form(g, body)).json()
        assert (document["status"], document["field"]) == (422, "msg")
        assert g.messages.texts == {}


@pytest.mark.parametrize(
    "body", [b"other=x", b"msg=a&other=x", b"msg=a&msg=b", b"msg=%ff", b"msg=\xff", b"a=&" * 40]
)
async def test_a_form_that_cannot_be_read_is_400(body: bytes) -> None:
    async with gateway() as g:
        assert_problem(await post_form(g, body), 400, "malformed")
        assert g.messages.texts == {}


@pytest.mark.parametrize("media_type", ["", "application/json", "multipart/form-data; boundary=x"])
async def test_a_form_of_another_media_type_is_415(media_type: str) -> None:
    async with gateway() as g:
        response = await g.post("/", raw=b"msg=a", headers={**FORM, "Content-Type": media_type})
        assert_problem(response, 415, "unsupported_media_type")


async def test_everything_comes_as_the_seeds_list_of_two() -> None:
    async with gateway() as g:
        for n in range(1, 4):
            await post_form(g, b"msg=msg%d" % n)
        g.messages.read = list(g.messages.texts)[:2]
        response = await g.http.get("/?msg=HELLO")
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        pairs = [[message_id(f"msg{n}"), f"msg{n}"] for n in range(1, 4)]
        assert response.json() == [pairs, pairs[:2]]


async def test_an_empty_system_answers_two_empty_lists() -> None:
    async with gateway() as g:
        assert (await g.http.get("/")).text == "[[],[]]"


@pytest.mark.parametrize("page_max", [1, 3, 500, 2000])
async def test_everything_is_streamed_page_by_page(page_max: int) -> None:
    async with gateway() as g:
        g.messages.page_max = page_max
        texts = [f'{n} "quoted" \n текст 😀' for n in range(1501)]
        g.messages.texts = {message_id(text): text for text in texts}
        g.messages.read = list(g.messages.texts)
        kept, consumed = json.loads((await g.http.get("/")).content.decode())
        assert [text for _, text in kept] == texts
        assert kept == consumed
        assert all(limit <= 500 for _, limit in g.messages.pages)
        assert len(g.messages.pages) >= 1501 // min(page_max, 500)


async def test_an_empty_page_before_the_end_leaves_the_list_valid() -> None:
    async with gateway() as g:
        pages = [
            {"messages": [], "next": "1"},
            {"messages": [{"id": "a", "text": "x"}], "next": "2"},
            {"messages": [], "next": "3"},
            {"messages": [{"id": "b", "text": "y"}], "next": None},
        ]

        async def page(after: str | None, limit: int):
            return pages[int(after or 0)]

        g.messages.page = page
        assert (await g.http.get("/")).json() == [[["a", "x"], ["b", "y"]], []]


@pytest.mark.parametrize("path", ["/", "/messages"])
async def test_reading_while_nobody_is_there_is_503_not_half_an_answer(path: str) -> None:
    async with gateway() as g:
        g.messages.error = errors.Unavailable("nobody")
        assert_problem(await g.http.get(path), 503, "unavailable")


async def test_a_failure_after_the_first_page_breaks_the_answer() -> None:
    async with gateway() as g:
        g.messages.page_max = 1
        g.messages.texts = {"a": "x", "b": "y"}
        fetch = g.messages.page

        async def page(after: str | None, limit: int):
            if after is not None:
                raise errors.Unavailable("nobody")
            return await fetch(after, limit)

        g.messages.page = page
        with pytest.raises(errors.Unavailable):  # a real server cuts the connection
            await g.http.get("/")


async def test_head_of_everything_reads_no_further_than_needed() -> None:
    async with gateway() as g:
        g.messages.page_max = 1
        g.messages.texts = {str(n): "x" for n in range(100)}
        response = await g.http.head("/")
        assert (response.status_code, response.content) == (200, b"")
        assert len(g.messages.pages) == 1


async def test_a_message_is_201_with_a_new_id_that_rises_with_time() -> None:
    async with gateway() as g:
        response = await g.post("/messages", {"text": "hello"}, headers=OPEN)
        assert response.status_code == 201
        id = response.json()["id"]
        assert uuid.UUID(id).version == 7
        assert g.messages.texts == {id: "hello"}


async def test_without_a_key_the_same_text_twice_is_two_messages() -> None:
    async with gateway() as g:
        for _ in range(2):
            await g.post("/messages", {"text": "hello"})
        assert list(g.messages.texts.values()) == ["hello", "hello"]


async def test_under_one_key_a_message_is_kept_once() -> None:
    async with gateway() as g:
        headers = {"Idempotency-Key": "my key"}
        first, again = [await g.post("/messages", {"text": "a"}, headers=headers) for _ in "12"]
        assert (again.status_code, again.json()) == (201, first.json())
        assert first.json()["id"] == keyed_message_id("my key")
        assert uuid.UUID(first.json()["id"]).version == 5
        assert len(g.messages.texts) == 1


async def test_the_same_key_with_another_text_is_422_and_the_first_stays() -> None:
    async with gateway() as g:
        headers = {"Idempotency-Key": "k"}
        first = await g.post("/messages", {"text": "a"}, headers=headers)
        other = await g.post("/messages", {"text": "b"}, headers=headers)
        assert_problem(other, 422, "request_id_reused")
        assert g.messages.texts == {first.json()["id"]: "a"}


async def test_a_key_cannot_be_made_to_meet_the_id_of_a_form_text() -> None:
    assert keyed_message_id("msg1") != message_id("msg1")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 422),
        (b'{"text":""}', 422),
        (b'{"text":1}', 422),
        (b'{"text":null}', 422),
        (b'["text"]', 422),
        (b'{"text":"%b"}' % (b"a" * 262_145), 422),
        (b'{"text":"%b"}' % ("я" * 131_073).encode(), 422),
        (b'{"text":"a","more":1}', 400),
        (b'{"text":"a","text":"b"}', 400),
        (b'{"text":"a","\\u0074ext":"b"}', 400),
        (b'{"text":"\\u0022\\u0022\\u0022\\u0022","text":"b"}', 400),
        (b'{"text":"b","text":"\\u0022\\u0022\\u0022\\u0022"}', 400),
        (b'{"text":"\xff"}', 400),
        (b'{"text":"\\ud800"}', 400),
        (b'{"text":"a\nb"}', 400),
        (b"text", 400),
    ],
)
async def test_bad_messages_are_refused_and_not_kept(body: bytes, status: int) -> None:
    async with gateway() as g:
        assert (await g.post("/messages", raw=body)).status_code == status
        assert g.messages.texts == {}


@pytest.mark.parametrize(
    "text",
    ["a", "a" * 262_144, "я" * 131_072, "\0", 'a"b', "a\\b", "a\nb", "text: a, text: b", "😀"],
)
async def test_every_text_within_the_bounds_is_kept_as_it_is(text: str) -> None:
    async with gateway() as g:
        assert (await g.post("/messages", {"text": text})).status_code == 201
        assert list(g.messages.texts.values()) == [text]


async def test_a_message_that_may_have_been_kept_is_503_and_names_its_id() -> None:
    async with gateway() as g:
        g.messages.error = errors.ConnectionLost("gone")
        headers = {"Idempotency-Key": "k"}
        response = await g.post("/messages", {"text": "a"}, headers=headers)
        document = assert_problem(response, 503, "connection_lost")
        assert (document["definite"], document["id"]) == (False, keyed_message_id("k"))
        assert "same Idempotency-Key" in document["detail"]


@pytest.mark.parametrize(
    "error", [errors.Unavailable("no logger is there"), errors.StoreFull("no room")]
)
async def test_a_message_that_was_not_kept_is_503_and_leaves_no_doubt(
    error: errors.RmiError,
) -> None:
    async with gateway() as g:
        g.messages.error = error
        document = assert_problem(await g.post("/messages", {"text": "a"}), 503, error.code)
        assert document["definite"] is True
        assert "not known" not in document["detail"]


async def test_without_a_key_nobody_is_told_to_ask_again_with_the_same_one() -> None:
    async with gateway() as g:
        g.messages.error = errors.ConnectionLost("gone")
        document = assert_problem(await g.post("/messages", {"text": "a"}), 503, "connection_lost")
        assert uuid.UUID(document["id"]).version == 7
        assert "look for its id" in document["detail"]
        document = assert_problem(await post_form(g, b"msg=a"), 503, "connection_lost")
        assert document["id"] == message_id("a")
        assert "same text is kept once" in document["detail"]


async def test_who_follows_a_log_that_was_begun_anew_is_told_so_by_a_code() -> None:
    async with gateway() as g:
        g.messages.error = LogBegunAnew("after is of a log that is lost", field="after")
        answer = await g.http.get("/messages?after=3.14-0123456789abcdef")
        assert assert_problem(answer, 422, "log_begun_anew")["field"] == "after"


async def test_pages_of_messages_and_of_what_was_consumed() -> None:
    async with gateway() as g:
        g.messages.texts = {"a": "x", "b": "y", "c": "z"}
        g.messages.read = ["a"]
        page = (await g.http.get("/messages?limit=2")).json()
        assert [message["text"] for message in page["messages"]] == ["x", "y"]
        assert set(page["messages"][0]) == {"id", "text", "received_at", "logger"}
        last = (await g.http.get(f"/messages?limit=2&after={page['next']}")).json()
        assert ([message["id"] for message in last["messages"]], last["next"]) == (["c"], None)
        consumed = (await g.http.get("/messages/consumed")).json()
        assert set(consumed["messages"][0]) == {"id", "text", "consumed_at", "by"}


@pytest.mark.parametrize("path", ["/messages", "/messages/consumed"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        *((f"limit={bad}", "limit") for bad in ("abc", "-1", "0", "1001", "1000000000", "")),
        ("after=", "after"),
        (f"after={'a' * 201}", "after"),
    ],
)
async def test_bad_query_parameters_are_422(path: str, query: str, field: str) -> None:
    async with gateway() as g:
        response = await g.http.get(f"{path}?{query}")
        assert assert_problem(response, 422, "invalid")["field"] == field


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/?msg=a&msg=b", "msg"),
        ("/?msg=a&m%73g=a", "msg"),
        ("/messages?limit=1&limit=2", "limit"),
        ("/messages/consumed?limit=1&after=a&after=a", "after"),
        ("/bank/accounts/1/statement?after=1&after=2", "after"),
        (f"/?{'a' * 100}&{'a' * 100}", "a" * 80 + "…"),
    ],
)
async def test_a_parameter_given_twice_is_400_and_named(path: str, field: str) -> None:
    async with gateway() as g:
        assert assert_problem(await g.get(path), 400, "malformed")["field"] == field


async def test_a_form_field_given_twice_is_named() -> None:
    async with gateway() as g:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = await g.http.post("/", content=b"msg=a&msg=b", headers=headers)
        assert assert_problem(response, 400, "malformed")["field"] == "msg"


@pytest.mark.parametrize(
    ("path", "allowed"), [("/", "GET, HEAD, POST"), ("/messages/consumed", "GET, HEAD")]
)
async def test_another_method_is_405(path: str, allowed: str) -> None:
    async with gateway() as g:
        response = await g.http.delete(path)
        assert_problem(response, 405, "method_not_allowed")
        assert set(response.headers["allow"].split(", ")) >= set(allowed.split(", "))


async def test_who_keeps_the_last_cursor_follows_what_is_added_behind_the_end() -> None:
    async with gateway() as g:
        seen: list[str] = []
        after = None
        for count in (0, 3, 4, 4, 9):
            while len(g.messages.texts) < count:
                g.messages.texts[f"id-{len(g.messages.texts)}"] = "text"
            while True:
                query = "?limit=2" if after is None else f"?limit=2&after={after}"
                page = (await g.get(f"/messages{query}")).json()
                seen += [m["id"] for m in page["messages"] if m["id"] not in seen]
                if page["next"] is None:
                    break
                after = page["next"]
            assert seen == list(g.messages.texts)

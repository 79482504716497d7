"""Bodies, forms and problems: pure reading and writing, without any server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmi_bank.http_bodies import BATCH_TYPES, BatchBody
from rmi_runtime import errors
from rmi_runtime.http import (
    HttpLimits,
    HttpProblem,
    JsonBody,
    Route,
    describe,
    form_fields,
    make_app,
    problem_of,
    whole_number,
)
from rmi_runtime.http.heads import head_problem
from rmi_runtime.http.problems import problem_bytes


class Inner(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Something inside."""

    name: str
    note: str = ""


class Outer(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Something with all that bodies have."""

    text: str
    number: int = 0
    inner: list[Inner] = []


class Flat(msgspec.Struct, forbid_unknown_fields=True):
    """A text and a number: what the commonest bodies are made of."""

    text: str
    number: int


BODY: JsonBody[Outer] = JsonBody(Outer)
FLAT: JsonBody[Flat] = JsonBody(Flat)
inners = st.builds(Inner, name=st.text(), note=st.text())
outers = st.builds(
    Outer, text=st.text(), number=st.integers(-(2**63), 2**63), inner=st.lists(inners)
)


@given(value=outers, ascii=st.booleans())
def test_whatever_fits_is_read_as_it_was_meant(value: Outer, ascii: bool) -> None:
    body = json.dumps(msgspec.to_builtins(value), ensure_ascii=ascii).encode()
    assert BODY.parse(body) == value


@given(value=outers, data=st.data())
def test_a_name_given_twice_is_refused_wherever_it_is(value: Outer, data: st.DataObject) -> None:
    plain = msgspec.to_builtins(value)
    place = plain
    if value.inner and data.draw(st.booleans()):
        place = data.draw(st.sampled_from(plain["inner"]))
    name = data.draw(st.sampled_from(sorted(place)))
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    again = data.draw(st.sampled_from([name, escaped]))
    mark = "MARK-OF-THE-SECOND"
    place[mark] = place[name]
    body = json.dumps(plain, ensure_ascii=False)
    body = body.replace(f'"{mark}"', f'"{again}"')
    assert refusal(BODY.parse, body.encode()) == 400


def test_of_two_types_of_one_operation_neither_is_said_to_be_unknown() -> None:
    body = b'{"operations":[{"type":"deposit","account":1,"amount":1,"type":"withdrawal"}]}'
    with pytest.raises(HttpProblem, match="type is given twice") as caught:
        JsonBody(BatchBody, BATCH_TYPES).parse(body)
    assert caught.value.status == 400


def test_what_is_wrong_is_said_also_beside_a_number_that_is_too_long_to_be_read() -> None:
    body = b'{"operations":[{"type":1,"amount":' + b"9" * 5000 + b"}]}"
    assert refusal(JsonBody(BatchBody, BATCH_TYPES).parse, body) == 422


@given(
    text=st.text(),
    number=st.integers(-(2**63), 2**63 - 1),
    again=st.sampled_from(["", "text", "number", "t\\u0065xt"]),
    ascii=st.booleans(),
    indent=st.sampled_from([None, 2]),
)
def test_a_flat_body_is_read_and_no_name_in_it_may_come_twice(
    text: str, number: int, again: str, ascii: bool, indent: int | None
) -> None:
    plain = {"text": text, "number": number}
    body = json.dumps(plain, ensure_ascii=ascii, indent=indent).encode()
    assert FLAT.parse(body) == Flat(text, number)
    if again:
        value = json.dumps(number if again == "number" else text)
        assert refusal(FLAT.parse, f'{{"{again}":{value},'.encode() + body.strip()[1:]) == 400


def refusal(read: Callable[..., Any], *args: Any, **options: Any) -> int:
    """Return the status of the problem that reading raises, or 0 if it raises none."""
    try:
        read(*args, **options)
    except HttpProblem as problem:
        return problem.status
    return 0


@given(st.binary(max_size=200))
def test_no_bytes_whatever_are_more_than_the_callers_mistake(body: bytes) -> None:
    assert refusal(BODY.parse, body) in {0, 400, 422}
    assert refusal(form_fields, body) in {0, 400}


FORM_PARTS = ["%", "%4", "%41", "%7a", "%C3%A9", "%c3", "%A9", "%00", "é", "+", "&", "=", "a", "4"]


@given(st.lists(st.sampled_from(FORM_PARTS), max_size=12).map("".join))
def test_a_form_is_read_as_the_standard_library_reads_it(text: str) -> None:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        pairs = []
        assert refusal(form_fields, text.encode()) == 400
    if len(dict(pairs)) < len(pairs):
        assert refusal(form_fields, text.encode()) == 400
    elif pairs:
        assert form_fields(text.encode()) == dict(pairs)


@pytest.mark.parametrize("part", [b"%", b"%4", b"%41", b"%zz", b"+"])
def test_no_character_of_a_long_form_costs_a_call(part: bytes) -> None:
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        form_fields(b"msg=" + part * 1000)
    finally:
        sys.setprofile(None)
    assert calls < 100


@given(st.text(max_size=30) | st.integers(-99, 99).map(str))
def test_a_number_in_a_query_is_digits_within_bounds_or_refused(text: str) -> None:
    fits = text.isascii() and text.isdigit() and 5 <= int(text[:40]) <= 50
    status = refusal(whole_number, {"n": text}, "n", default=0, low=5, high=50)
    assert status == (0 if fits else 422)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"text":1}', "text"),
        (b'{"text":"a","inner":[{"name":"b"},{"name":2}]}', "inner[1].name"),
        (b'{"text":"a","inner":[{}]}', "inner[0].name"),
        (b'{"text":"a","number":NaN}', "number"),
        (b'{"text":"a","inner":[{"name":-Infinity}]}', "inner[0].name"),
    ],
)
def test_the_field_at_fault_is_named_with_its_place(body: bytes, field: str) -> None:
    with pytest.raises(HttpProblem) as caught:
        BODY.parse(body)
    assert (caught.value.status, caught.value.fields["field"]) == (422, field)


@pytest.mark.parametrize("place", ["", '"text":"a","inner":[{"name":"b",'])
@pytest.mark.parametrize("name", ["x\ny", " - at `$.text", "missing required field `text", "`", ""])
def test_a_name_that_nobody_knows_is_400_whatever_is_in_it(place: str, name: str) -> None:
    body = "{" + place + json.dumps(name) + ":1" + ("}]}" if place else "}")
    with pytest.raises(HttpProblem) as caught:
        BODY.parse(body.encode())
    field = f"inner[0].{name}" if place else name
    assert (caught.value.status, caught.value.fields["field"]) == (400, field)


@pytest.mark.parametrize(
    ("read", "body", "said"),
    [
        (BODY.parse, b'{"":1}', "'': nobody knows"),
        (BODY.parse, b'{"text":"a","inner":[{"name":"b","":1}]}', "inner[0].'': nobody knows"),
        (form_fields, b"=1&=2", "'' is given twice"),
    ],
)
def test_an_empty_name_is_shown_in_quotes(
    read: Callable[[bytes], object], body: bytes, said: str
) -> None:
    with pytest.raises(HttpProblem) as caught:
        read(body)
    assert caught.value.detail.startswith(said)


def test_a_name_cannot_make_the_search_for_its_place_long() -> None:
    body = json.dumps({"text": "a", " - at `$" * 100_000 + "\n": 1}).encode()
    assert refusal(BODY.parse, body) == 400  # searched for from each of them it takes minutes


def test_a_long_wrong_value_is_not_said_back_whole() -> None:
    class Tagged(msgspec.Struct, tag="a"):
        """Something that says what it is."""

    with pytest.raises(HttpProblem) as caught:
        JsonBody(Tagged).parse(b'{"type":"' + b"x" * 10_000 + b'"}')
    assert len(problem_bytes(caught.value)) < 500


def test_a_long_unknown_name_is_not_said_back_whole() -> None:
    with pytest.raises(HttpProblem) as caught:
        BODY.parse(b'{"' + b"x" * 10_000 + b'":1}')
    assert len(problem_bytes(caught.value)) < 500


@pytest.mark.parametrize("header", [b"content-type", b"content-encoding"])
def test_of_a_long_wrong_header_the_beginning_is_said_back(header: bytes) -> None:
    with pytest.raises(HttpProblem) as caught:
        BODY.read({header: b"x" * 1000}, b"{}")
    assert f"'{'x' * 80}'…;" in caught.value.detail


def _all_errors() -> list[type[errors.RmiError]]:
    found, waiting = [], [errors.RmiError]
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        # Ours: other tests make errors of their own.
        waiting += [each for each in cls.__subclasses__() if each.__module__.startswith("rmi_")]
    return found


@pytest.mark.parametrize("cls", _all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_of_the_tree_has_a_problem(cls: type[errors.RmiError]) -> None:
    problem = problem_of(cls("words from inside", place="10.0.0.7"), request_id="r")
    document = json.loads(problem_bytes(problem))
    assert document["status"] == problem.status
    assert document["request_id"] == "r"
    if problem.status >= 500:
        assert "inside" not in document["detail"]
        assert "place" not in document
        assert document["definite"] is cls.definite
        assert ("Retry-After" in problem.headers) == (problem.status == 503)
    else:
        assert document["detail"] == "words from inside"


def test_what_may_have_happened_is_503_also_if_nobody_here_knows_its_code() -> None:
    for cls in _all_errors():
        if not cls.definite and cls is not errors.InternalError:
            assert problem_of(cls("x")).status == 503, cls
    told = {"code": "from_a_newer_service", "definite": False, "fields": {}}
    unknown = errors.from_wire({"__class__": "builtins.RuntimeError", "attributes": told})
    assert unknown is not None
    problem = problem_of(unknown)
    assert (problem.status, problem.code) == (503, "from_a_newer_service")


async def test_what_was_prepared_before_an_error_is_not_sent() -> None:
    class Undecided:
        @describe(summary="x")
        async def on_get(self, req: Any, resp: Any) -> None:
            resp.text = "all is well"
            raise errors.Conflict("it is not")

    transport = httpx.ASGITransport(app=make_app([Route("/x", Undecided())]))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        response = await client.get("/x")
    assert (response.status_code, response.json()["detail"]) == (409, "it is not")


@pytest.mark.parametrize(
    ("target", "status"), [(b"/", None), (b"/" + b"a" * 8191, None), (b"/\xff", 400)]
)
def test_targets_are_ascii_and_bounded(target: bytes, status: int | None) -> None:
    headers = [(b"host", b"x")]
    found = head_problem("1.1", target, headers, dict(headers), 0, HttpLimits())
    assert (found and found.status) == status


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800", {1: object()}])
def test_a_field_that_json_cannot_carry_does_not_cost_the_answer(value: object) -> None:
    document = json.loads(problem_bytes(HttpProblem(409, "conflict", "it is so", fact=value)))
    assert (document["status"], document["code"]) == (409, "conflict")


@pytest.mark.parametrize("escaped", [rb"\ud800", rb"a\udc00b", rb"\ud83d\ude00\udead"])
def test_a_lone_surrogate_is_named(escaped: bytes) -> None:
    with pytest.raises(HttpProblem, match="lone surrogate") as caught:
        FLAT.parse(b'{"text":"' + escaped + b'","number":1}')
    assert caught.value.status == 400


def test_what_is_cut_off_is_not_blamed_on_its_surrogates() -> None:
    with pytest.raises(HttpProblem, match="truncated"):
        FLAT.parse(rb'{"text":"\ud800')

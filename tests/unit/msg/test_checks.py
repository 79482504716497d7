"""What may be a message, an id, a batch and a page."""

from __future__ import annotations

import pytest

from rmi_msg import checks
from rmi_runtime import errors


@pytest.mark.parametrize(
    "text", ["a", " ", "\x00", "two\nlines", "é😀", "x" * 262_144, "é" * 131_072]
)
def test_any_text_of_one_character_to_256_kib_is_taken(text: str) -> None:
    assert checks.check_text(text) is text


@pytest.mark.parametrize(
    "text", ["", None, b"bytes", 7, "x" * 262_145, "é" * 131_073, "lone \ud800 surrogate", ["a"]]
)
def test_any_other_text_is_refused_and_the_field_named(text: object) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        checks.check_text(text, "messages[3].text")
    assert refused.value.fields["field"] == "messages[3].text"
    assert refused.value.definite
    refused.value.message.encode()  # the error itself can be sent


@pytest.mark.parametrize(
    "id", ["1", "order 7/2", "é" * 200, "487e0156-a04c-5aeb-b42c-52c752bc2dd7"]
)
def test_printable_ids_are_taken(id: str) -> None:
    assert checks.check_id(id) is id


@pytest.mark.parametrize("id", ["", "x" * 201, "new\nline", "\x1b[2J", "\ud800", None, 5, b"id"])
def test_other_ids_are_refused(id: object) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        checks.check_id(id)
    assert refused.value.fields["field"] == "id"
    refused.value.message.encode()


def test_a_batch_comes_back_as_pairs_in_order() -> None:
    assert checks.check_batch([["1", "a"], ("2", "b")]) == [("1", "a"), ("2", "b")]
    assert checks.check_batch([]) == []
    assert checks.check_batch([["é", "ü"], ["2", "b"]]) == [("é", "ü"), ("2", "b")]


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        ("text", "messages"),
        (None, "messages"),
        ({"1": "a"}, "messages"),
        ([["1", "a"]] * 1025, "messages"),
        ([["1", "a"], "2b"], "messages[1]"),
        ([["1"]], "messages[0]"),
        ([["1", "a", "b"]], "messages[0]"),
        ([["1", "a"], {"2", "b"}], "messages[1]"),
        ([["1", "a"], ["2", ""]], "messages[1].text"),
        ([["1", "a"], ["2", "x" * 262_145]], "messages[1].text"),
        ([["1", "é" * 131_073]], "messages[0].text"),
        ([["1", "a"], ["two\nlines", "b"]], "messages[1].id"),
        ([["1", "a"], ["x" * 201, "b"]], "messages[1].id"),
        ([["1", "a"], ["", "b"]], "messages[1].id"),
        ([["1", "a"], [None, "b"]], "messages[1].id"),
    ],
)
def test_a_wrong_batch_is_refused_and_the_place_named(batch: object, field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        checks.check_batch(batch)
    assert refused.value.fields["field"] == field


@pytest.mark.parametrize("limit", [0, -1, 1001, True, "10", 1.0, None])
def test_a_page_has_1_to_1000_messages(limit: object) -> None:
    assert [checks.check_limit(n) for n in (1, 1000)] == [1, 1000]
    with pytest.raises(errors.InvalidRequest) as refused:
        checks.check_limit(limit)
    assert refused.value.fields["field"] == "limit"


@pytest.mark.parametrize("after", [1, b"1", "", "9" * 201, "١", "\ud800"])
def test_a_cursor_is_a_short_string_or_none(after: object) -> None:
    assert checks.check_after(None) is None
    assert checks.check_after("12") == "12"
    with pytest.raises(errors.InvalidRequest) as refused:
        checks.check_after(after)
    assert refused.value.fields["field"] == "after"


def test_of_a_long_cursor_the_beginning_is_said_back() -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        checks.check_after("9" * 201)
    assert f"'{'9' * 40}'… is no cursor" in refused.value.message

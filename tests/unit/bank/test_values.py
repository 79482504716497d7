"""Checks of plain values: what is refused is named as the caller wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from rmi_bank.values import (
    accounts_of,
    checked_int,
    checked_seconds,
    record_of,
    request_ids_of,
)
from rmi_runtime.errors import InvalidRequest


@pytest.mark.parametrize(
    ("check", "value", "where"),
    [
        (accounts_of, "12", "accounts"),
        (accounts_of, [1, 2] * 10_000, "accounts"),
        (accounts_of, [1, 0], "accounts[1]"),
        (accounts_of, [1, True], "accounts[1]"),
        (request_ids_of, None, "request_ids"),
        (request_ids_of, ["7:a", ""], "request_ids[1]"),
    ],
)
def test_the_argument_and_the_place_in_it_are_named(check: Any, value: Any, where: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(value)
    assert caught.value.message.startswith(f"{where}: Expected ")
    assert "$" not in caught.value.message
    assert caught.value.fields == {"field": where}


@pytest.mark.parametrize(
    ("record", "where"),
    [
        ((None, [], []), "postings"),
        (([[1, 2, 1], [1, 2, 0]], [], []), "postings[1][2]"),
        (([], [["7:a", "x"]], []), "outcomes[0]"),
        (([], [], [[0, None]]), "opened[0][0]"),
    ],
)
def test_what_is_wrong_with_a_commit_is_named(record: Any, where: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        record_of(*record)
    assert caught.value.message.startswith(f"{where}: Expected ")
    assert caught.value.fields == {"field": where}


def test_a_text_that_would_fail_all_that_is_committed_with_it_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="lone surrogate") as caught:
        request_ids_of(["7:a", "7:\ud800"])
    assert caught.value.fields == {"field": "request_ids"}
    for outcome in (["7:\ud800", "x", "1"], ["7:a", "\ud800", "1"], ["7:a", "x", "\ud800"]):
        with pytest.raises(InvalidRequest, match="lone surrogate") as caught:
            record_of([], [outcome], [])
        assert caught.value.fields == {"field": "outcomes"}


def test_a_text_that_the_store_would_take_for_another_when_it_looks_it_up_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="NUL") as caught:
        request_ids_of(["7:a", "7:a\0b"])
    assert caught.value.fields == {"field": "request_ids"}
    for outcome in (["7:a\0", "x", "1"], ["7:a", "\0", "1"], ["7:a", "x", "1\0"]):
        with pytest.raises(InvalidRequest, match="NUL") as caught:
            record_of([], [outcome], [])
        assert caught.value.fields == {"field": "outcomes"}


@pytest.mark.parametrize(
    "value", [10**4000, 10**5000, -(10**5000)], ids=["long", "too long to be written", "negative"]
)
def test_an_enormous_number_is_refused_in_few_words(value: int) -> None:
    with pytest.raises(InvalidRequest, match="limit must be a whole number from 1 to 9, not "):
        checked_int("limit", value, 1, 9)
    with pytest.raises(
        InvalidRequest, match=r"wait_s must be a number of seconds .*, not"
    ) as caught:
        checked_seconds("wait_s", value, 9.0)
    assert len(caught.value.message) < 200

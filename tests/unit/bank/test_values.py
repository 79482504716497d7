"""Checks of plain values: what is refused is named as the caller wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from rmi_bank.values import accounts_of, record_of, request_ids_of
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

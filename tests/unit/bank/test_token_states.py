"""A token's state is judged by the data object, whose clock decides whether it is let in."""

from __future__ import annotations

from typing import Any

import pytest

from rmi_bank import token_desk
from rmi_bank.data import DataObject
from rmi_bank.stores import Token
from rmi_launch.tokens import EXPIRES_S_MAX

NOW_US = 1_700_000_000_000_000


class Tokens:
    """A ledger that has one token."""

    def __init__(self, token: Token) -> None:
        self.token = token

    async def tokens(self, after: int, limit: int) -> list[Token]:
        return [self.token]


@pytest.mark.parametrize(
    ("expires_at_us", "revoked_at_us", "state"),
    [
        (None, None, "good"),
        (NOW_US + 1, None, "good"),
        (NOW_US, None, "expired"),
        (None, NOW_US - 1, "revoked"),
        (NOW_US - 1, NOW_US - 1, "revoked"),
    ],
)
async def test_a_token_is_good_until_it_expires_or_is_revoked(
    expires_at_us: int | None,
    revoked_at_us: int | None,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_desk, "now_us", lambda: NOW_US)
    ledger: Any = Tokens(Token(1, 7, "teller", NOW_US - 9, expires_at_us, revoked_at_us))
    [shown] = (await DataObject(ledger).token_list())["tokens"]
    assert shown["state"] == state


def test_the_longest_life_of_a_token_is_the_same_on_the_command_line() -> None:
    assert EXPIRES_S_MAX == token_desk.TOKEN_LIFE_S_MAX

"""A data object that was made without opening its store."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmi_bank import DataObject, SqliteLedger
from rmi_runtime.errors import Unavailable


@pytest.mark.parametrize(
    "ask",
    [
        lambda data: data.lock(1, [1]),
        lambda data: data.commit(1, [], []),
        lambda data: data.balances([1]),
        lambda data: data.account_list(),
        lambda data: data.statement(1),
        lambda data: data.open_account(1),
        lambda data: data.identify("0" * 64),
    ],
)
async def test_it_answers_nothing_and_says_what_opens_it(
    tmp_path: Path, ask: Callable[[DataObject], Any]
) -> None:
    async def answer() -> None:
        found = ask(DataObject(SqliteLedger(tmp_path / "bank.sqlite")))
        if inspect.isawaitable(found):
            await found

    with pytest.raises(Unavailable, match="open_data"):
        await answer()

"""One question to the data object, from a command."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from rmi_launch.system import System, ask
from rmi_runtime import Proxy
from rmi_runtime.errors import CallTimeout, Conflict, Indefinite, Interrupted, RmiError


@pytest.mark.parametrize("error", [CallTimeout("no reply"), Interrupted("the store failed")])
def test_who_gets_no_answer_is_told_where_to_see_whether_it_was_done(
    error: Indefinite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(type(error), match=f"{error.message}; .* may have been done: see `rmi acc"):
        _asked(error, monkeypatch)


def test_what_was_certainly_not_done_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Conflict, match=r"^in use$"):
        _asked(Conflict("in use"), monkeypatch)


def _asked(error: RmiError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a data object that answers with *error*."""

    @contextlib.asynccontextmanager
    async def data_object(system: System) -> AsyncIterator[Proxy]:
        yield cast(Proxy, None)

    async def question(data: Proxy) -> Any:
        raise error

    monkeypatch.setattr("rmi_launch.system.data_object", data_object)
    ask(System(("127.0.0.1:1",), "127.0.0.1:1", {}), question)

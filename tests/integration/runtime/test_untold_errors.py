"""Errors that cannot say what they are: whoever causes them is answered all the same."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from rmi_runtime import Daemon, Proxy, errors
from rmi_runtime.sparse_log import Sparingly


class Untold(Exception):
    """Raises when it is asked what it says."""

    def __str__(self) -> str:
        raise RuntimeError("not to be told")


class Ending(Exception):
    """Ends the program when it is asked what it says."""

    def __str__(self) -> str:
        raise SystemExit(1)


@pytest.mark.parametrize("kind", [Untold, Ending])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
async def test_who_is_refused_with_what_cannot_be_told_is_answered(
    kind: type[Exception],
    late: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    (sparingly,) = logging.getLogger("rmi_runtime.daemon.greeting").filters
    assert isinstance(sparingly, Sparingly)
    monkeypatch.setattr(sparingly, "_lines", 0)
    monkeypatch.setattr(sparingly, "_dropped", 1)  # the next line tells of one that was left out

    async def find_out() -> Any:
        raise kind

    def identify(handshake: object, connection: object) -> Any:
        if late:
            return find_out()
        raise kind

    async with Daemon(authenticate=identify) as daemon:
        with pytest.raises(errors.Forbidden, match=kind.__name__):
            await Proxy(f"PYRO:any@{daemon.location}")._bind(5.0)

"""Dictionaries with keys that cannot travel: whoever sends them learns what to do."""

from __future__ import annotations

from typing import Any

import pytest
from Pyro5.errors import SerializeError

from rmi_runtime import Daemon, Proxy, expose
from rmi_runtime.proxy.calls import BadReply


class Map:
    """Gives and takes what has points as keys."""

    @expose
    def give(self) -> Any:
        return {(1, 2): "here"}

    @expose
    def take(self, found: Any) -> Any:
        return found


async def test_tuples_as_keys_are_refused_in_msgpack_with_what_to_do_instead() -> None:
    async with Daemon() as daemon, Proxy(daemon.register(Map())) as proxy:
        for found in ({(1, 2): "here"}, [{"deep": {(1, 2): "here"}}]):
            with pytest.raises(SerializeError, match="use text or numbers as keys"):
                await proxy.take(found)
        with pytest.raises(BadReply, match="use text or numbers as keys"):
            await proxy.give()
        assert await proxy.take({1: 2}) == {1: 2}


async def test_serpent_keeps_them() -> None:
    async with (
        Daemon() as daemon,
        Proxy(daemon.register(Map()), serializer="serpent") as proxy,
    ):
        assert await proxy.take(await proxy.give()) == {(1, 2): "here"}

"""Copies and pickles of proxies."""

from __future__ import annotations

import copy
import pickle
import ssl
from typing import Any

import pytest

from rmi_runtime import Proxy, SyncProxy


@pytest.mark.parametrize("kind", [Proxy, SyncProxy])
def test_copies_and_pickles_are_not_connected_and_keep_what_the_proxy_was_told(kind: Any) -> None:
    async def nowhere(uri: str) -> str:
        return uri

    options: dict[str, Any] = {"handshake": {"token": "t"}, "timeout_s": 3.0, "serializer": "json"}
    there = (*options, "correlation_id", "annotations", "compress")
    options |= {"correlation_id": b"0" * 16, "annotations": {"NOTE": b"x"}, "compress": True}
    state = kind("PYRO:thing@127.0.0.1:1", **options)
    shared = kind("PYRO:thing@127.0.0.1:1", ssl=ssl.create_default_context(), resolve=nowhere)
    for remade in (copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert type(remade) is kind
        assert remade == state
        inner, original = (getattr(proxy, "_proxy", proxy) for proxy in (remade, state))
        assert inner is not original
        assert not inner._connected
        for name in there:
            own = "_serializer_name" if name == "serializer" else f"_{name}"
            assert getattr(inner, own) == getattr(original, own)
    for remade in (copy.copy(shared), copy.deepcopy(shared)):
        inner, original = (getattr(proxy, "_proxy", proxy) for proxy in (remade, shared))
        assert inner._ssl is original._ssl
        assert inner._resolve is nowhere
    deep = getattr(copy.deepcopy(state), "_proxy", copy.deepcopy(state))
    assert deep._handshake is not getattr(state, "_proxy", state)._handshake

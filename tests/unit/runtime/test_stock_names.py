"""Programs that come from Pyro5's own proxy are told what takes the place of its members."""

from __future__ import annotations

from typing import Any

import pytest
from Pyro5.api import BatchProxy

from rmi_runtime import Proxy, SyncProxy

URI = "PYRO:thing@127.0.0.1:1"


@pytest.mark.parametrize("kind", [Proxy, SyncProxy])
@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("_pyroTimeout", 2.0, "timeout_s="),
        ("_pyroHandshake", {"token": "t"}, "handshake="),
        ("_pyroSerializer", "json", "serializer="),
    ],
)
def test_what_programs_tell_a_stock_proxy_is_refused_and_not_kept_unheeded(
    kind: Any, name: str, value: object, instead: str
) -> None:
    proxy = kind(URI)
    with pytest.raises(AttributeError, match=f"{name}.* make the proxy with {instead}"):
        setattr(proxy, name, value)
    assert not hasattr(proxy, name)


@pytest.mark.parametrize("kind", [Proxy, SyncProxy])
def test_the_methods_of_a_stock_proxy_tell_what_takes_their_place(kind: Any) -> None:
    proxy = kind(URI)
    with pytest.raises(AttributeError, match=r"_pyroRelease.* use _close\(\)"):
        proxy._pyroRelease()
    with pytest.raises(AttributeError, match=r"proxy\._batch\(\) in place of BatchProxy"):
        BatchProxy(proxy)()

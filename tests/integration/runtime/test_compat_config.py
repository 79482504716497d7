"""What of Pyro5's configuration the daemon that looks like Pyro5's own heeds, as stock does.

Beside it, what the other one heeds that is configured alike.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest
from Pyro5 import config
from Pyro5.api import BatchProxy, Proxy, expose

from rmi_runtime import Daemon, compat
from rmi_runtime import Proxy as AsyncProxy

BOTH = pytest.mark.parametrize("kind", [Pyro5.api.Daemon, compat.Daemon], ids=["stock", "ours"])


@expose
class Thing:
    """What is called."""

    def divide(self, number: int) -> float:
        secret = number - number
        return number / secret

    def count(self) -> Iterator[int]:
        yield from range(3)


@pytest.fixture
def serve() -> Iterator[Callable[[Any], Any]]:
    """Serve a thing by a daemon of some kind, until the test ends."""
    started: list[tuple[Any, threading.Thread]] = []
    before = config.as_dict()

    def start(kind: Any, **settings: Any) -> Any:
        for name, value in settings.items():
            setattr(config, name, value)
        daemon = kind("127.0.0.1")
        thread = threading.Thread(target=daemon.requestLoop)
        started.append((daemon, thread))
        thread.start()
        return daemon.register(Thing())

    yield start
    for daemon, thread in started:
        daemon.shutdown()
        thread.join(10)
    for name, value in before.items():
        setattr(config, name, value)


def _traceback_of(act: Callable[[], Any]) -> str:
    with pytest.raises(ZeroDivisionError) as caught:
        act()
    return "".join(caught.value._pyroTraceback)  # type: ignore[attr-defined]


@BOTH
@pytest.mark.parametrize("detailed", [False, True])
def test_detailed_tracebacks_have_the_local_variables(
    serve: Any, kind: Any, detailed: bool
) -> None:
    with Proxy(serve(kind, DETAILED_TRACEBACK=detailed)) as proxy:
        batch = BatchProxy(proxy)
        batch.divide(7)
        for act in (lambda: proxy.divide(7), lambda: list(batch())):
            assert ("secret = 0" in _traceback_of(act)) == detailed


async def test_a_daemon_that_sends_no_tracebacks_sends_none_in_batches_either() -> None:
    async with Daemon(tracebacks=False) as daemon, AsyncProxy(daemon.register(Thing())) as proxy:
        batch = proxy._batch()
        batch.divide(7)
        results = await batch()
        assert not _traceback_of(lambda: list(results))


@BOTH
def test_no_streams_are_given_out_if_none_are_configured(serve: Any, kind: Any) -> None:
    with Proxy(serve(kind, ITER_STREAMING=False)) as proxy:
        for _ in range(2):
            with pytest.raises(Pyro5.errors.ProtocolError, match="not configured to allow stream"):
                proxy.count()


@pytest.mark.parametrize(
    "bound",
    [
        "unread_bytes_max",
        "all_unread_bytes_max",
        "halves_size_bytes_max",
        "inflight_size_bytes_max",
    ],
)
def test_a_message_of_the_configured_size_is_no_ground_to_hang_up_or_refuse(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    size = 512 * 1024 * 1024
    monkeypatch.setattr(config, "MAX_MESSAGE_SIZE", size)
    with compat.Daemon() as daemon:
        limits = daemon._serving.limits
        assert limits.message_size_bytes_max == limits.reply_size_bytes_max == size
        assert getattr(limits, bound) > size


@pytest.mark.parametrize("configured", [True, False])
def test_no_host_means_all_addresses_which_is_refused_unless_wanted(
    configured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "HOST", "" if configured else "127.0.0.1")
    with pytest.raises(ValueError, match=r"binding 0\.0\.0\.0 lets other machines in"):
        compat.Daemon(None if configured else "")


@BOTH
@pytest.mark.parametrize("configured", [True, False])
def test_an_empty_nat_host_is_none(
    kind: Any, configured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "NATHOST", "" if configured else "elsewhere")
    with kind("127.0.0.1", nathost=None if configured else "") as daemon:
        assert daemon.natLocationStr is None
        assert daemon.uriFor("thing").location == daemon.locationStr


@BOTH
def test_the_nat_host_may_be_an_ipv6_address_in_brackets(kind: Any) -> None:
    with kind("127.0.0.1", nathost="[2001:db8::1]", natport=5000) as daemon:
        assert daemon.natLocationStr == "[2001:db8::1]:5000"
        assert daemon.uriFor("thing") == Pyro5.api.URI("PYRO:thing@[2001:db8::1]:5000")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"SSL_SERVERCERT": ""}, "set SSL_SERVERCERT"),
        ({"SSL_SERVERCERT": "/no/cert.pem"}, "SSL_SERVERCERT '/no/cert.pem' .*No such file"),
        ({"SSL_SERVERCERT": __file__}, f"SSL_SERVERCERT '{re.escape(__file__)}'"),
    ],
)
def test_what_is_wrong_with_the_configured_certificates_names_item_and_file(
    settings: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SSL": True, **settings}.items():
        monkeypatch.setattr(config, name, value)
    with pytest.raises((ValueError, OSError), match=told):
        compat.Daemon("127.0.0.1")


@BOTH
@pytest.mark.parametrize("size", [0, -1])
def test_a_pool_without_threads_is_refused(
    kind: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "THREADPOOL_SIZE_MIN", size)
    monkeypatch.setattr(config, "THREADPOOL_SIZE", size)
    with pytest.raises(ValueError, match=r"(?i)threadpool"):
        kind("127.0.0.1")

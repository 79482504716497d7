"""What a proxy is apart from its connection: where its object is, how to speak to it."""

from __future__ import annotations

import asyncio
import copy
import math
import ssl as tls
import time
from collections.abc import Mapping
from numbers import Real
from typing import Any, Final, Self

from Pyro5.core import URI
from Pyro5.errors import PyroError

from rmi_runtime import errors
from rmi_runtime.proxy.connection import ClientConnection
from rmi_runtime.proxy.names import Resolve
from rmi_runtime.wire import serializers

DEFAULT_TIMEOUT_S = 10.0

_KEPT_IN_COPIES: Final = (
    "_handshake",
    "_timeout_s",
    "_serializer_name",
    "_ssl",
    "_resolve",
    "_correlation_id",
    "_annotations",
    "_compress",
    "_methods",
    "_attrs",
    "_oneway",
)


def checked_timeout(timeout_s: float) -> float:
    """Return *timeout_s*.

    Raises:
        ValueError: it is no number of seconds.
    """
    try:
        seconds = isinstance(timeout_s, (int, float, Real)) and not math.isnan(timeout_s)
    except OverflowError:  # an integer that no clock can count to
        seconds = False
    if not seconds:
        raise ValueError(
            f"timeout_s is {errors.shown(timeout_s)}: expected a number of seconds that a clock "
            "can count to; math.inf waits for ever"
        )
    return timeout_s


def deadline_after(timeout_s: float) -> float:
    """Return when *timeout_s* will be over, by the monotonic clock.

    Raises:
        ValueError: it is no number of seconds.
    """
    return time.monotonic() + checked_timeout(timeout_s)


class ProxyState:
    """The part of :class:`rmi_runtime.Proxy` that copies of it have too.

    A copy is not connected. As with stock proxies, it has the handshake data, and so has a pickle:
    who may not have the token may not have the pickle.
    """

    def __init__(
        self,
        uri: str | URI,
        *,
        handshake: object = "hello",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        serializer: str = "msgpack",
        ssl: tls.SSLContext | None = None,
        resolve: Resolve | None = None,
        correlation_id: bytes | None = None,
        annotations: Mapping[str, bytes] | None = None,
        compress: bool = False,
    ) -> None:
        if serializer not in serializers.BY_NAME:
            raise ValueError(
                f"unknown serializer {serializer!r}: expected one of {sorted(serializers.BY_NAME)}"
            )
        self._uri = uri if isinstance(uri, URI) else URI(uri)
        self._handshake = handshake
        self._timeout_s = checked_timeout(timeout_s)
        self._serializer_name = serializer
        self._ssl = ssl
        self._resolve = resolve
        self._correlation_id = correlation_id
        self._annotations = annotations
        self._compress = compress
        self._methods: frozenset[str] = frozenset()
        self._attrs: frozenset[str] = frozenset()
        self._oneway: frozenset[str] = frozenset()
        self._start_unconnected()

    def _start_unconnected(self) -> None:
        self._connection: ClientConnection | None = None
        self._direct: URI | None = None  # of the last connection
        self._closings = 0
        self._ends: set[asyncio.Future[None]] = set()  # of the connections that stand, or leave
        self._object_id = ""
        self._loop: asyncio.AbstractEventLoop | None = None  # where it was connected last
        self._handshake_reply: object = None

    def _learn(self, metadata: Any) -> None:
        """Take note of what the object offers."""
        try:
            known = [frozenset(metadata[key]) for key in ("methods", "attrs", "oneway")]
        except (TypeError, KeyError):
            raise errors.Unavailable("the server did not tell what the object offers") from None
        self._methods, self._attrs, self._oneway = known

    # -- copies, within this process or in a pickle

    def __getstate__(self) -> dict[str, Any]:
        return {"_uri": str(self._uri), **{name: vars(self)[name] for name in _KEPT_IN_COPIES}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._uri = URI(state["_uri"])
        self._start_unconnected()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        for shared in (self._ssl, self._resolve):  # these cannot be copied, or are not only ours
            memo[id(shared)] = shared
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    # -- travelling: a proxy sent to a peer is a proxy there

    def _state(self) -> tuple[Any, ...]:
        # The handshake stays here: it may hold a token.
        return (
            str(self._uri),
            tuple(self._oneway),
            tuple(self._methods),
            tuple(self._attrs),
            "hello",
            None,
        )

    @classmethod
    def _from_state(cls, state: Any, **options: Any) -> Self:
        """Make a proxy of one that a peer sent. It dials nobody before it is used.

        Args:
            state: what came.
            options: as for a new proxy.

        Raises:
            PyroError: the state makes no sense.
        """
        if not isinstance(state, (list, tuple)) or len(state) < 6 or not isinstance(state[0], str):
            raise PyroError("a serialized proxy makes no sense: expected six values, a URI first")
        uri, oneway, methods, attrs, handshake, _ = state[:6]
        proxy = cls(uri, handshake=handshake, **options)
        proxy._learn({"oneway": oneway, "methods": methods, "attrs": attrs})
        return proxy

    def _adopt(self, state: Any) -> Any:
        """Make a proxy of one that came in a reply: it may do what this one may.

        It keeps this one's TLS, and shows the same handshake data, which may hold a token, to this
        one's server; to others it shows what came with it.
        """
        proxy = self._from_state(
            state,
            timeout_s=self._timeout_s,
            serializer=self._serializer_name,
            ssl=self._ssl,
            resolve=self._resolve,
            compress=self._compress,
        )
        if self._direct is not None and proxy._uri.location == self._direct.location:
            proxy._handshake = self._handshake
        return proxy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProxyState) and str(other._uri) == str(self._uri)

    def __hash__(self) -> int:
        return hash(str(self._uri))

"""The connections to name servers."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from Pyro5.errors import SerializeError

from rmi_runtime.proxy.names import name_server_uri
from rmi_runtime.proxy.proxy import Proxy


class NameServerProxies:
    """A proxy for each of some name servers, connected when first needed.

    Everything goes as JSON, the one fast format that every stock name server understands. But a
    stock one that keeps its names in memory cannot say of an entry in JSON that it has no tags: one
    that has failed at that is asked in serpent from then on.

    Args:
        locations: ``host:port`` of each.
        handshake: data for their authentication.
        timeout_s: how long one may take to answer.
        ssl: client context for TLS, or None.
    """

    def __init__(
        self,
        locations: Iterable[str],
        *,
        handshake: object,
        timeout_s: float,
        ssl: tls.SSLContext | None,
    ) -> None:
        self._handshake = handshake
        self._timeout_s = timeout_s
        self._ssl = ssl
        self._json = {location: self._proxy(location, "json") for location in locations}
        self._serpent: dict[str, Proxy] = {}

    async def call(
        self, location: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of the name server at one of the locations.

        Raises:
            Unavailable: it cannot be reached.
            Exception: what the method raises.
        """
        return await self._json[location]._call(method, args, kwargs, timeout_s=self._timeout_s)

    async def ask(
        self, location: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method that changes nothing, so that it may be called twice; as :meth:`call`."""
        if location not in self._serpent:
            try:
                return await self.call(location, method, args, kwargs)
            except SerializeError:
                self._serpent.setdefault(location, self._proxy(location, "serpent"))
        proxy = self._serpent[location]
        return await proxy._call(method, args, kwargs, timeout_s=self._timeout_s)

    async def aclose(self) -> None:
        """Close the connections."""
        proxies = [*self._json.values(), *self._serpent.values()]
        await asyncio.gather(*(proxy._close() for proxy in proxies))

    def _proxy(self, location: str, serializer: str) -> Proxy:
        return Proxy(
            name_server_uri(location),
            handshake=self._handshake,
            timeout_s=self._timeout_s,
            serializer=serializer,
            ssl=self._ssl,
        )

"""The connections to equal services: one for each, made when it is needed."""

from __future__ import annotations

import asyncio
import logging
import ssl as tls
import time
from collections.abc import Mapping

from Pyro5.core import DAEMON_NAME
from Pyro5.errors import PyroError

from rmi_runtime import errors
from rmi_runtime.balance.balancer import Endpoint
from rmi_runtime.credentials.tls import of_tls
from rmi_runtime.proxy.proxy import Proxy

log = logging.getLogger(__name__)

CONNECT_S = 1.0
"""How long connecting to one endpoint, or probing it, may take before the next one is tried."""


CLOCK_S = 0.002
"""By so much the loop's clock, which knows milliseconds only, may be early."""

HURRIED_S = 0.1
"""Who gives an endpoint less than this to be connected to learns nothing about it."""


class Unreached(errors.Unavailable):
    """Nobody, or somebody else, is at an endpoint's address."""


class Hurried(errors.DeadlinePassed):
    """There was too little time to connect; whether somebody is there is not known."""


class EndpointProxies:
    """A proxy for each endpoint that was called.

    Args:
        handshake: data for the services' authentication. If it is a service's own, with the cluster
            key, whoever refuses it is none of the cluster's services.
        timeout_s: deadline of calls that do not bring their own.
        serializer: of the calls.
        ssl: client context for TLS, or None.
    """

    def __init__(
        self,
        *,
        handshake: object,
        timeout_s: float,
        serializer: str,
        ssl: tls.SSLContext | None,
    ) -> None:
        self._handshake = handshake
        self._of_cluster = isinstance(handshake, Mapping) and "cluster_key" in handshake
        self._timeout_s = timeout_s
        self._serializer = serializer
        self._ssl = ssl
        self._proxies: dict[Endpoint, Proxy] = {}
        self._closings: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        """Number of endpoints that have been called, and not been forgotten."""
        return len(self._proxies)

    def connected(self, endpoint: Endpoint) -> Proxy | None:
        """Return the proxy of an endpoint, None if it is not connected now."""
        proxy = self._proxies.get(endpoint)
        return proxy if proxy is not None and proxy._connected else None

    async def connect(self, endpoint: Endpoint, timeout_s: float) -> tuple[Proxy, float]:
        """Connect to an endpoint, unless that is done.

        Returns:
            Its proxy, and what is left of the time.

        Raises:
            Unreached: it is not there in time, or there is one of another cluster.
            Hurried: there was next to no time, or it is there, and no time is left.
            RmiError: it refuses.
        """
        until = time.monotonic() + timeout_s
        if self._closed:
            raise errors.Unavailable(f"the connection to {endpoint.name} is closed for good")
        proxy = self._proxies.get(endpoint)
        try:
            if proxy is None:  # a name server may list what is no URI
                proxy = self._proxies[endpoint] = self._new_proxy(endpoint)
            await proxy._bind(min(timeout_s, CONNECT_S))
        except (errors.Unavailable, errors.NotFound, errors.Indefinite, PyroError) as error:
            if timeout_s < HURRIED_S and time.monotonic() > until - CLOCK_S:
                raise Hurried(
                    f"{timeout_s:.3g} s were too few to connect to {endpoint.name}"
                ) from None
            # NotFound: another service has the address now.
            if not endpoint.failures and of_tls(error):  # it will not pass by itself
                log.warning("no TLS with %s at %s: %s", endpoint.name, endpoint.uri, error)
            raise Unreached(f"{endpoint.name} is not at {endpoint.uri}: {error}") from error
        except (errors.Forbidden, errors.Unauthenticated) as error:
            if not self._of_cluster:
                raise
            # A service of another cluster has the address now; or one of us has the wrong key, and
            # nobody else would tell. Whoever made the request has nothing to do with either.
            if not endpoint.failures:
                log.warning("%s at %s refuses: %s", endpoint.name, endpoint.uri, error)
            raise Unreached(f"{endpoint.name} is not at {endpoint.uri}: {error}") from error
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise Hurried(f"{endpoint.name} took all {timeout_s:.3g} s to connect to")
        return proxy, left_s

    async def ping(self, endpoint: Endpoint) -> None:
        """Return when the endpoint has answered.

        Raises:
            RmiError, PyroError: it does not, or refuses.
        """
        proxy, _ = await self.connect(endpoint, CONNECT_S)
        await proxy._call("ping", object_id=DAEMON_NAME, timeout_s=CONNECT_S)

    async def is_heard(self, endpoint: Endpoint) -> bool:
        """Return whether a service that answers no calls says anything to somebody new.

        A new connection, because on the one that stands a question may wait behind calls. Whatever
        is answered counts, and being refused one too: whoever drains finishes its calls.
        """
        proxy = self._new_proxy(endpoint)
        try:
            async with asyncio.timeout(CONNECT_S):
                await proxy._bind(2 * CONNECT_S)
        except TimeoutError:
            return False
        except (errors.RmiError, PyroError):
            return True
        finally:
            await proxy._close()
        return True

    def cut(self, endpoint: Endpoint) -> None:
        """End the connection at once: calls under way fail with ``ConnectionLost``."""
        proxy = self._proxies.get(endpoint)
        if proxy is not None and proxy._connection is not None:
            proxy._connection.abort()

    def forget(self, endpoint: Endpoint) -> None:
        """Forget an endpoint, and close the connection to it, if there is one."""
        proxy = self._proxies.pop(endpoint, None)
        if proxy is not None:
            task = asyncio.get_running_loop().create_task(proxy._close())
            self._closings.add(task)
            task.add_done_callback(self._closings.discard)

    async def aclose(self) -> None:
        """Close all connections, and make no more."""
        self._closed = True
        for endpoint in list(self._proxies):
            self.forget(endpoint)
        await asyncio.gather(*self._closings)

    def _new_proxy(self, endpoint: Endpoint) -> Proxy:
        return Proxy(
            endpoint.uri,
            handshake=self._handshake,
            timeout_s=self._timeout_s,
            serializer=self._serializer,
            ssl=self._ssl,
        )

"""What the gateway says about itself: ``/healthz``, ``/readyz``, ``/metrics``, ``/status``,
``/openapi.json``.

These are open to whoever reaches the port, and hold no secrets: names, addresses and numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import falcon.asgi
import msgspec

from rmi_msg.cluster_state import ClusterState, common_state
from rmi_msg.gateway_metrics import METRICS_MEDIA_TYPE, GatewayMetrics
from rmi_runtime.http import HttpProblem, HttpServer, Route, describe

_encode = msgspec.json.Encoder().encode

Rows = Sequence[dict[str, Any]]

STORE_WAIT_S: Final = 0.5
"""How long ``/readyz`` waits for the services to tell of their store, in seconds."""


class Health(msgspec.Struct):
    """The gateway process lives."""

    state: str
    pid: int
    uptime_s: float
    calls: int
    errors: int
    calls_per_s: float


class Ready(msgspec.Struct, omit_defaults=True):
    """The gateway can do its work; ``store`` is there if messages are kept on a cluster."""

    ready: bool
    store: ClusterState | None = None


class ServiceRow(msgspec.Struct, omit_defaults=True):
    """A service; the numbers are there if it answers, the last two if it consumes.

    ``trouble`` is there if it cannot do its work, and says why.
    """

    name: str
    uri: str
    address: str
    state: str
    pid: int = 0
    uptime_s: float = 0
    calls: int = 0
    calls_per_s: float = 0
    errors: int = 0
    overloads: int = 0
    refusals: int = 0
    connections: int = 0
    inflight: int = 0
    streams: int = 0
    consumed: int = 0
    delivered_again: int = 0
    store: ClusterState | None = None
    trouble: str = ""


class StatusAnswer(msgspec.Struct, omit_defaults=True):
    """All services, by name; the gateway is the last. ``store``: as ``/readyz`` has it."""

    services: list[ServiceRow]
    store: ClusterState | None = None


class GatewayPages:
    """What the pages are about.

    Args:
        metrics: of this gateway.
        reasons: returns why the gateway is not ready; nothing if it is.
        rows: returns the table of the services.
    """

    def __init__(
        self,
        metrics: GatewayMetrics,
        reasons: Callable[[], Awaitable[Sequence[str]]],
        rows: Callable[[], Awaitable[Rows]],
    ) -> None:
        self.metrics = metrics
        self.reasons = reasons
        self.rows = rows
        self._store: dict[str, Any] | None = None  # as last heard
        self.server: HttpServer | None = None  # once there is one
        self.document = b""  # the OpenAPI one, once all routes are known

    @property
    def draining(self) -> bool:
        """Whether the gateway is stopping."""
        return self.server is not None and self.server.draining

    def health(self) -> dict[str, Any]:
        """Return the gateway's own state and numbers."""
        return {"state": "draining" if self.draining else "ready", **self.metrics.stats()}

    async def store(self) -> dict[str, Any] | None:
        """Return what the messages' cluster is doing, as last heard; None if there is none."""
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                self._store = common_state(await self.rows())
        except TimeoutError:  # a service that hangs is no reason to be late
            pass
        return self._store

    def routes(self) -> list[Route]:
        """Return the routes of the pages."""
        return [
            Route("/healthz", _Healthz(self)),
            Route("/readyz", _Readyz(self)),
            Route("/metrics", _Metrics(self)),
            Route("/status", _Status(self)),
            Route("/openapi.json", _OpenApi(self)),
        ]


class _Page:
    def __init__(self, pages: GatewayPages) -> None:
        self._pages = pages


class _Healthz(_Page):
    @describe(summary="Whether the process lives", answer=Health)
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.data = _encode(self._pages.health())


class _Readyz(_Page):
    @describe(
        summary="Whether business and data objects, facades, loggers and the store can be reached",
        answer=Ready,
    )
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        reasons = ["the gateway is stopping"] if self._pages.draining else []
        missing, store = await asyncio.gather(self._pages.reasons(), self._pages.store())
        reasons += missing
        if store is not None and not store["members"]:
            reasons.append(f"the messages' Hazelcast cluster: {store['says']}")
        told = {} if store is None else {"store": store}
        if reasons:
            raise HttpProblem(
                503,
                "not_ready",
                "; ".join(reasons),
                headers={"Retry-After": "1"},
                reasons=reasons,
                definite=True,
                **told,
            )
        resp.data = _encode({"ready": True, **told})


class _Metrics(_Page):
    @describe(summary="Numbers for Prometheus", media_type=METRICS_MEDIA_TYPE)
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        pages = self._pages
        gauges = {}
        if pages.server is not None:
            gauges["connections"] = ("Open connections.", float(len(pages.server.connections)))
            gauges["under_way"] = ("Requests under way.", float(pages.server.under_way))
        resp.data = pages.metrics.exposition(gauges, await pages.rows())
        resp.content_type = METRICS_MEDIA_TYPE


class _Status(_Page):
    @describe(summary="All services, where they are and how they do", answer=StatusAnswer)
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        pages = self._pages
        rows = list(await pages.rows())
        store = common_state(rows)
        if pages.server is not None:
            address = "{}:{}".format(*pages.server.address)
            uri = f"{pages.server.scheme}://{address}"
            rows.append({"name": "gateway", "uri": uri, "address": address, **pages.health()})
        told = {} if store is None else {"store": store}
        resp.data = _encode({"services": rows, **told})


class _OpenApi(_Page):
    @describe(summary="This description", answer=dict[str, Any])
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.data = self._pages.document
